"""Saved blocks and their types: listing, finding, deleting, registering what a file defines."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from prefect_nb.exceptions import ObjectNotFound
from prefect_nb.execution import block_documents
from prefect_nb.home import Home
from prefect_nb.interfaces import BlockDocument, BlockType
from prefect_nb.model.redaction import MASK
from prefect_nb.service.text import did_you_mean


def documents() -> list[BlockDocument]:
    """Every saved block, by type and name."""
    return Home.current().store.blocks.documents()


def types() -> list[BlockType]:
    """Every type that was registered or of which a block was saved."""
    return Home.current().store.blocks.types()


def find(slug: str | None, id: str | None = None) -> BlockDocument:
    """A saved block by "type/name" or by id.

    Raises:
        ObjectNotFound: there is none; the nearest are named.
    """
    blocks = Home.current().store.blocks
    found = None
    if slug is not None and "/" in slug:
        found = blocks.get(*slug.split("/", 1))
    elif id is not None:
        found = blocks.by_id(_uuid(id))
    if found is None:
        wanted = slug or id or ""
        near = did_you_mean(wanted, [slug_of(one) for one in blocks.documents()], 1)
        raise ObjectNotFound(f"There is no block {wanted!r}.{near} A block is named type/name; `prefect-nb block ls`.")
    return found


def delete(document: BlockDocument) -> None:
    """Delete a saved block."""
    Home.current().store.blocks.delete(document.id)


def find_type(slug: str) -> BlockType:
    """A type by its slug.

    Raises:
        ObjectNotFound: there is none; the nearest is named.
    """
    found = {one.slug: one for one in types()}
    if slug not in found:
        raise ObjectNotFound(f"There is no block type {slug!r}.{did_you_mean(slug, found, 1)}")
    return found[slug]


def delete_type(slug: str) -> None:
    """Forget a type and delete its blocks.

    Raises:
        ObjectNotFound: there is none.
    """
    find_type(slug)
    Home.current().store.blocks.delete_type(slug)


def register(*, file: str | None = None, module: str | None = None) -> list[str]:
    """Register the types of block that a file or a module defines; gives their names.

    Raises:
        ObjectNotFound, ScriptError: it cannot be imported.
        ObjectNotFound: it defines none.
    """
    from pathlib import Path

    from prefect_nb.execution import loading
    from prefect_nb.execution.blocks import Block

    found = loading._import_file(Path(file)) if file is not None else loading._import_module(module or "")
    classes = [
        value
        for value in vars(found).values()
        if Block.is_block_class(value) and value is not Block and value.__module__ == found.__name__
    ]
    if not classes:
        raise ObjectNotFound(f"{file or module} defines no blocks. Subclass prefect_nb.blocks.core.Block there.")
    for one in classes:
        one._register()
    return sorted({one.get_block_type_name() for one in classes})


def reset_key() -> None:
    """Give up what was encrypted with a key that is lost: the next secret makes a new one."""
    Home.current().store.blocks.set_key_id(None)


def slug_of(document: BlockDocument) -> str:
    """How a block is named: type/name."""
    return f"{document.type_slug}/{document.name}"


def shown(data: Any) -> Any:
    """A block's data for showing: secrets masked, saved blocks by what they are."""
    match block_documents.kind_of(data):
        case block_documents.SECRET:
            return MASK
        case block_documents.BLOCK:
            found = Home.current().store.blocks.by_id(UUID(data[block_documents.BLOCK]))
            return None if found is None else slug_of(found)
        case block_documents.INLINE:
            return shown(data[block_documents.INLINE]["data"])
        case block_documents.PLAIN:
            return {key: shown(value) for key, value in data[block_documents.PLAIN].items()}
    if isinstance(data, dict):
        return {key: shown(value) for key, value in data.items()}
    return [shown(value) for value in data] if isinstance(data, list) else data


def _uuid(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        raise ObjectNotFound(f"{text!r} is no block's id.") from None
