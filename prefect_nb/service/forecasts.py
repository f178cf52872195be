"""What a task run would do, told without running it: take a kept result, or compute it, and why."""

from __future__ import annotations

from typing import Any

import msgspec

from prefect_nb.exceptions import PrefectException
from prefect_nb.execution import caching, keeping
from prefect_nb.execution.clock import now_us
from prefect_nb.execution.kept import KeptResult
from prefect_nb.execution.lineage import first_snapshot
from prefect_nb.execution.scope import Scope
from prefect_nb.execution.task_runs import TaskExecution
from prefect_nb.home import Home
from prefect_nb.interfaces import KeyParts
from prefect_nb.model.states import Pending
from prefect_nb.model.words import one_line
from prefect_nb.service.text import ago
from prefect_nb.service.why import called, compared
from prefect_nb.tasks import Task

CACHED, RUNS, DEPENDS = "cached", "runs", "depends"
MARKS = {CACHED: "✓", RUNS: "▶", DEPENDS: "?"}


class Forecast(msgspec.Struct, frozen=True):
    """What one task run would do."""

    name: str
    """The task's."""
    kind: str
    """"cached", "runs", or "depends" where that shows only when others have run."""
    reason: str
    """In words, on one line."""
    value: Any = None
    """Of a cached one: its result."""

    def __str__(self) -> str:
        return f"{MARKS[self.kind]} {one_line(self.name)}: {self.kind}, {self.reason}"


class Plan(list[Forecast]):
    """What several task runs would do, in order."""

    rest: str = ""
    """Why there is no telling what comes after them; empty where these are all."""

    def __str__(self) -> str:
        if not self:
            return f"No task would run{f'; what follows {self.rest}' if self.rest else ''}."
        wide = max(len(one_line(one.name)) for one in self)
        lines = [
            f"{MARKS[one.kind]} {one_line(one.name).ljust(wide)}  {one.kind.ljust(7)}  {one.reason}" for one in self
        ]
        counts = ", ".join(f"{sum(one.kind == kind for one in self)} {words}" for kind, words in _COUNTED.items())
        rest = [f"… what follows {self.rest}"] if self.rest else []
        return "\n".join([*lines, *rest, f"({counts})"])

    __repr__ = __str__


_COUNTED = {RUNS: "to run", CACHED: "cached", DEPENDS: "depending on those"}


def foresee(task: Task[..., Any], parameters: dict[str, Any], scope: Scope | None = None) -> Forecast:
    """What a call of a task would do; nothing is run or recorded.

    Args:
        task: the task.
        parameters: its arguments by name; values, no futures.
        scope: the flow run that the call would be part of.
    """
    home = Home.current()
    home.ledger.commit()
    persist = task._persisted(scope, home)
    execution = TaskExecution(home, task, task.signature.bind_names(parameters), scope=None, persist=persist)
    execution.scope = scope
    execution.run = first_snapshot(execution, Pending())
    if not execution.plan.cached:
        words = "its cache policy is NONE" if persist else "its results are not kept"
        return Forecast(task.name, RUNS, f"not cached: {words}")
    try:
        found = caching.key_of(execution, warns=False)
    except PrefectException as error:
        return Forecast(task.name, RUNS, f"it would fail: {one_line(str(error), 200)}")
    if isinstance(found, str):
        return Forecast(task.name, RUNS, f"not cached: {one_line(found, 200)}")
    key, parts = found
    if task.refresh_cache or (task.refresh_cache is None and home.settings.tasks_refresh_cache):
        return Forecast(task.name, RUNS, "refresh_cache is set")
    kept = _kept(execution, key)
    if isinstance(kept, Forecast):
        return kept
    if kept:
        return Forecast(task.name, RUNS, kept)
    run = execution.run
    answer = compared(home.store, run, KeyParts(run.id, run.task_key, parts))
    return Forecast(task.name, RUNS, answer.reason.removeprefix("miss: "))


def _kept(execution: TaskExecution, key: str) -> Forecast | str:
    """The forecast of a hit; or why what is kept cannot be used, empty where nothing is."""
    home, name = execution.home, execution.task.name
    try:
        reference = keeping.find(execution, key)
        if reference is None:
            return ""
        if reference.expires_us is not None and reference.expires_us <= now_us():
            return f"the kept result has expired ({ago(reference.expires_us, now_us())})"
        value = KeptResult(reference, home.results).get()
    except PrefectException as error:
        return f"the kept result cannot be used: {one_line(str(error), 200)}"
    other = home.store.task_run(reference.source) if reference.source is not None else None
    when = f" (kept {ago(other.end_us or other.created_us, now_us())})" if other is not None else ""
    return Forecast(name, CACHED, f"same as {called(other)}{when}", value)
