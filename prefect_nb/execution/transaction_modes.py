"""What a transaction may be: how isolated, when committed, where it is."""

import enum

UNSUPPORTED = (
    "Isolation level SERIALIZABLE is not supported by provided configuration. Please ensure you've provided a lock file "
    "directory or lock manager when using the SERIALIZABLE isolation level."
)


class _Word(str, enum.Enum):  # noqa: UP042  # shown with its class, unlike a StrEnum
    """A word that equals its own text."""

    def __repr__(self) -> str:
        return str(self)


class IsolationLevel(_Word):
    """How transactions with one key are kept apart."""

    READ_COMMITTED = "READ_COMMITTED"
    """Each sees what others have committed."""
    SERIALIZABLE = "SERIALIZABLE"
    """One after the other, by a lock manager's locks."""


class CommitMode(_Word):
    """When a transaction commits."""

    EAGER = "EAGER"
    """At its own end."""
    LAZY = "LAZY"
    """At the end of the outermost one."""
    OFF = "OFF"
    """Only when `commit()` is called; else it is rolled back at the end."""


class TransactionState(_Word):
    """Where a transaction is."""

    PENDING = "PENDING"
    ACTIVE = "ACTIVE"
    STAGED = "STAGED"
    COMMITTED = "COMMITTED"
    ROLLED_BACK = "ROLLED_BACK"
