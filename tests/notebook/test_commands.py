"""Commands from the page while the cell is busy, by the kernel's own protocol, as JupyterLab sends them."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest
from kernels import TIMEOUT, Kernel

from prefect_nb.home import Home
from prefect_nb.notebook import commands

PROMPT = 2.0
"""Seconds within which a button must be answered while the cell is busy."""

TASKS = """
import asyncio, os, pathlib, time
from prefect_nb import flow, task
from prefect_nb.context import TaskRunContext

def say_which():
    # Not by a print: it may be shown under the task's row, or filed under a message of another subshell.
    run = TaskRunContext.get().task_run
    new = pathlib.Path(WHERE).with_suffix(".new")
    new.write_text(f"{run.id.hex} {run.flow_run_id.hex}")
    os.replace(new, WHERE)

@task
def stuck():
    say_which()
    time.sleep(60)
    return "never"

@task
def stuck_often():
    say_which()
    for _ in range(600):
        time.sleep(0.1)

@task
async def stuck_async():
    say_which()
    await asyncio.sleep(60)
    return "never"

@task
def quick(value):
    return value
"""

CELLS = {
    "blocked": "%%flow busy -o run\nvalue = stuck()",
    "awaiting": "%%flow busy -o run\nvalue = await stuck_async()",
    "submitted": "%%flow busy -o run\nvalue = stuck_often.submit().result()",
}


class FrontEnd:
    """Another client of a kernel, which speaks to it as a page does."""

    def __init__(self, kernel: Kernel) -> None:
        self._client = kernel._manager.blocking_client()
        self._client.start_channels()
        self._client.wait_for_ready(timeout=TIMEOUT)
        self._seen: list[dict[str, Any]] = []
        self._seq = 0

    def subshell(self) -> str:
        """As JupyterLab makes one for each comm target."""
        message = self._client.session.msg("create_subshell_request", {})
        self._client.control_channel.send(message)
        while True:
            reply = self._client.get_control_msg(timeout=TIMEOUT)
            if reply["parent_header"]["msg_id"] == message["header"]["msg_id"]:
                return reply["content"]["subshell_id"]

    def send(self, kind: str, content: dict[str, Any], subshell: str | None) -> None:
        message = self._client.session.msg(kind, content)
        message["header"]["subshell_id"] = subshell
        self._client.shell_channel.send(message)

    def open(self, subshell: str | None) -> Callable[..., dict[str, Any]]:
        """Open a comm of our own; what is returned asks something by it."""
        id = uuid4().hex
        self.send("comm_open", {"comm_id": id, "target_name": commands.TARGET, "data": {}}, subshell)
        return lambda command, run: self._ask(id, subshell, command, run, lambda asked: asked, lambda data: data)

    def panel(self, subshell: str | None) -> Callable[..., dict[str, Any]]:
        """The panel under the cell, once it is there; what is returned asks something by it."""
        opened = self._until(
            lambda one: one["msg_type"] == "comm_open" and "_esm" in one["content"]["data"].get("state", {})
        )
        id = opened["content"]["comm_id"]

        def packed(asked: dict[str, Any]) -> dict[str, Any]:
            return {"method": "custom", "content": asked}

        return lambda command, run: self._ask(
            id,
            subshell,
            command,
            run,
            packed,
            lambda data: data.get("content", {}) if data["method"] == "custom" else {},
        )

    def _ask(self, id: str, subshell: str | None, command: str, run: str, packed: Any, unpacked: Any) -> dict[str, Any]:
        self._seq += 1
        seq, began = self._seq, time.monotonic()
        self.send("comm_msg", {"comm_id": id, "data": packed({"command": command, "run": run, "seq": seq})}, subshell)
        message = self._until(
            lambda one: (
                one["msg_type"] == "comm_msg"
                and one["content"]["comm_id"] == id
                and unpacked(one["content"]["data"]).get("seq") == seq
            )
        )
        answer = unpacked(message["content"]["data"])
        assert answer["answer"] is True
        assert time.monotonic() - began < PROMPT, answer
        return answer

    def _until(self, fits: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        deadline = time.monotonic() + TIMEOUT
        for message in self._seen:
            if fits(message):
                return message
        while True:
            message = self._client.get_iopub_msg(timeout=max(0.1, deadline - time.monotonic()))
            self._seen.append(message)
            if fits(message):
                return message

    def close(self) -> None:
        self._client.stop_channels()


@pytest.fixture
def where(tmp_path: Path) -> Path:
    """Where a task says which run it is."""
    return tmp_path / "which"


@pytest.fixture
def notebook(kernel: Kernel, where: Path) -> Kernel:
    kernel.run(f"{TASKS}\nWHERE = {str(where)!r}")
    return kernel


@pytest.fixture
def page(notebook: Kernel) -> Iterator[FrontEnd]:
    page = FrontEnd(notebook)
    yield page
    page.close()


def started(notebook: Kernel, cell: str, where: Path) -> tuple[str, str, str]:
    """A cell that is busy by now: the request, the task run, the flow run."""
    request = notebook.start(cell, watched=True)
    task_run, flow_run = said(where)
    return request, task_run, flow_run


def said(where: Path) -> list[str]:
    """Which task run and flow run the task is that has begun."""
    deadline = time.monotonic() + TIMEOUT
    while not where.exists():
        assert time.monotonic() < deadline, "no task has begun"
        time.sleep(0.01)
    words = where.read_text().split()
    where.unlink()
    return words


@pytest.mark.parametrize("way", ["own comm", "panel"])
@pytest.mark.parametrize("cell", list(CELLS))
def test_a_button_works_while_the_cell_is_busy(
    cell: str, way: str, notebook: Kernel, page: FrontEnd, where: Path
) -> None:
    subshell = page.subshell()
    request, task_run, _ = started(notebook, CELLS[cell], where)
    ask = page.open(subshell) if way == "own comm" else page.panel(subshell)

    answer = ask("skip", task_run)

    assert answer["ok"], answer
    assert "is being skipped" in answer["message"]
    ended = notebook.end_of(request)
    assert ended.status == "ok"
    assert notebook.run("value, run.state.name").value == "(None, 'Completed')"
    if way == "panel":
        return  # it is gone with the end of the run
    late = ask("cancel", task_run)
    assert not late["ok"]
    assert "has ended already: it is Skipped" in late["message"]


@pytest.mark.parametrize("cell", list(CELLS))
def test_the_whole_run_is_cancelled_while_the_cell_is_busy(
    cell: str, notebook: Kernel, page: FrontEnd, where: Path
) -> None:
    ask = page.open(page.subshell())
    request, _, flow_run = started(notebook, CELLS[cell], where)

    assert ask("cancel", flow_run)["ok"]

    ended = notebook.end_of(request)
    assert ended.status == "error"
    assert "Cancelled from the notebook." in ended.traceback
    assert notebook.run("run.state.name").value == "'Cancelled'"


def test_a_cell_is_paused_before_its_next_task_and_resumed(notebook: Kernel, page: FrontEnd, where: Path) -> None:
    ask = page.open(page.subshell())
    cell = "%%flow busy -o run\nfirst = stuck()\nsecond = quick(2)"
    request, task_run, flow_run = started(notebook, cell, where)

    assert "pauses before its next task run" in ask("pause", flow_run)["message"]
    assert ask("skip", task_run)["ok"]
    deadline = time.monotonic() + TIMEOUT
    while "Paused already" not in (said := ask("pause", flow_run))["message"]:
        assert time.monotonic() < deadline, said
    assert "goes on" in ask("resume", flow_run)["message"]

    assert notebook.end_of(request).status == "ok"
    assert notebook.run("first, second, run.state.name").value == "(None, 2, 'Completed')"


def test_a_stuck_attempt_is_begun_anew_by_its_button(notebook: Kernel, page: FrontEnd, where: Path) -> None:
    ask = page.open(page.subshell())
    request, task_run, _ = started(notebook, CELLS["blocked"], where)

    assert "is stopped and begun anew" in ask("retry", task_run)["message"]
    assert said(where)[0] == task_run
    assert ask("cancel", task_run)["ok"]

    ended = notebook.end_of(request)
    assert (ended.status, ended.ename) == ("error", "CancelledRun")


@pytest.mark.parametrize(
    ("command", "run", "words"),
    [
        ("skip", "nonsense", "'nonsense' is not the id of a run"),
        ("skip", None, "is not the id of a run"),
        ("burn", "0" * 32, "There is no command 'burn'"),
        ("cancel", "0" * 32, "There is no task run"),
    ],
)
def test_nonsense_is_answered_in_words(command: str, run: Any, words: str) -> None:
    Home.current()  # once, so that opening it does not count
    answer = commands.handle({"command": command, "run": run, "seq": 7})
    assert (answer["answer"], answer["seq"], answer["ok"]) == (True, 7, False)
    assert words in answer["message"]


# The detour of ipykernel 7.4


def test_messages_of_the_panel_are_not_sent_on_to_the_busy_shell(notebook: Kernel) -> None:
    notebook.run("from prefect_nb.notebook.screens import make_panel\npanel = make_panel(b'{}')\npanel.data = b'[]'")
    assert notebook.run(
        "getattr(panel.comm, '_reply_subshell_for', lambda data, default: default)({}, 'mine')"
    ).value == ("'mine'")


def test_a_comm_that_makes_no_detour_is_left_alone() -> None:
    plain = SimpleNamespace()
    commands.honour_subshell(plain)
    commands.honour_subshell(None)
    assert vars(plain) == {}


def test_a_shell_without_a_kernel_takes_no_commands() -> None:
    commands.listen(SimpleNamespace(kernel=None))
    commands.listen(SimpleNamespace())
