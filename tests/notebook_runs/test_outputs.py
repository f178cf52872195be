"""A kernel's messages as outputs of a cell."""

from typing import Any

import pytest

from prefect_nb.bodies import outputs
from prefect_nb.bodies.outputs import CellOutputs, Displays, overwritten


@pytest.fixture
def cell() -> dict[str, Any]:
    return {"cell_type": "code", "outputs": []}


def stream(text: str, name: str = "stdout") -> dict[str, Any]:
    return {"msg_type": "stream", "content": {"name": name, "text": text}}


def texts(cell: dict[str, Any]) -> list[tuple[str, str]]:
    return [(output["name"], "".join(output["text"])) for output in cell["outputs"]]


@pytest.mark.parametrize(
    ("text", "shown"),
    [("a\rb", "b"), ("a\r\nb", "a\r\nb"), ("abc\x08\x08d", "ad"), ("x\n 1%\r 2%\r 3%\n", "x\n 3%\n"), ("a\r", "a\r")],
)
def test_overwritten_text(text: str, shown: str):
    assert overwritten(text) == shown


def test_pieces_of_a_progress_bar_become_its_last_line(cell: dict[str, Any]):
    taken = CellOutputs(cell, Displays())
    for piece in ("start\n", "\r 1%", "\r 50%", "\r 100%", "\ndone\n"):
        taken.take(stream(piece))

    assert texts(cell) == [("stdout", "start\n 100%\ndone\n")]


def test_streams_are_joined_while_they_follow_each_other(cell: dict[str, Any]):
    taken = CellOutputs(cell, Displays())
    for piece, name in (("a", "stdout"), ("b\n", "stdout"), ("!", "stderr"), ("c", "stdout")):
        taken.take(stream(piece, name))

    assert texts(cell) == [("stdout", "ab\n"), ("stderr", "!"), ("stdout", "c")]


def test_more_than_the_cap_is_counted(cell: dict[str, Any], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(outputs, "MAX_TEXT", 150)
    taken = CellOutputs(cell, Displays())
    for _ in range(40):
        taken.take(stream("0123456789\n"))
    taken.close()
    taken.close()

    assert sum(len(text) for name, text in texts(cell) if name == "stdout") <= 150
    assert [text for name, text in texts(cell) if name == "stderr"] == [
        "[390 more characters of output were left out]\n"
    ]


def test_clearing_waits_for_the_next_output_if_asked_to(cell: dict[str, Any]):
    taken = CellOutputs(cell, Displays())
    taken.take(stream("old"))
    taken.take({"msg_type": "clear_output", "content": {"wait": True}})
    assert texts(cell) == [("stdout", "old")]

    taken.take(stream("new"))
    assert texts(cell) == [("stdout", "new")]

    taken.take({"msg_type": "clear_output", "content": {"wait": False}})
    assert cell["outputs"] == []
