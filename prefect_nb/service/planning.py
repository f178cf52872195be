"""What a flow would run and what it would take from the cache, told before anything runs.

The flow's own code is executed; each call of a task is only looked up. Where the result is kept, the code goes on with
it; where it is not, with a stand-in, as far as that goes.
"""

from __future__ import annotations

import asyncio
import linecache
from collections.abc import Callable
from types import TracebackType
from typing import Any

from prefect_nb.engine.task_run import describe
from prefect_nb.execution import inputs, portal
from prefect_nb.execution.context import visualizing
from prefect_nb.execution.futures import PrefectFuture, PrefectFutureList
from prefect_nb.execution.ids import new_id
from prefect_nb.execution.scope import Scope
from prefect_nb.execution.task_runners import ThreadPoolTaskRunner
from prefect_nb.execution.visualizing import awaited
from prefect_nb.flows import Flow
from prefect_nb.model.parameters import split_map_arguments
from prefect_nb.model.states import Completed
from prefect_nb.model.words import one_line
from prefect_nb.service.forecasts import CACHED, DEPENDS, Forecast, Plan, foresee
from prefect_nb.tasks import Task


class NotYetKnown(BaseException):
    """The code needs a value that only a run would give. Not an `Exception`: what the code catches must not hide it."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


class Unknown(PrefectFuture[Any]):
    """Stands for the value, or the future, of a task run that would have to run first."""

    def __init__(self, name: str) -> None:
        super().__init__(new_id())
        self._name = name

    @property
    def state(self) -> Any:
        """Not to be told."""
        raise NotYetKnown(self._name)

    def done(self) -> bool:
        """Code that looks goes on as if it had ended."""
        return True

    def wait(self, timeout: float | None = None) -> None:
        """Nothing to wait for."""

    def result(self, timeout: float | None = None, raise_on_failure: bool = True) -> Any:  # noqa: ARG002
        """The same stand-in."""
        return self

    def add_done_callback(self, fn: Callable[[Any], None]) -> None:
        """It never ends."""

    def __repr__(self) -> str:
        return f"<the result of {self._name}, which would run>"


def _refuse(self: Unknown, *_: Any, **__: Any) -> Any:
    raise NotYetKnown(self._name)


_OPERATIONS = """
    add radd sub rsub mul rmul truediv rtruediv floordiv rfloordiv mod rmod pow rpow matmul rmatmul and rand or ror xor rxor
    lt le gt ge eq ne neg pos abs invert len iter contains getitem setitem delitem call bool int float index str enter exit
    getattr format
