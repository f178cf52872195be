"""Ports of saved blocks, and of the encryption that keeps their secrets."""

from typing import Any, Protocol
from uuid import UUID

import msgspec


class BlockDocument(msgspec.Struct, frozen=True, kw_only=True):
    """A block as it is saved: plain data, in which secrets are encrypted and saved blocks are referred to."""

    id: UUID
    type_slug: str
    name: str
    data: dict[str, Any]
    created_us: int
    updated_us: int


class BlockType(msgspec.Struct, frozen=True, kw_only=True):
    """A kind of block that was registered or saved once."""

    slug: str
    name: str
    description: str | None = None
    code_example: str | None = None
    schema: dict[str, Any] = {}
    created_us: int = 0


class BlockStore(Protocol):
    """Saved blocks by type and name, their types, and which key their secrets are encrypted with."""

    def put(self, document: BlockDocument, *, overwrite: bool = False) -> BlockDocument | None:
        """Save a block. One of that type and name is replaced and keeps its id and its creation.

        Returns:
            What is saved now; None: there is one of that type and name, and it was not to be overwritten.
        """
        ...

    def get(self, type_slug: str, name: str) -> BlockDocument | None:
        """The block of that type and name."""
        ...

    def by_id(self, id: UUID) -> BlockDocument | None:
        """The block of that id."""
        ...

    def documents(self) -> list[BlockDocument]:
        """Every block, by type and name."""
        ...

    def delete(self, id: UUID) -> bool:
        """Delete a block; whether there was one."""
        ...

    def put_type(self, block_type: BlockType) -> None:
        """Register a type, or what has changed of it."""
        ...

    def types(self) -> list[BlockType]:
        """Every type, by slug."""
        ...

    def delete_type(self, slug: str) -> bool:
        """Forget a type and delete its blocks; whether there was one."""
        ...

    def key_id(self) -> str | None:
        """The id of the key that secrets are encrypted with; None: nothing was encrypted yet."""
        ...

    def set_key_id(self, id: str | None) -> None:
        """Note which key secrets are encrypted with; None: what was encrypted is given up."""
        ...


class Cipher(Protocol):
    """Encryption with the home's own key."""

    @property
    def in_use(self) -> bool:
        """Whether there is a key, so that something may have been encrypted."""
        ...

    def encrypt(self, data: bytes) -> str:
        """The data as a text that only `decrypt` can read.

        Raises:
            SecretKeyError: the key file is missing, readable to others, or not this user's.
        """
        ...

    def decrypt(self, text: str) -> bytes:
        """What was encrypted.

        Raises:
            SecretKeyError: the key file is missing, readable to others, not this user's, or not the one it was
                encrypted with.
        """
        ...
