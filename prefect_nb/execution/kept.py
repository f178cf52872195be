"""Kept results: the reference that is stored, and the value or the way to it."""

from typing import Any

from prefect_nb.exceptions import MissingResult
from prefect_nb.interfaces import ResultStore
from prefect_nb.model.runs import ResultReference
from prefect_nb.model.states import ResultHandle

_ABSENT = object()


class KeptResult(ResultHandle):
    """A value in the result store. The process that made it has it in memory as well."""

    __slots__ = ("_store", "_value", "reference")

    def __init__(self, reference: ResultReference, store: ResultStore, value: Any = _ABSENT) -> None:
        self.reference = reference
        self._store = store
        self._value = value

    def get(self) -> Any:
        """The value, read once.

        Raises:
            MissingResult, ResultCorrupt: it cannot be read.
        """
        if self._value is _ABSENT:
            self._value = self._store.get(self.reference)
        return self._value

    def __repr__(self) -> str:
        return f"KeptResult(sha256={self.reference.sha256[:12]!r}, size={self.reference.size})"


class KeptElsewhere:
    """Stands for a kept result in a call that is carried to another process, which reads it there."""

    __slots__ = ("reference",)

    def __init__(self, reference: ResultReference) -> None:
        self.reference = reference

    def get(self) -> Any:
        """The value.

        Raises:
            MissingResult, ResultCorrupt: it cannot be read.
        """
        return results_here().get(self.reference)


def results_here() -> ResultStore:
    """The results of the home that this code belongs to; `home` says how to find it."""
    raise MissingResult("There is no home here to read a kept result from.")


class NotKept(ResultHandle):
    """Stands where a run of another process completed and its value was not kept."""

    __slots__ = ("why",)

    def __init__(self, why: str) -> None:
        self.why = why

    def get(self) -> Any:
        """Always raises.

        Raises:
            MissingResult: saying how to have results kept.
        """
        raise MissingResult(self.why)
