"""Transactions: what runs in one is committed together at its end, or rolled back.

An explicit transaction is a `with` block. Every attempt of a task run is one, too, made when something asks for it: what
is called in the attempt's body is rolled back if the attempt fails. Laws:

1. `commit` and `rollback` happen once, whichever comes first.
2. A transaction inside another one leaves its fate to that one, unless its mode is EAGER.
3. Rollback hooks run in the opposite order of completion. An error in one is logged; the others still run.
4. Whoever fails inside an explicit transaction rolls it back, even if the error is caught.

What has to be awaited (async hooks, locks) is yielded to the driver, which waits in its own way: `Transaction` blocks,
`AsyncTransaction` awaits.
"""

from __future__ import annotations

import copy
import inspect
import logging
import os
import socket
import threading
from collections.abc import Callable
from contextvars import ContextVar, Token
from typing import TYPE_CHECKING, Any, NoReturn, Self

from prefect_nb.exceptions import ConfigurationError, PrefectException, SerializationError
from prefect_nb.execution.context import current_task
from prefect_nb.execution.steps import Locking, Steps, awaiting, blocking
from prefect_nb.execution.transaction_modes import UNSUPPORTED, CommitMode, IsolationLevel, TransactionState

if TYPE_CHECKING:
    from prefect_nb.execution.context import TaskRunContext

Hook = Callable[..., Any]

_UNSERIALIZABLE = (
    "Encountered an error while serializing result for transaction %r: %s Code execution will continue, but the "
    "transaction will not be committed."
)

logger = logging.getLogger("prefect_nb.transactions")
_guard = threading.RLock()
_NOT_SET = object()


_OVER = (TransactionState.COMMITTED, TransactionState.ROLLED_BACK)
active: ContextVar[BaseTransaction | None] = ContextVar("prefect_nb_transaction", default=None)
"""The innermost `with` block around this code; `get_transaction` knows of attempts, too."""


