"""Classes of a notebook in what is kept: an object comes back as one of the class that the notebook has now.

A pickled class of `__main__` is only good for the process that defined it, so such classes go into results by value. Read
back, they would be further classes of the same name: to `isinstance` and `==` the objects would be strangers. Therefore
the digest of a class's code goes along. Where the notebook has a class of that name and that code, that one is taken.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from prefect_nb.exceptions import SerializationError

_MAIN = "__main__"
_exact: ContextVar[bool] = ContextVar("prefect_nb_exact_classes", default=False)


class ClassChanged(SerializationError):
    """An object was kept whose class the notebook has defined differently since."""


@contextmanager
def exact_classes() -> Iterator[None]:
    """Inside, an object of a class that has changed since is refused with `ClassChanged`, not read as what it was."""
    token = _exact.set(True)
    try:
        yield
    finally:
        _exact.reset(token)


def reduced(kind: Any) -> tuple[Any, ...] | None:
    """How a class is pickled, if it is one that `__main__` has now; None: otherwise."""
    if not isinstance(kind, type) or kind.__module__ != _MAIN or _live(kind.__qualname__) is not kind:
        return None
    digest = _digest(kind)
    if digest is None:
        return None
    import cloudpickle

    return restored, (kind.__qualname__, digest, cloudpickle.dumps(kind))


def restored(qualname: str, digest: bytes, by_value: bytes) -> Any:
    """The class again. Files name this function.

    Raises:
        ClassChanged: as `exact_classes` says.
    """
    live = _live(qualname)
    if isinstance(live, type):
        if _digest(live) == digest:
            return live
        if _exact.get():
            raise ClassChanged(f"the class `{qualname}` is defined differently now")
    import cloudpickle

    return cloudpickle.loads(by_value)


def _live(qualname: str) -> Any:
    found: Any = sys.modules.get(_MAIN)
    for name in qualname.split("."):
        found = getattr(found, name, None)
    return found


def _digest(kind: type) -> bytes | None:
    from prefect_nb.model.code_fingerprints import CodeDigester
    from prefect_nb.model.fingerprint_parts import Unhashable

    try:
        return CodeDigester().code_digest(kind)
    except (Unhashable, RecursionError):
        return None
