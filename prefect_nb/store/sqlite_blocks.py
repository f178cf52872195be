"""Saved blocks in SQLite."""

from typing import Any
from uuid import UUID

import msgspec

from prefect_nb.interfaces.blocks import BlockDocument, BlockType
from prefect_nb.store.database import Database
from prefect_nb.store.rows import to_json

_COLUMNS = "id, type_slug, name, data, created_us, updated_us"


class SqliteBlocks:
    """A `BlockStore` in the history's database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def put(self, document: BlockDocument, *, overwrite: bool = False) -> BlockDocument | None:
        """Save a block; see `interfaces.blocks.BlockStore.put`."""
        with self._database.transaction() as connection:
            found = connection.execute(
                f"SELECT {_COLUMNS} FROM block WHERE type_slug = ? AND name = ?", (document.type_slug, document.name)
            ).fetchone()
            if found is not None:
                if not overwrite:
                    return None
                before = _document(found)
                document = msgspec.structs.replace(document, id=before.id, created_us=before.created_us)
            connection.execute(
                f"INSERT OR REPLACE INTO block ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?)",
                (
                    document.id.bytes,
                    document.type_slug,
                    document.name,
                    to_json(document.data),
                    document.created_us,
                    document.updated_us,
                ),
            )
        return document

    def get(self, type_slug: str, name: str) -> BlockDocument | None:
        """The block of that type and name."""
        return self._one("WHERE type_slug = ? AND name = ?", type_slug, name)

    def by_id(self, id: UUID) -> BlockDocument | None:
        """The block of that id."""
        return self._one("WHERE id = ?", id.bytes)

    def documents(self) -> list[BlockDocument]:
        """Every block, by type and name."""
        return [_document(row) for row in self._rows(f"SELECT {_COLUMNS} FROM block ORDER BY type_slug, name")]

    def delete(self, id: UUID) -> bool:
        """Delete a block; whether there was one."""
        with self._database.transaction() as connection:
            return connection.execute("DELETE FROM block WHERE id = ?", (id.bytes,)).rowcount > 0

    def put_type(self, block_type: BlockType) -> None:
        """Register a type, or what has changed of it."""
        with self._database.transaction() as connection:
            connection.execute(
                "INSERT INTO block_type (slug, body, created_us) VALUES (?, ?, ?) "
                "ON CONFLICT (slug) DO UPDATE SET body = excluded.body",
                (block_type.slug, to_json(block_type), block_type.created_us),
            )

    def types(self) -> list[BlockType]:
        """Every type, by slug."""
        return [
            msgspec.structs.replace(msgspec.json.decode(body, type=BlockType), created_us=created_us)
            for body, created_us in self._rows("SELECT body, created_us FROM block_type ORDER BY slug")
        ]

    def delete_type(self, slug: str) -> bool:
        """Forget a type and delete its blocks; whether there was one."""
        with self._database.transaction() as connection:
            connection.execute("DELETE FROM block WHERE type_slug = ?", (slug,))
            return connection.execute("DELETE FROM block_type WHERE slug = ?", (slug,)).rowcount > 0

    def key_id(self) -> str | None:
        """The id of the key that secrets are encrypted with."""
        rows = self._rows("SELECT id FROM secret_key")
        return str(rows[0][0]) if rows else None

    def set_key_id(self, id: str | None) -> None:
        """Note which key secrets are encrypted with."""
        with self._database.transaction() as connection:
            connection.execute("DELETE FROM secret_key")
            if id is not None:
                connection.execute("INSERT INTO secret_key (id) VALUES (?)", (id,))

    def _one(self, where: str, *values: Any) -> BlockDocument | None:
        rows = self._rows(f"SELECT {_COLUMNS} FROM block {where}", *values)
        return _document(rows[0]) if rows else None

    def _rows(self, sql: str, *values: Any) -> list[Any]:
        with self._database.reading() as connection:
            return connection.execute(sql, values).fetchall()


def _document(row: Any) -> BlockDocument:
    id, type_slug, name, data, created_us, updated_us = row
    return BlockDocument(
        id=UUID(bytes=id),
        type_slug=type_slug,
        name=name,
        data=msgspec.json.decode(data),
        created_us=created_us,
        updated_us=updated_us,
    )
