"""Large values that travel beside a work, not in it: each goes to a cluster once, whoever needs it there.

While a work is packed, a `Held` value in it, and each large argument, is put aside and the work gets its number instead;
where the work is unpacked, the number becomes the value again. Whoever is given the same number twice gets one object,
and two works never share one.
"""

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

from prefect_nb.engine.commands import Returned
from prefect_nb.exceptions import MissingResult
from prefect_nb.model.states import ResultHandle

HELD_BYTES = 64 * 1024
"""A result of more bytes stays in the cluster until somebody here asks for it."""
ASIDE_BYTES = 1024 * 1024
"""A work of more bytes is packed with each of its large arguments aside."""


class Cluster(Protocol):
    """Where values can be put aside."""

    def put(self, data: bytes) -> Any:
        """Its place in the cluster; the same bytes have one place."""
        ...

    def fetch(self, place: Any) -> bytes:
        """What is at a place."""
        ...


class Held(ResultHandle):
    """A task's value that has stayed in the cluster where it was made.

    Args:
        cluster: the cluster.
        place: where it is there.
        read: makes the value of the bytes there.
    """

    __slots__ = ("__weakref__", "_lock", "_read", "_value", "cluster", "on_get", "place")

    def __init__(self, cluster: Cluster, place: Any, read: Callable[[bytes], Any]) -> None:
        self.cluster = cluster
        self.place = place
        self.on_get: Callable[[Any], None] | None = None
        self._read = read
        self._value: Any = None
        self._lock = threading.Lock()

    def get(self) -> Any:
        """The value, fetched once.

        Raises:
            MissingResult: it was lost with the cluster.
        """
        with self._lock:
            if self.place is not None:
                self._value = self._fetch()
                self.place = None
                if self.on_get is not None:
                    self.on_get(self._value)
        return self._value

    def come_home(self) -> None:
        """Fetch it if it has not been: the cluster is about to go. Where that fails, `get` says so."""
        with contextlib.suppress(MissingResult):
            self.get()

    def _fetch(self) -> Any:
        try:
            return self._read(self.cluster.fetch(self.place))
        except Exception as error:
            raise MissingResult(f"The task's value was in the cluster and cannot be fetched: {error}") from error

    def __reduce__(self) -> Any:
        """As its number where it can stay where it is, else as the value."""
        packing, place = _here.packing, self.place
        if packing is None or place is None or packing.cluster is not self.cluster:
            return _itself, (self.get(),)
        if packing.alone:
            packing.needs_others = True
            return _itself, (None,)
        return _take, (packing.number_of(place),)


class _Packing:
    """One work being packed, or one argument of it `alone`."""

    def __init__(self, cluster: Cluster, *, splits: bool = False, alone: bool = False) -> None:
        self.cluster = cluster
        self.splits = splits
        self.alone = alone
        self.needs_others = False
        self.places: list[Any] = []

    def number_of(self, place: Any) -> int:
        for number, known in enumerate(self.places):
            if known is place:
                return number
        self.places.append(place)
        return len(self.places) - 1


class _Here(threading.local):
    packing: _Packing | None = None
    values: "list[Callable[[], Any]] | None" = None


_here = _Here()


def pack(work: Any, cluster: Cluster, dump: Callable[[Any], bytes]) -> tuple[bytes, list[Any]]:
    """A work as bytes, and the places of the values that were put aside for it.

    Args:
        work: what to pack.
        cluster: where it goes.
        dump: makes bytes of it.
    """
    data, places = _packed(work, _Packing(cluster), dump)
    if len(data) > ASIDE_BYTES:
        data, places = _packed(work, _Packing(cluster, splits=True), dump)
    return data, places


def _packed(work: Any, packing: _Packing, dump: Callable[[Any], bytes]) -> tuple[bytes, list[Any]]:
    _here.packing = packing
    try:
        return dump(work), packing.places
    finally:
        _here.packing = None


@contextlib.contextmanager
def unpacking(values: Sequence[Callable[[], Any]]) -> Iterator[None]:
    """Around the unpacking of a work, with what reads each of the values put aside for it."""
    read: dict[int, Any] = {}

    def reader(number: int) -> Callable[[], Any]:
        def once() -> Any:
            if number not in read:
                read[number] = values[number]()
            return read[number]

        return once

    _here.values = [reader(number) for number in range(len(values))]
    try:
        yield
    finally:
        _here.values = None


def arguments(parameters: dict[str, Any]) -> dict[str, Any]:
    """What a work pickles in place of its arguments: where it is large, each that is large itself goes aside."""
    packing = _here.packing
    if packing is None or not packing.splits:
        return parameters
    return {name: _Argument(value) for name, value in parameters.items()}


class _Argument:
    """An argument on its way; it arrives as the value."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __reduce__(self) -> Any:
        packing = _here.packing
        assert packing is not None
        data = _alone(self.value, packing)
        if data is None or len(data) <= HELD_BYTES:
            return _itself, (self.value,)
        return _take, (packing.number_of(packing.cluster.put(data)),)


def _alone(value: Any, packing: _Packing) -> bytes | None:
    """A value as bytes, in the form of an outcome; None where it needs values of the cluster beside it."""
    import cloudpickle

    _here.packing = trial = _Packing(packing.cluster, alone=True)
    try:
        data: bytes = cloudpickle.dumps((Returned(value), None))
    finally:
        _here.packing = packing
    return None if trial.needs_others else data


def _take(number: int) -> Any:
    values = _here.values
    assert values is not None
    return values[number]()


def _itself(value: Any) -> Any:
    return value
