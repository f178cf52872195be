"""What the value that a body returned says of its run: plain data, or states that decide how it ended."""

from collections.abc import Sequence
from typing import Any

from prefect_nb.exceptions import Abort
from prefect_nb.model.states import Cancelled, Completed, Failed, Paused, State, StateType


def states_of(value: Any) -> list[State[Any]] | None:
    """The states a value consists of, where it is one, or a list, tuple or set made solely of them; None for data."""
    if isinstance(value, State):
        return [value]
    if isinstance(value, list | tuple | set) and value and all(isinstance(item, State) for item in value):
        return list(value)
    return None


def judge_return(value: Any) -> State[Any]:
    """The final state that a flow body's return value means, with futures already replaced by their states.

    A state made by hand is the final state itself; states that runs have been in are counted.

    Raises:
        Abort: it is a Pending made by hand.
    """
    if isinstance(value, State) and value.id is None:
        if value.is_final() or value.is_paused():
            return value
        if value.type is StateType.PENDING and value.name == "Pending":
            raise Abort("This run is in a RUNNING state and cannot transition to a PENDING state.")
    states = states_of(value)
    return Completed(data=value) if states is None else judge_states(states, value)


def judge_states(states: Sequence[State[Any]], data: Any) -> State[Any]:
    """One state for several: Completed if all are, else cancelled before paused before failed."""
    if all(state.is_completed() for state in states):
        return Completed(message="All states completed.", data=data)
    total = len(states)

    def count(type_: StateType) -> int:
        return sum(state.type is type_ for state in states)

    if cancelled := count(StateType.CANCELLED):
        return Cancelled(message=f"{cancelled}/{total} states cancelled.", data=data)
    if paused := count(StateType.PAUSED):
        return Paused(message=f"{paused}/{total} states paused.", data=data)
    failed = count(StateType.FAILED) + count(StateType.CRASHED)
    unfinished = sum(not state.is_final() for state in states)
    words = f"{failed}/{total} states failed." if failed else f"{unfinished}/{total} states are not final."
    return Failed(message=words, data=data)