class BaseTransaction:
    """What blocking and awaiting transactions share.

    Args:
        store: where the staged value is kept under the key: `exists`, `read`, `write`, maybe a `lock_manager`.
        key: identifies the transaction's result. One that is in the store already is committed from the beginning.
        children: transactions whose fate depends on this one.
        commit_mode: None: as the enclosing transaction's, else LAZY.
        isolation_level: SERIALIZABLE holds the key's lock from beginning to end.
        state: where it begins.
        on_commit_hooks, on_rollback_hooks: called with the transaction.
        overwrite: begin anew although there is a result under the key.
        logger: where hooks and their errors are logged.
        write_on_commit: keep the staged value under the key.
        values: what `get` gives, by name.
    """

    implicit = False
    """Whether it is an attempt of a task run, and not a `with` block."""

    def __init__(
        self,
        *,
        store: Any = None,
        key: str | None = None,
        children: list[Any] | None = None,
        commit_mode: CommitMode | None = None,
        isolation_level: IsolationLevel | None = IsolationLevel.READ_COMMITTED,
        state: TransactionState = TransactionState.PENDING,
        on_commit_hooks: list[Hook] | None = None,
        on_rollback_hooks: list[Hook] | None = None,
        overwrite: bool = False,
        logger: Any = None,
        write_on_commit: bool = True,
        values: dict[str, Any] | None = None,
    ) -> None:
        self.store = store
        self.key = key
        self.children: list[Any] = children if children is not None else []
        self.commit_mode = commit_mode
        self.isolation_level = isolation_level
        self.state = state
        self.on_commit_hooks: list[Hook] = on_commit_hooks if on_commit_hooks is not None else []
        self.on_rollback_hooks: list[Hook] = on_rollback_hooks if on_rollback_hooks is not None else []
        self.overwrite = overwrite
        self.write_on_commit = write_on_commit
        self.within: TaskRunContext | None = None
        """The body it was entered in."""
        self.values: dict[str, Any] = values if values is not None else {}
        self._staged_value: Any = None
        self._parent: BaseTransaction | None = None
        self._adopted_by: BaseTransaction | None = None
        self._token: Token[BaseTransaction | None] | None = None
        self._lock_holder: str | None = None
        self._logger = logger
        self._fate: TransactionState | None = None
        """What it is becoming: COMMITTED or ROLLED_BACK, from when that begins."""

    # Looking

    @property
    def logger(self) -> Any:
        """Where hooks and their errors are logged."""
        if self._logger is None:
            self._logger = _default_logger()
        return self._logger

    @classmethod
    def get_active(cls) -> Any:
        """The innermost transaction here; None for none."""
        return get_transaction()

    def get_parent(self) -> Any:
        """The enclosing transaction; None for none."""
        return self._parent

    def is_committed(self) -> bool:
        """Whether it has committed, now or under the same key before."""
        return self.state is TransactionState.COMMITTED

    def is_rolled_back(self) -> bool:
        """Whether it was rolled back."""
        return self.state is TransactionState.ROLLED_BACK

    def is_staged(self) -> bool:
        """Whether a value was staged and waits for the commit."""
        return self.state is TransactionState.STAGED

    def is_pending(self) -> bool:
        """Whether it has not begun."""
        return self.state is TransactionState.PENDING

    def is_active(self) -> bool:
        """Whether it has begun, and nothing was staged yet."""
        return self.state is TransactionState.ACTIVE

    @property
    def is_over(self) -> bool:
        """Whether it has committed or was rolled back, or is at it."""
        return self.state in _OVER or self._fate is not None

    @property
    def defers(self) -> bool:
        """Whether what completes in it is kept only when it commits."""
        return self.commit_mode is not CommitMode.EAGER

    @property
    def root(self) -> BaseTransaction:
        """The outermost of the transactions around it, or itself."""
        return self if self._parent is None else self._parent.root

    # Values

    def set(self, name: str, value: Any) -> None:
        """Remember a value; this transaction and those inside it can get copies of it."""
        self.values[name] = value

    def get(self, name: str, default: Any = _NOT_SET) -> Any:
        """A copy of the value of that name, of this transaction or of the nearest around it that has one.

        Raises:
            ValueError: none has, and there is no default.
        """
        transaction: BaseTransaction | None = self
        while transaction is not None:
            if name in transaction.values:
                return copy.deepcopy(transaction.values[name])
            transaction = transaction._parent
        if default is _NOT_SET:
            raise ValueError(f"Could not retrieve value for unknown key: {name}")
        return default

    # Staging

    def stage(
        self, value: Any, on_rollback_hooks: list[Hook] | None = None, on_commit_hooks: list[Hook] | None = None
    ) -> None:
        """Have this value kept under the key at the commit, and these hooks called. Nothing happens once committed."""
        if self.state is TransactionState.COMMITTED:
            return
        self._staged_value = value
        self.on_rollback_hooks += on_rollback_hooks or []
        self.on_commit_hooks += on_commit_hooks or []
        self.state = TransactionState.STAGED

    def add_child(self, transaction: Any) -> None:
        """Let the other transaction's fate depend on this one."""
        self.adopt(transaction)

    def adopt(self, transaction: BaseTransaction) -> TransactionState | None:
        """Add a child; what has become of this one, where it is too late for the child to share that."""
        with _guard:
            if transaction._adopted_by is not self:
                transaction._adopted_by = self
                self.children.append(transaction)
            return (self._fate or self.state) if self.is_over else None

    def prepare_transaction(self) -> None:
        """Find the enclosing transaction, and what is not given of the modes.

        Raises:
            ConfigurationError: SERIALIZABLE, and nothing that locks.
        """
        self._parent = get_transaction()
        self.within = current_task.get()
        if self.commit_mode is None:
            inherited = self._parent.commit_mode if self._parent is not None else None
            self.commit_mode = inherited or CommitMode.LAZY
        if self.isolation_level is None:
            outer = self._parent.isolation_level if self._parent is not None else None
            self.isolation_level = outer or IsolationLevel.READ_COMMITTED
        self.commit_mode = CommitMode(self.commit_mode)
        self.isolation_level = IsolationLevel(self.isolation_level)
        if self._serializes and getattr(self.store, "lock_manager", None) is None:
            raise ConfigurationError(UNSUPPORTED)

    # The beginning and the end, for both colours

    @property
    def _serializes(self) -> bool:
        return self.isolation_level == "SERIALIZABLE" and self.store is not None and self.key is not None

    def _entering(self) -> Steps[None]:
        if self._token is not None:
            raise RuntimeError("Context already entered. Context enter calls cannot be nested.")
        self.prepare_transaction()
        self.state = TransactionState.ACTIVE
        self._token = active.set(self)
        try:
            yield from self._beginning()
        except BaseException:
            self._leave_context()
            raise

    def _beginning(self) -> Steps[None]:
        if self.store is None or self.key is None:
            return
        if self._serializes and self._lock_holder is None:
            holder = f"{socket.gethostname()}:{os.getpid()}:{threading.get_ident()}:{id(self)}"
            yield Locking(self.store.lock_manager, self.key, holder)
            self._lock_holder = holder
        if not self.overwrite and self.store.exists(self.key):
            self.state = TransactionState.COMMITTED

    def _exiting(self, failed: bool) -> Steps[None]:
        if failed:
            yield from self._rolling_back()
        elif self.commit_mode is CommitMode.EAGER:
            yield from self._committing()
        elif self._parent is None:
            yield from self._rolling_back() if self.commit_mode is CommitMode.OFF else self._committing()
        yield from self._resetting()

    def _resetting(self) -> Steps[None]:
        parent = self._parent
        fate = parent.adopt(self) if parent is not None else None
        self._leave_context()
        if parent is None:
            return
        if self.state is TransactionState.ROLLED_BACK:
            yield from parent._rolling_back()
        elif fate is TransactionState.COMMITTED:
            yield from self._committing()

    def _leave_context(self) -> None:
        token, self._token = self._token, None
        if token is None:
            return
        try:
            active.reset(token)
        except ValueError:  # it is left in another context than it was entered in
            active.set(self._parent)

    def _committing(self) -> Steps[bool]:
        if not self._begin_end(TransactionState.COMMITTED):
            return False
        try:
            for child in list(self.children):
                yield from child._committing()
            problem = yield from self._keeping()
            if problem is not None:
                self.logger.warning(*problem)
                yield from self._undoing()
                return False
        except BaseException:
            self._fate = None
            raise
        self.state = TransactionState.COMMITTED
        self._unlock()
        return True

    def _keeping(self) -> Steps[tuple[Any, ...] | None]:
        """Keep the value, call the hooks; a log message where that failed."""
        try:
            self._write()
        except SerializationError as error:
            return _UNSERIALIZABLE, self.key, error
        except PrefectException as error:
            return "The result of transaction %r could not be kept, so it is rolled back: %s", self.key, error
        for hook in list(self.on_commit_hooks):
            if (yield from self._calling(hook, "commit")) is not None:
                self._unwrite()
                return "An error was encountered while committing transaction %r", self.key
        return None

    def _rolling_back(self) -> Steps[bool]:
        if not self._begin_end(TransactionState.ROLLED_BACK):
            return False
        try:
            return (yield from self._undoing())
        except BaseException:
            self._fate = None
            raise

    def _undoing(self) -> Steps[bool]:
        failures = 0
        for hook in reversed(list(self.on_rollback_hooks)):
            failures += (yield from self._calling(hook, "rollback")) is not None
        if failures:
            self.logger.error("An error was encountered while rolling back transaction %r", self.key)
        self._take_back()
        self.state = TransactionState.ROLLED_BACK
        for child in reversed(list(self.children)):
            yield from child._rolling_back()
        self._unlock()
        return failures == 0

    def _begin_end(self, fate: TransactionState) -> bool:
        """Whether it may end so; False where it has ended, or somebody else is at it."""
        with _guard:
            if not self.is_over:
                self._fate = fate
                return True
        if self.state in _OVER:  # from the beginning, maybe: there is a result under its key
            self._unlock()
        return False

    def _calling(self, hook: Hook, kind: str) -> Steps[Exception | None]:
        name = _name_of(hook)
        self.logger.info("Running %s hook %r", kind, name)
        try:
            answer = hook(self)
            if inspect.isawaitable(answer):
                yield answer
        except Exception as error:
            self.logger.exception("An error was encountered while running %s hook %r", kind, name)
            return error
        self.logger.info("%s hook %r finished running successfully", kind.capitalize(), name)
        return None

    def _write(self) -> None:
        if self.store is not None and self.key is not None and self.write_on_commit:
            held = {} if self._lock_holder is None else {"holder": self._lock_holder}
            self.store.write(self._staged_value, key=self.key, **held)

    def _unwrite(self) -> None:
        """A commit hook failed after `_write`."""
        if self.store is not None and self.key is not None and self.write_on_commit:
            forget = getattr(self.store, "forget", None)
            if forget is not None:
                forget(self.key)

    def _take_back(self) -> None:
        """Undo what completed in it."""

    def _unlock(self) -> None:
        holder, self._lock_holder = self._lock_holder, None
        if holder is not None:
            try:
                self.store.lock_manager.release_lock(self.key, holder)
            except (OSError, ValueError, PrefectException) as error:
                self.logger.warning("The lock of transaction %r could not be released: %s", self.key, error)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(key={self.key!r}, state={self.state.value})"


