"""A shell without a world: it answers an engine's commands from a script, and checks what it may ask."""

from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st

from prefect_nb.engine import commands as c
from prefect_nb.engine.task_run import Steps
from prefect_nb.exceptions import RunCancelled
from prefect_nb.model.states import (
    MOVES,
    TERMINAL_STATES,
    Cancelled,
    Completed,
    Crashed,
    Failed,
    Pending,
    Running,
    State,
    StateType,
)

Draw = Callable[..., Any]

ANY_STATE = st.sampled_from([Completed, Failed, Cancelled, Crashed, Running, Pending])
OUTCOMES = st.one_of(
    st.builds(c.Returned, st.integers()),
    st.builds(c.Returned, ANY_STATE.map(lambda make: make(message="made by hand"))),
    st.builds(c.Raised, st.builds(ValueError, st.text())),
    st.builds(c.TimedOut, st.builds(TimeoutError, st.text())),
    st.builds(c.Interrupted, st.sampled_from([KeyboardInterrupt(), SystemExit(1)]), st.text()),
    st.builds(c.Stopped, st.none(), st.text()),
)
SIGNALS = st.sampled_from([KeyboardInterrupt(), RunCancelled("stop"), SystemExit(1)])
ERRORS = st.sampled_from([ValueError("a fault of the shell"), OSError("a disk")])


class Told:
    """What an engine asked, in order."""

    def __init__(self) -> None:
        self.states: list[State[Any]] = []
        self.calls: list[int] = []
        self.fired: list[tuple[str, StateType]] = []
        self.slept: list[float] = []
        self.final: State[Any] | None = None


def drive(steps: Steps, draw: Draw, outcomes: Any = OUTCOMES, faults: bool = True) -> Told:
    """Drive an engine to its end with drawn answers.

    Args:
        steps: the engine.
        draw: hypothesis' `data.draw`.
        outcomes: what a body may do.
        faults: whether an exception may come instead of any answer but that to the record of a final state.
    """
    told = Told()
    answer: Any = None
    error: BaseException | None = None
    while True:
        try:
            command = steps.send(answer) if error is None else steps.throw(error)
        except StopIteration as stop:
            told.final = stop.value
            return told
        error = _fault(command, draw) if faults else None
        if error is None:
            answer = _answer(command, told, draw, outcomes)


def _fault(command: c.Command, draw: Draw) -> BaseException | None:
    if isinstance(command, c.Translate) or draw(st.integers(0, 11)) < 11:
        return None
    if isinstance(command, c.Record) and command.state.is_final():
        return draw(SIGNALS)  # a store that refuses the last state ends the engine, not the run
    if isinstance(command, c.Fire) and command.kind != "running":
        return None
    return draw(st.one_of(SIGNALS, ERRORS))


def _answer(command: c.Command, told: Told, draw: Draw, outcomes: Any) -> Any:
    before = told.states[-1] if told.states else None
    assert before is None or not before.is_final() or isinstance(command, c.Fire), "nothing follows the final state"
    match command:
        case c.Record(state):
            assert state.type in MOVES[before.type if before else None]
            told.states.append(state)
            return state
        case c.AwaitUpstream():
            return draw(st.sampled_from([c.Ready(), c.NotReady("an upstream run failed")]))
        case c.Admit(wait):
            ends = st.sampled_from([c.Raised(ValueError("no such slots")), c.Stopped(None, "stopped in line")])
            return draw(st.one_of(st.none(), ends) if wait else st.one_of(st.none(), st.just(c.Full()), ends))
        case c.LookUp():
            return draw(st.sampled_from([None, Completed(name="Cached")]))
        case c.Fire(kind, state):
            assert before is not None
            assert state is before or (kind == "running" and before.type is StateType.PENDING)
            told.fired.append((kind, state.type))
            return None
        case c.CallBody(attempt):
            assert before is not None
            assert before.type is StateType.RUNNING
            told.calls.append(attempt)
            return draw(outcomes)
        case c.AskRetry(state):
            assert state.type is StateType.FAILED
            return draw(st.booleans())
        case c.Delay():
            return draw(st.sampled_from([0.0, 0.5]))
        case c.Sleep(seconds):
            assert before is not None
            assert before.name == "AwaitingRetry"
            told.slept.append(seconds)
            return draw(st.sampled_from([None, c.Stopped(None, "stopped while it waited")]))
        case c.Keep():
            return draw(st.sampled_from([None, object(), Failed(message="no room")]))
        case c.Conclude(value):
            return value if isinstance(value, State) and value.is_final() else Completed(data=value)
        case c.Translate(error):
            return error
    raise AssertionError(command)


def has_ended_well(told: Told) -> bool:
    """Whether the last state is a final one, or the one other place a run may rest in."""
    last = told.states[-1]
    return last.type in TERMINAL_STATES or (last.type, last.name) == (StateType.PENDING, "NotReady")
