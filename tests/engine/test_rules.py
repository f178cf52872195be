"""Who may move where: every pair of types, against the table and its picture in the documentation."""

import itertools
import re
from pathlib import Path
from uuid import uuid4

import pytest

from prefect_nb.engine.rules import RULES, check_move, diagram, rules_for
from prefect_nb.exceptions import InvalidMove
from prefect_nb.model.runs import FlowRun, TaskRun
from prefect_nb.model.states import MOVES, TERMINAL_STATES, State, StateType

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(("source", "target"), list(itertools.product(StateType, StateType)))
@pytest.mark.parametrize("kind", [TaskRun, FlowRun])
def test_a_run_moves_where_the_table_says_and_nowhere_else(
    kind: type[TaskRun | FlowRun], source: StateType, target: StateType
) -> None:
    run = kind(id=uuid4(), name="a run", state_type=source, state_name=source.value.capitalize())
    if target in MOVES[source]:
        check_move(run, State(type=target))
    else:
        with pytest.raises(InvalidMove, match=f"{run.id}.*cannot move from"):
            check_move(run, State(type=target))


@pytest.mark.parametrize("source", sorted(TERMINAL_STATES))
def test_a_terminal_state_is_final(source: StateType) -> None:
    assert MOVES[source] == frozenset()
    run = TaskRun(id=uuid4(), name="a run", state_type=source, state_name="Done")
    for target in StateType:
        with pytest.raises(InvalidMove, match="it has ended as Done"):
            check_move(run, State(type=target))


def test_a_run_that_is_being_cancelled_says_so() -> None:
    run = TaskRun(id=uuid4(), name="a run", state_type=StateType.CANCELLING, state_name="Cancelling")
    with pytest.raises(InvalidMove, match="it is being cancelled"):
        check_move(run, State(type=StateType.RUNNING))


def test_every_type_has_its_row_and_can_be_reached_and_left_unless_it_is_terminal() -> None:
    assert set(MOVES) == {None, *StateType}
    for type_ in StateType:
        assert any(type_ in MOVES[source] for source in StateType), type_
        assert bool(MOVES[type_]) is (type_ not in TERMINAL_STATES)


def test_from_every_type_a_terminal_state_can_be_reached() -> None:
    for type_ in set(StateType) - TERMINAL_STATES:
        assert MOVES[type_] & TERMINAL_STATES


def test_rules_are_looked_up_in_their_order() -> None:
    for source, target in itertools.product(StateType, StateType):
        found = rules_for(source, target)
        assert [rule for rule in RULES if rule in found] == list(found)


def test_the_diagram_names_every_type_and_every_move() -> None:
    drawn = diagram()
    for source in StateType:
        assert re.search(rf"\b{source}\b", drawn)
        for target in StateType:
            assert (f"    {source} --> {target}\n" in drawn + "\n") is (target in MOVES[source])
    assert {line.split()[0] for line in drawn.splitlines() if line.endswith("[*]")} == set(TERMINAL_STATES)


def test_the_diagram_in_the_documentation_is_this_one() -> None:
    page = (ROOT / "ARCHITECTURE.md").read_text()
    between = page.partition("<!-- moves:start -->")[2].partition("<!-- moves:end -->")[0]
    assert between.strip() == f"```mermaid\n{diagram()}\n```"