class Transaction(BaseTransaction):
    """A transaction of plain code. See `BaseTransaction` and `transaction`."""

    def __enter__(self) -> Self:
        blocking(self._entering())
        return self

    def __exit__(self, *exc_info: object) -> None:
        blocking(self._exiting(exc_info[0] is not None))

    def begin(self) -> None:
        """Take the key's lock where the isolation level wants it, and see whether there is a result already."""
        blocking(self._beginning())

    def read(self) -> Any:
        """The record kept under the key (`result` is the value); None for none."""
        return _read(self)

    def reset(self) -> None:
        """Leave the fate of this transaction to the enclosing one, and be the innermost no longer."""
        blocking(self._resetting())

    def commit(self) -> bool:
        """Commit children, keep the staged value, call the commit hooks. False: it was over, or could not be."""
        return blocking(self._committing())

    def run_hook(self, hook: Hook, hook_type: str) -> None:
        """Call a hook with this transaction. Raises what it raises."""
        error = blocking(self._calling(hook, hook_type))
        if error is not None:
            raise error

    def rollback(self) -> bool:
        """Call the rollback hooks, last first, and roll the children back. False: it was over, or a hook failed."""
        return blocking(self._rolling_back())


class AsyncTransaction(BaseTransaction):
    """A transaction of coroutines. See `BaseTransaction` and `atransaction`."""

    async def __aenter__(self) -> Self:
        await awaiting(self._entering())
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await awaiting(self._exiting(exc_info[0] is not None))

    def __enter__(self) -> NoReturn:
        raise NotImplementedError(
            "AsyncTransaction does not support the `with` statement. Use the `async with` statement instead."
        )

    def __exit__(self, *exc_info: object) -> NoReturn:
        raise NotImplementedError(
            "AsyncTransaction does not support the `with` statement. Use the `async with` statement instead."
        )

    async def begin(self) -> None:
        """See `Transaction.begin`."""
        await awaiting(self._beginning())

    async def read(self) -> Any:
        """See `Transaction.read`."""
        return _read(self)

    async def reset(self) -> None:
        """See `Transaction.reset`."""
        await awaiting(self._resetting())

    async def commit(self) -> bool:
        """See `Transaction.commit`."""
        return await awaiting(self._committing())

    async def run_hook(self, hook: Hook, hook_type: str) -> None:
        """See `Transaction.run_hook`."""
        error = await awaiting(self._calling(hook, hook_type))
        if error is not None:
            raise error

    async def rollback(self) -> bool:
        """See `Transaction.rollback`."""
        return await awaiting(self._rolling_back())


