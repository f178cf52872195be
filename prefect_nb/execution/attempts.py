"""The transaction that every attempt of a task run is, and how a run's end is its end."""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from prefect_nb.engine.commands import Outcome, Returned
from prefect_nb.execution import keeping, key_waits, keys, logs
from prefect_nb.execution.steps import Steps, blocking
from prefect_nb.execution.transaction_modes import CommitMode, IsolationLevel, TransactionState
from prefect_nb.execution.transactions import Transaction, active
from prefect_nb.model.states import State, StateType

if TYPE_CHECKING:
    from prefect_nb.execution.shapes import RecordingTask


class ImplicitTransaction(Transaction):
    """One that nobody wrote. What completes in it is kept at once, unless it is itself part of an explicit one."""

    implicit = True

    @property
    def defers(self) -> bool:
        """Whether the transaction around it does."""
        return self._parent is not None and self._parent.defers


class AttemptTransaction(ImplicitTransaction):
    """An attempt of a task run in this process.

    Args:
        execution: the run.
    """

    def __init__(self, execution: RecordingTask) -> None:
        around = execution.enclosing
        level = execution.task.cache_policy.isolation_level
        super().__init__(
            key=execution.cache_key or execution.id.hex,
            commit_mode=CommitMode.LAZY if around is None else around.commit_mode,
            isolation_level=IsolationLevel(level) if level is not None else IsolationLevel.READ_COMMITTED,
            state=TransactionState.ACTIVE,
            write_on_commit=execution.persist,
        )
        self._parent = around
        self._execution = execution
        self.has_ended = False

    @property
    def logger(self) -> Any:
        """The run's."""
        if self._logger is None:
            self._logger = logs.task_run_logger(self._execution.run, self._execution.task)
        return self._logger

    def let_go(self) -> None:
        """Remember no more of the run than rolling it back takes: the transaction around it may last long."""
        self._execution = _Memo(self._execution)  # type: ignore[assignment]
        if not self.on_commit_hooks and not self.on_rollback_hooks:
            self._staged_value = None

    def _write(self) -> None:
        if self.defers and self.write_on_commit:
            keeping.keep_late(self._execution)

    def _unwrite(self) -> None:
        """`_take_back` does."""

    def _unlock(self) -> None:
        if self.has_ended:
            key_waits.release(self._execution, kept=self.state is TransactionState.COMMITTED)

    def _take_back(self) -> None:
        if self.has_ended:
            keeping.take_back(self._execution)


class _Memo:
    """What rolling a completed run back takes. For one without hooks it stands for the run's transaction as well."""

    __slots__ = (
        "_adopted_by", "cache_key", "flow", "home", "id", "key_held", "key_parts", "ledger", "lock", "run", "scope",
        "state", "task",
    )  # fmt: skip

    def __init__(self, execution: RecordingTask) -> None:
        self.id, self.run, self.task, self.lock = execution.id, execution.run, execution.task, execution.lock
        self.home, self.ledger, self.scope = execution.home, execution.ledger, execution.scope
        self.cache_key, self.flow = execution.cache_key, execution.flow
        self.key_held = self.key_parts = self._adopted_by = None
        self.state = TransactionState.STAGED

    def _committing(self) -> Steps[bool]:
        self.state = TransactionState.COMMITTED
        yield from ()
        return True

    def _rolling_back(self) -> Steps[bool]:
        if self.state is TransactionState.STAGED:
            self.state = TransactionState.ROLLED_BACK
            keeping.take_back(self)  # type: ignore[arg-type]
        yield from ()
        return True


def settled(execution: RecordingTask, state: State[Any]) -> bool:
    """Whether nothing has to be called, awaited or kept as the run has ended in this state. Nearly always so."""
    around, own = execution.enclosing, execution.transaction
    if state.type is not StateType.COMPLETED:
        return own is None and (around is None or around.implicit)
    if own is not None or execution.task.on_commit_hooks or execution.task.on_rollback_hooks:
        return False
    if around is None:
        return True
    if not around.implicit or around.defers:
        return False
    memo: Any = _Memo(execution)
    if state.name != "Cached" and around.adopt(memo) is TransactionState.ROLLED_BACK:
        keeping.take_back(memo)
    return True


def ended(execution: RecordingTask, state: State[Any]) -> Steps[None]:
    """The run has ended in this state: so does its transaction, or its fate is left to the one around it."""
    around = execution.enclosing
    if not state.is_completed():
        if execution.transaction is not None:
            yield from execution.transaction._rolling_back()
        if around is not None and not around.implicit:
            yield from around._rolling_back()
        return
    if state.name == "Cached" or not execution.has_returned:  # also where its body was skipped
        return
    task = execution.task
    transaction = execution.transaction or AttemptTransaction(execution)
    if transaction.has_ended:
        return
    execution.transaction = transaction
    transaction.has_ended = True
    transaction.stage(execution.returned, task.on_rollback_hooks, task.on_commit_hooks)
    if around is not None and not around.defers:
        transaction.let_go()
    fate: TransactionState | None = TransactionState.COMMITTED
    if around is not None and around.commit_mode is not CommitMode.EAGER:
        fate = around.adopt(transaction)
    if fate is TransactionState.COMMITTED:
        yield from transaction._committing()
    elif fate is TransactionState.ROLLED_BACK:
        yield from transaction._rolling_back()


class Around:
    """What a body that is called in another process has to know of the runs around it.

    What is called in the body there is part of a transaction there, which ends with the body.
    """

    def __init__(self, execution: RecordingTask) -> None:
        self._key = execution.cache_key or execution.id.hex
        self._held = execution.held_around | {execution.key_held} if execution.key_held else execution.held_around
        self._values: dict[str, Any] = {}
        around = execution.enclosing
        while around is not None:
            self._values = {**around.values, **self._values}
            around = around.get_parent()
        self._transaction: ImplicitTransaction | None = None

    def variables(self) -> list[tuple[ContextVar[Any], Any]]:
        """The context variables to set while the body is called."""
        self._transaction = ImplicitTransaction(
            key=self._key, commit_mode=CommitMode.LAZY, state=TransactionState.ACTIVE, values=self._values
        )
        return [(keys.held, self._held), (active, self._transaction)]

    def end(self, outcome: Outcome) -> None:
        """The body is over."""
        transaction, self._transaction = self._transaction, None
        if transaction is not None:
            blocking(transaction._committing() if isinstance(outcome, Returned) else transaction._rolling_back())
