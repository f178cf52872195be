"""Saved blocks as plain data: secrets encrypted, other blocks referred to. Knows no block classes and no pydantic.

In a document's data an object with a single key that begins with `$` has a meaning of its own: `$secret` holds an
encrypted value, `$block` the id of a saved block, `$inline` the type and data of one that was not saved by itself, and
`$plain` an object that only looks like one of these.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from uuid import UUID

import msgspec

from prefect_nb.model import redaction

if TYPE_CHECKING:
    from prefect_nb.execution.shapes import Surroundings

SECRET, BLOCK, INLINE, PLAIN = "$secret", "$block", "$inline", "$plain"

current_home: Callable[[], Surroundings]
"""Gives this process's home; set by `home`, which is above this."""


_learned: dict[UUID, int] = {}


def seal(home: Surroundings, value: Any) -> dict[str, str]:
    """A secret's value, as JSON has it, encrypted.

    Raises:
        SecretKeyError: there is no key to be used.
    """
    return {SECRET: home.cipher.encrypt(msgspec.json.encode(value))}


def unseal(home: Surroundings, text: str) -> Any:
    """A secret's value, which is looked for in what is stored from then on.

    Raises:
        SecretKeyError: it cannot be decrypted.
    """
    value = msgspec.json.decode(home.cipher.decrypt(text))
    redaction.learn(*redaction.texts(value))
    return value


def learn_all(home: Surroundings) -> None:
    """Look for the secrets of every saved block: before work goes where they may be loaded, and what it says comes back."""
    if not home.cipher.in_use:
        return
    for document in home.store.blocks.documents():
        if _learned.get(document.id) != document.updated_us:
            _learn(home, document.data)
            _learned[document.id] = document.updated_us


def _learn(home: Surroundings, data: Any) -> None:
    if isinstance(data, dict):
        if type(data.get(SECRET)) is str and len(data) == 1:
            unseal(home, data[SECRET])
        else:
            for item in data.values():
                _learn(home, item)
    elif isinstance(data, list):
        for item in data:
            _learn(home, item)


def kind_of(data: Any) -> str | None:
    """Which meaning of its own an object has; None for none."""
    if isinstance(data, dict) and len(data) == 1:
        (key,) = data
        if key in (SECRET, BLOCK, INLINE, PLAIN):
            return str(key)
    return None


def escaped(data: dict[str, Any]) -> dict[str, Any]:
    """An object of the user's that is not to be taken for one of ours."""
    return {PLAIN: data} if kind_of(data) is not None else data