def get_transaction() -> Any:
    """The innermost transaction around this code: a `with` block, or the attempt of a task run; None for none."""
    return enclosing(current_task.get(), active.get())


def enclosing(task: TaskRunContext | None, around: BaseTransaction | None) -> BaseTransaction | None:
    """The innermost transaction, given the innermost task run and the innermost `with` block."""
    if task is None or (around is not None and around.within is task):
        return around
    make: Callable[[], BaseTransaction] | None = getattr(task.execution, "attempt", None)
    return make() if make is not None else around


def open_around(task: TaskRunContext | None) -> BaseTransaction | None:
    """The transaction that what is called here, in this task run, becomes part of; None for none."""
    around = active.get()
    if around is None and task is None:
        return None
    around = enclosing(task, around)
    return None if around is None or around.is_over else around


def _read(transaction: BaseTransaction) -> Any:
    store, key, holder = transaction.store, transaction.key, transaction._lock_holder
    if store is None or key is None or not store.exists(key):
        return None
    return store.read(key) if holder is None else store.read(key, holder=holder)


def _default_logger() -> Any:
    from prefect_nb.execution import logs

    task = current_task.get()
    if task is not None:
        return logs.task_run_logger(task.task_run, task.task)
    return logger


def _name_of(hook: Hook) -> str:
    function = getattr(hook, "func", hook)
    return getattr(function, "__name__", None) or type(hook).__name__
