"""What every store of blocks does."""

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from prefect_nb.interfaces import BlockDocument, BlockStore, BlockType
from prefect_nb.store.memory import MemoryStore
from prefect_nb.store.sqlite import SqliteStore


@pytest.fixture(params=["sqlite", "memory"])
def blocks(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[BlockStore]:
    store = SqliteStore.open(tmp_path / "home") if request.param == "sqlite" else MemoryStore()
    yield store.blocks
    store.close()


def document(name: str = "main", slug: str = "warehouse", at_us: int = 1, **data: object) -> BlockDocument:
    return BlockDocument(
        id=uuid.uuid4(), type_slug=slug, name=name, data=dict(data), created_us=at_us, updated_us=at_us
    )


def test_a_block_is_found_by_type_and_name_and_by_id(blocks: BlockStore):
    saved = blocks.put(document(url="db", nested={"a": [1, None, "ü"]}))

    assert saved is not None
    assert blocks.get("warehouse", "main") == blocks.by_id(saved.id) == saved
    assert blocks.get("warehouse", "other") is None
    assert blocks.get("other", "main") is None
    assert blocks.by_id(uuid.uuid4()) is None


def test_a_name_is_taken_until_it_is_to_be_overwritten(blocks: BlockStore):
    first = blocks.put(document(url="a"))
    assert first is not None

    assert blocks.put(document(url="b", at_us=2)) is None
    assert blocks.get("warehouse", "main") == first

    second = blocks.put(document(url="b", at_us=2), overwrite=True)
    assert second is not None
    assert (second.id, second.created_us, second.updated_us, second.data) == (first.id, 1, 2, {"url": "b"})
    assert blocks.documents() == [second]


def test_the_same_name_under_another_type_is_another_block(blocks: BlockStore):
    blocks.put(document())
    blocks.put(document(slug="vault"))
    blocks.put(document("a"))

    assert [(one.type_slug, one.name) for one in blocks.documents()] == [
        ("vault", "main"),
        ("warehouse", "a"),
        ("warehouse", "main"),
    ]


def test_deleting(blocks: BlockStore):
    saved = blocks.put(document())
    assert saved is not None

    assert blocks.delete(saved.id)
    assert not blocks.delete(saved.id)
    assert blocks.documents() == []


def test_a_type_keeps_its_creation_and_takes_its_blocks_along(blocks: BlockStore):
    blocks.put_type(BlockType(slug="warehouse", name="Warehouse", created_us=1))
    blocks.put_type(BlockType(slug="warehouse", name="Warehouse", description="new", schema={"a": 1}, created_us=2))
    blocks.put(document())
    blocks.put(document(slug="vault"))

    assert blocks.types() == [
        BlockType(slug="warehouse", name="Warehouse", description="new", schema={"a": 1}, created_us=1)
    ]
    assert blocks.delete_type("warehouse")
    assert not blocks.delete_type("warehouse")
    assert [one.type_slug for one in blocks.documents()] == ["vault"]


def test_the_id_of_the_key(blocks: BlockStore):
    assert blocks.key_id() is None

    blocks.set_key_id("one")
    blocks.set_key_id("two")
    assert blocks.key_id() == "two"

    blocks.set_key_id(None)
    assert blocks.key_id() is None
