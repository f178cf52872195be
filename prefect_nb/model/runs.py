"""Snapshots of runs: plain, frozen values. A snapshot is the fold of its run's events (`model.events`).

Times are integers, microseconds since 1970-01-01 UTC (suffix `_us`): they are what the database holds and cost nothing
to compare; the properties give them as aware datetimes and timedeltas.
"""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec

from prefect_nb.model.states import TERMINAL_STATES, State, StateDetails, StateType

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_EXACT = 4_000_000_000_000_000


def to_datetime(us: int | None) -> datetime | None:
    """Microseconds since the epoch as an aware UTC datetime; None stays None."""
    if us is None:
        return None
    # Exact in the centuries around now, and cheaper than a sum.
    return datetime.fromtimestamp(us / 1e6, UTC) if 0 <= us < _EXACT else _EPOCH + timedelta(microseconds=us)


def to_us(time: datetime) -> int:
    """An aware datetime as microseconds since the epoch; a naive one is taken as UTC."""
    if time.tzinfo is None:
        time = time.replace(tzinfo=UTC)
    return (time - _EPOCH) // timedelta(microseconds=1)


class ResultReference(msgspec.Struct, frozen=True, omit_defaults=True):
    """Where a kept result is and how to know that it is whole."""

    sha256: str
    size: int
    serializer: str
    expires_us: int | None = None
    source: UUID | None = None
    """The task run that computed it, where that is not the run that refers to it (a cache hit)."""
    storage: str | None = None
    """The address of the storage that has it: a path, a URL, or a saved block's; None: the home's own."""
    key: str | None = None
    """The path below the storage's root that it was kept at; None: by its hash."""
    outputs: "ResultReference | None" = None
    """Where what its body printed and displayed is kept, if it did."""


class Snapshot(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What flow runs and task runs have in common."""

    id: UUID
    name: str
    tags: tuple[str, ...] = ()
    labels: dict[str, Any] = {}
    state_type: StateType = StateType.PENDING
    state_name: str = "Pending"
    state_message: str | None = None
    state_id: UUID | None = None
    state_us: int = 0
    state_details: StateDetails | None = None
    result: ResultReference | None = None
    result_note: str | None = None
    """Why a result that should have been kept was not."""
    run_count: int = 0
    created_us: int = 0
    expected_us: int = 0
    start_us: int | None = None
    end_us: int | None = None
    running_us: int = 0
    """Time spent in RUNNING by attempts that are over."""
    retries: int = 0
    retry_delays: tuple[float, ...] = ()
    events: int = 0
    """How many events this snapshot folds; the next event's number."""

    @property
    def is_final(self) -> bool:
        """Whether the run has ended."""
        return self.state_type in TERMINAL_STATES

    @property
    def is_suspended(self) -> bool:
        """Whether a flow run waits for somebody without a process."""
        details = self.state_details
        return self.state_type is StateType.PAUSED and details is not None and details.pause_reschedule

    @property
    def state(self) -> State[Any]:
        """The current state; its data is the result's reference, not its value."""
        return State(
            type=self.state_type,
            name=self.state_name,
            message=self.state_message,
            data=self.result,
            state_details=self._details(),
            timestamp=to_datetime(self.state_us),
            id=self.state_id,
        )

    def _details(self) -> StateDetails:
        """A copy of the state's details; only what they say beyond the run's own ids is stored."""
        return msgspec.structs.replace(self.state_details) if self.state_details else StateDetails()

    @property
    def created(self) -> datetime:
        """When the run was created (UTC)."""
        return _EPOCH + timedelta(microseconds=self.created_us)

    @property
    def expected_start_time(self) -> datetime | None:
        """When the run was meant to start (UTC)."""
        return to_datetime(self.expected_us)

    @property
    def start_time(self) -> datetime | None:
        """When the run first became RUNNING (UTC)."""
        return to_datetime(self.start_us)

    @property
    def end_time(self) -> datetime | None:
        """When the run ended (UTC)."""
        return to_datetime(self.end_us)

    @property
    def total_run_time(self) -> timedelta:
        """Time spent in RUNNING over all finished attempts."""
        return timedelta(microseconds=self.running_us)


class TaskRun(Snapshot, frozen=True, kw_only=True, omit_defaults=True):
    """One run of a task, or of a notebook's cell (`kind`)."""

    kind: str = "task"
    flow_run_id: UUID | None = None
    parent_id: UUID | None = None
    """The task run (or cell) this one was called in."""
    task_key: str = ""
    dynamic_key: str = ""
    task_version: str | None = None
    task_inputs: dict[str, list[dict[str, str]]] = {}
    cache_key: str | None = None
    cache_expiration_us: int | None = None
    cell_index: int | None = None
    owner_id: UUID | None = None
    """Who executes it, where that is not the owner of its flow run."""
    deferred: ResultReference | None = None
    """The arguments of a task run that waits for a task worker, or did."""

    def _details(self) -> StateDetails:
        details = Snapshot._details(self)
        details.task_run_id, details.flow_run_id = self.id, self.flow_run_id
        return details


class FlowRun(Snapshot, frozen=True, kw_only=True, omit_defaults=True):
    """One run of a flow: a function, a flow cell or a whole notebook (`kind`)."""

    kind: str = "function"
    flow_id: UUID | None = None
    flow_name: str = ""
    flow_version: str | None = None
    parameters: dict[str, Any] = {}
    """The arguments as JSON, secrets masked."""
    unrecorded: tuple[str, ...] = ()
    """Parameters of which only a note is recorded: they cannot be written down, or are too large."""
    sealed_parameters: str | None = None
    """The arguments that hold secrets, encrypted."""
    parent_task_run_id: UUID | None = None
    parent_flow_run_id: UUID | None = None
    root_flow_run_id: UUID | None = None
    deployment_id: UUID | None = None
    entrypoint: str | None = None
    code_hash: str | None = None
    durable: bool = False
    input_path: str | None = None
    output_path: str | None = None
    owner_id: UUID | None = None
    epoch: int = 1
    recoveries: int = 0
    """How often it was taken over to be resumed."""
    execution_count: int | None = None
    """Of a flow cell: the number in the brackets beside it."""
    cell_source: str | None = None
    """Of a flow cell: its text as it was executed; the notebook may have changed since."""

    def _details(self) -> StateDetails:
        details = Snapshot._details(self)
        details.flow_run_id = self.id
        return details


Run = TaskRun | FlowRun
