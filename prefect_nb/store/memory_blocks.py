"""Saved blocks in memory."""

import threading
from uuid import UUID

import msgspec

from prefect_nb.interfaces.blocks import BlockDocument, BlockType


class MemoryBlocks:
    """A `BlockStore` that ends with its process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._documents: dict[tuple[str, str], BlockDocument] = {}
        self._types: dict[str, BlockType] = {}
        self._key_id: str | None = None

    def put(self, document: BlockDocument, *, overwrite: bool = False) -> BlockDocument | None:
        """Save a block; see `interfaces.blocks.BlockStore.put`."""
        key = document.type_slug, document.name
        with self._lock:
            before = self._documents.get(key)
            if before is not None:
                if not overwrite:
                    return None
                document = msgspec.structs.replace(document, id=before.id, created_us=before.created_us)
            self._documents[key] = document
        return document

    def get(self, type_slug: str, name: str) -> BlockDocument | None:
        """The block of that type and name."""
        return self._documents.get((type_slug, name))

    def by_id(self, id: UUID) -> BlockDocument | None:
        """The block of that id."""
        return next((document for document in self.documents() if document.id == id), None)

    def documents(self) -> list[BlockDocument]:
        """Every block, by type and name."""
        with self._lock:
            return [self._documents[key] for key in sorted(self._documents)]

    def delete(self, id: UUID) -> bool:
        """Delete a block; whether there was one."""
        found = self.by_id(id)
        return found is not None and self._documents.pop((found.type_slug, found.name), None) is not None

    def put_type(self, block_type: BlockType) -> None:
        """Register a type, or what has changed of it."""
        with self._lock:
            before = self._types.get(block_type.slug, block_type)
            self._types[block_type.slug] = msgspec.structs.replace(block_type, created_us=before.created_us)

    def types(self) -> list[BlockType]:
        """Every type, by slug."""
        with self._lock:
            return [self._types[slug] for slug in sorted(self._types)]

    def delete_type(self, slug: str) -> bool:
        """Forget a type and delete its blocks; whether there was one."""
        with self._lock:
            self._documents = {key: document for key, document in self._documents.items() if key[0] != slug}
            return self._types.pop(slug, None) is not None

    def key_id(self) -> str | None:
        """The id of the key that secrets are encrypted with."""
        return self._key_id

    def set_key_id(self, id: str | None) -> None:
        """Note which key secrets are encrypted with."""
        self._key_id = id
