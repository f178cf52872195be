"""Marks a caller puts on an argument to say how the engine should treat it."""

from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Annotation(Generic[T]):
    """A value with a mark on it."""

    __slots__ = ("value",)

    def __init__(self, value: T) -> None:
        self.value = value

    def unwrap(self) -> T:
        """The value without its mark."""
        return self.value

    def rewrap(self, value: Any) -> "Annotation[Any]":
        """The same mark on another value."""
        return type(self)(value)

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self.value == other.value

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.value!r})"


class unmapped(Annotation[T]):
    """`task.map(xs, unmapped(table))`: every child gets the whole value."""

    __slots__ = ()


class allow_failure(Annotation[T]):
    """The task runs even if this upstream failed, and receives its exception as the value."""

    __slots__ = ()


class quote(Annotation[T]):
    """The value is passed as it is: it is not searched for futures."""

    __slots__ = ()

    def unquote(self) -> T:
        """The quoted value."""
        return self.value


class opaque(Annotation[T]):
    """A future or state here is resolved, but what it resolves to is not searched further."""

    __slots__ = ()


Quote = quote
BaseAnnotation = Annotation
