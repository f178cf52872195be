"""Which moves a run may make: one ordered list of small pure rules, each saying by its sets what it looks at.

The first rule that has an opinion decides; without one the move is accepted. `diagram()` draws the table for the
documentation, so that the picture cannot be out of date.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import msgspec

from prefect_nb.exceptions import InvalidMove
from prefect_nb.model.runs import Run
from prefect_nb.model.states import MOVES, TERMINAL_STATES, State, StateType

_ANY = frozenset(StateType)


class Refuse(msgspec.Struct, frozen=True):
    """The run stays where it is."""

    reason: str


class Allow(msgspec.Struct, frozen=True):
    """The run moves, whatever the rules below think."""


class Rule(msgspec.Struct, frozen=True):
    """One opinion on moves from some types to others."""

    name: str
    from_types: frozenset[StateType]
    to_types: frozenset[StateType]
    judge: Callable[[Run, State[Any]], Allow | Refuse | None]


def _taken_back(run: Run, proposed: State[Any]) -> Allow | None:
    return Allow() if proposed.name == "RolledBack" and run.state_name != "RolledBack" else None


def _finished(run: Run, proposed: State[Any]) -> Refuse | None:
    return Refuse(f"it has ended as {run.state_name}, and an ended run does not move by itself")


def _cancelling(run: Run, proposed: State[Any]) -> Refuse | None:
    return Refuse("it is being cancelled")


def _table(run: Run, proposed: State[Any]) -> Refuse | None:
    if proposed.type in MOVES[run.state_type]:
        return None
    return Refuse(f"{run.state_type} does not lead to {proposed.type}")


_COMPLETED = frozenset({StateType.COMPLETED})

RULES: tuple[Rule, ...] = (
    Rule("a rollback takes back what completed", _COMPLETED, _COMPLETED, _taken_back),
    Rule("a terminal state is final", TERMINAL_STATES, _ANY, _finished),
    Rule(
        "a cancel is carried out",
        frozenset({StateType.CANCELLING}),
        _ANY - {StateType.CANCELLED, StateType.CRASHED},
        _cancelling,
    ),
    Rule("the table of moves", _ANY, _ANY, _table),
)


@cache
def rules_for(from_type: StateType, to_type: StateType) -> tuple[Rule, ...]:
    """The rules that look at moves between these types, in order; none where the table already allows the move."""
    rules = tuple(rule for rule in RULES if from_type in rule.from_types and to_type in rule.to_types)
    if len(rules) == 1 and to_type in MOVES[from_type]:
        return ()
    return rules


def check_move(run: Run, proposed: State[Any]) -> None:
    """Let the move pass, or say why not.

    Raises:
        InvalidMove: naming the run, where it is, where it wanted to go and the reason.
    """
    for rule in rules_for(run.state_type, proposed.type):
        opinion = rule.judge(run, proposed)
        if isinstance(opinion, Allow):
            return
        if opinion is not None:
            raise InvalidMove(
                f"Run {run.name!r} ({run.id}) cannot move from {run.state_name} to {proposed.name}: {opinion.reason}."
            )


def diagram() -> str:
    """The table of moves as a Mermaid state diagram."""
    lines = ["stateDiagram-v2"]
    for source, targets in MOVES.items():
        if source is None:
            continue
        lines += [f"    {source} --> {target}" for target in StateType if target in targets]
        if source in TERMINAL_STATES:
            lines.append(f"    {source} --> [*]")
    return "\n".join(lines)