"""
for _operation in _OPERATIONS.split():
    setattr(Unknown, f"__{_operation}__", _refuse)
Unknown.__hash__ = object.__hash__  # type: ignore[method-assign]


class Planner:
    """Takes the place of running tasks while a flow's own code is executed.

    Args:
        scope: stands for the flow run that there would be.
    """

    def __init__(self, scope: Scope) -> None:
        self.plan = Plan()
        self._scope = scope

    def called(self, callee: Any, given: Any, wait_for: Any, how: str) -> Any:
        """A task or flow is called; what stands for what that gives.

        Args:
            callee: the task or flow.
            given: its arguments by name; for "map", as they were supplied.
            wait_for: what has to come first.
            how: "call", "submit" or "map".
        """
        if isinstance(callee, Flow):
            return self._flow(callee, given)
        if how == "map":
            return self._map(callee, given[0], given[1], wait_for)
        value = self._one(callee, given, wait_for)
        if how == "submit":
            return value if isinstance(value, Unknown) else _future(value)
        return asyncio.sleep(0, value) if callee.isasync else value

    def _one(self, task: Task[..., Any], given: dict[str, Any], wait_for: Any) -> Any:
        forecast = self._foreseen(task, given, wait_for)
        self.plan.append(forecast)
        return forecast.value if forecast.kind == CACHED else Unknown(task.name)

    def _foreseen(self, task: Task[..., Any], given: dict[str, Any], wait_for: Any) -> Forecast:
        try:
            inputs.resolve(wait_for)
            return foresee(task, inputs.resolve(given), self._scope)
        except NotYetKnown as missing:
            return Forecast(task.name, DEPENDS, f"on the result of {one_line(missing.name)}")

    def _map(self, task: Task[..., Any], args: Any, kwargs: Any, wait_for: Any) -> Any:
        supplied = {
            name: value.result() if isinstance(value, PrefectFuture) else value
            for name, value in task.signature.bind_supplied(args, kwargs).items()
        }
        unknown = next((value for value in supplied.values() if isinstance(value, Unknown)), None)
        if unknown is not None:
            reason = f"mapped over the result of {one_line(unknown._name)}"
            self.plan.append(Forecast(task.name, DEPENDS, reason))
            return Unknown(task.name)
        found = [
            self._foreseen(task, task.signature.bind_names(child), wait_for)
            for child in split_map_arguments(task.signature, supplied)
        ]
        self.plan += _gathered(found)
        values = [one.value if one.kind == CACHED else Unknown(task.name) for one in found]
        return PrefectFutureList([value if isinstance(value, Unknown) else _future(value) for value in values])

    def _flow(self, flow: Flow[..., Any], given: dict[str, Any]) -> Any:
        args, kwargs = flow.signature.call_args(given)
        return flow.whole(*args, **kwargs)


def _gathered(found: list[Forecast]) -> list[Forecast]:
    """Those of one map: one line for each kind."""
    groups: dict[str, list[Forecast]] = {}
    for one in found:
        groups.setdefault(one.kind, []).append(one)
    return [_one_of(group) if len(group) > 1 else group[0] for group in groups.values()]


def _one_of(group: list[Forecast]) -> Forecast:
    first = group[0]
    alike = len({one.reason for one in group}) == 1
    return Forecast(f"{first.name} x {len(group):,}", first.kind, f"{'' if alike else 'the first: '}{first.reason}")


def _future(value: Any) -> PrefectFuture[Any]:
    future: PrefectFuture[Any] = PrefectFuture(new_id())
    future._set_final(Completed(data=value))
    return future


def plan(flow: Flow[..., Any], *args: Any, **kwargs: Any) -> Plan:
    """What a call of the flow would run, and what it would take from the cache; no task is run, nothing is recorded.

    The flow's own code, between its tasks, is executed with the kept results; at the first place that needs a result
    which is not kept the plan says so, and ends.

    Args:
        flow: the flow.
        args, kwargs: what it would be called with.

    Raises:
        ParameterBindError: they do not fit its signature.
    """
    parameters = flow.signature.bind(args, kwargs)
    given, named = flow.signature.call_args(parameters)
    return planned(lambda: flow.whole(*given, **named), flow.isasync, parameters, flow.persist_result)


def planned(
    body: Callable[[], Any],
    isasync: bool,
    parameters: dict[str, Any],
    persist: bool | None = None,
    across_runs: bool = False,
) -> Plan:
    """What a body would run; see `plan`.

    Args:
        body: the code of a flow.
        isasync: whether it gives a coroutine.
        parameters: those of the flow, for cache policies that read them.
        persist: whether its tasks' results are kept unless they say otherwise.
        across_runs: whether tasks with the default cache policy reuse results of other flow runs.
    """
    scope = Scope(new_id(), persist=persist, make_runner=ThreadPoolTaskRunner().open)
    scope.parameters, scope.across_runs = parameters, across_runs
    planner = Planner(scope)
    token = visualizing.set(planner)
    try:
        if isasync:
            portal.run_sync(awaited(planner, body))
        else:
            body()
    except NotYetKnown as missing:
        planner.plan.rest = f"needs the result of {one_line(missing.name)}{_place(missing.__traceback__)}"
    except Exception as error:
        planner.plan.rest = f"could not be followed: {one_line(describe(error), 200)}{_place(error.__traceback__)}"
    finally:
        visualizing.reset(token)
    return planner.plan


def _place(traceback: TracebackType | None) -> str:
    """Where in the user's own code that was."""
    found = ""
    while traceback is not None:
        code, number = traceback.tb_frame.f_code, traceback.tb_lineno
        line = linecache.getline(code.co_filename, number).strip()
        if line and "/prefect_nb/" not in code.co_filename.replace("\\", "/"):
            found = f" (line {number}: `{one_line(line, 100)}`)"
        traceback = traceback.tb_next
    return found


__all__ = ["NotYetKnown", "Plan", "Planner", "Unknown", "plan", "planned"]
