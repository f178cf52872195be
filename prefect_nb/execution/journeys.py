"""One attempt of a task run on a worker elsewhere: from being sent off, over being taken up there, to its outcome.

The run is Running from when a worker takes it up, which the work itself says as the first thing it emits; until then it
is Pending. Says it so twice, then the first worker was lost and another has begun the call again.
"""

from __future__ import annotations

import contextvars
import threading
from typing import Any, Protocol

from prefect_nb.engine import commands as c
from prefect_nb.execution import logs, own_output, remote, task_controls
from prefect_nb.execution.kept import KeptResult
from prefect_nb.execution.relays import Printed
from prefect_nb.execution.task_runs import TaskExecution
from prefect_nb.interfaces import Runner
from prefect_nb.runners.aside import HELD_BYTES, Held


class Traveller(Protocol):
    """A task run on its way through a runner."""

    execution: TaskExecution
    runner: Runner
    context: contextvars.Context
    journey: Any

    def advance(self, answer: Any = None, held: c.Command | None = None) -> None:
        """Give the engine an answer, or have a held command answered, and go on."""
        ...


class Journey:
    """One attempt.

    Args:
        pumped: the task run.
        running: the command to record that it runs, answered when a worker has taken it up.
    """

    __slots__ = ("_is_awaited", "_is_dropped", "_is_taken_up", "_lock", "_outcome", "_pumped", "_work", "running")

    def __init__(self, pumped: Traveller, running: c.Record) -> None:
        self.running = running
        self._pumped = pumped
        self._lock = threading.Lock()
        self._is_taken_up = False
        self._is_awaited = False
        self._is_dropped = False
        self._work: Any = None
        self._outcome: c.Outcome | None = None

    def begin(self) -> None:
        """Send the call off, in the context of whoever submitted the run: a cluster may have options in it."""
        pumped = self._pumped
        self._work = work = remote.work_of(pumped.execution, self.running.state)
        pumped.execution.waker = self._wished
        pumped.context.copy().run(pumped.runner.start, work, self._arrived, self._heard)
        if pumped.execution.wish is not None:
            self._wished()

    def _wished(self) -> None:
        """Somebody wishes something of the run: stop the call where it is, and do not wait for one that has not begun."""
        pumped = self._pumped
        wish = pumped.execution.wish
        with self._lock:
            if wish is None or self._outcome is not None or pumped.journey is not self or self._is_dropped:
                return
            ending = None if self._is_taken_up else task_controls.ending(wish)
            if ending is None and not self._is_taken_up:
                return  # it is about to begin anyway
            wish.sent = True
            self._is_dropped = ending is not None
        stop = getattr(pumped.runner, "stop", None)
        if stop is not None:
            stop(self._work)
        if ending is not None:
            pumped.advance(ending)

    def outcome(self) -> c.TaskOutcome | None:
        """How the call ended; None where that is still to come, and then the engine is answered when it does."""
        with self._lock:
            if self._outcome is None:
                self._is_awaited = True
                return None
        return self._settled(self._outcome)

    def _heard(self, item: Any) -> None:
        """On a thread of the runner."""
        if type(item) is remote.TakenUp:
            self._taken_up(item)
        elif type(item) is remote.ConsoleLine:
            if logs.show_on_console:
                self._pumped.context.copy().run(logs.show_of_task, item.text, item.level)
        elif type(item) is Printed:
            self._pumped.context.copy().run(own_output.take, self._pumped.execution, item.kind, item.text)
        else:
            self._pumped.execution.ledger.log(item)

    def _taken_up(self, news: remote.TakenUp) -> None:
        with self._lock:
            if self._is_dropped:
                return
            before, self._is_taken_up = self._is_taken_up, True
        if before:
            self._pumped.context.copy().run(self._tell_of_loss, news)
        elif "running" in self._pumped.execution.plan.hooks:  # code of the user's, which others must not wait for
            threading.Thread(target=self._go_on, name="prefect_nb-taken-up", daemon=True).start()
        else:
            self._go_on()

    def _go_on(self) -> None:
        self._pumped.advance(None, self.running)

    def _arrived(self, outcome: c.Outcome) -> None:
        """On a thread of the runner."""
        with self._lock:
            if self._is_dropped:
                return
            self._outcome = outcome
            taken_up, self._is_taken_up = self._is_taken_up, True
            awaited = self._is_awaited
        if not taken_up:
            self._go_on()
        elif awaited:
            self._pumped.advance(self._settled(outcome))

    def _settled(self, outcome: c.Outcome) -> c.TaskOutcome:
        execution = self._pumped.execution
        value = outcome.value if type(outcome) is c.Returned else None
        if type(value) is Held and execution.scope is not None:
            scope = execution.scope
            value.on_get = lambda got: scope.track(got, execution.id)
        return execution.settle(outcome)

    def _tell_of_loss(self, news: remote.TakenUp) -> None:
        execution = self._pumped.execution
        with logs.sent_to(execution.ledger.log):
            logs.task_run_logger(execution.run, execution.task).warning(
                "The worker that ran this task was lost. It is begun again in %s.", news.where
            )


def leaves_in_place(runner: Any, data: Any) -> bool:
    """Whether an upstream value need not come here on its way to a worker of this runner."""
    if type(data) is Held:
        return data.cluster is runner
    return type(data) is KeptResult and runner.shares_files and data.reference.size > HELD_BYTES
