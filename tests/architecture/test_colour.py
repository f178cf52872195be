"""One engine, no colour: coroutines only where something is awaited, and nothing written twice."""

import ast
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "prefect_nb"

# Where `async def` may stand, and why. A name after the file allows that function alone.
ALLOWED = {
    "model/states.py:State._awaited": "a result that is awaited",
    "execution/drive*.py": "the drivers",
    "execution/generated.py": "bodies that are async generators",
    "concurrency/asyncio.py": "Prefect's names for what a coroutine awaits",
    "execution/limits.py:until_*": "the waits of coroutines",
    "execution/admission.py:by_awaiting": "what the awaiting driver is answered with",
    "execution/calls.py:call_awaiting": "calls a body that is a coroutine function",
    "execution/*_runs.py:*Execution.*": "what the awaiting driver is answered with",
    "execution/hooks.py:_Refused.awaiting": "hooks that are coroutine functions",
    "execution/deferred.py:PrefectDistributedFuture.*_async": "Prefect's names for what a coroutine awaits",
    "execution/visualizing.py:awaited": "calls a flow that is a coroutine function",
    "execution/pump.py:*._await_and_advance": "bodies that are coroutine functions, under the pump",
    "flows/driving.py:run_awaiting": "what calling an async flow returns, to be awaited",
    "flows/driving.py:items_awaited": "what calling a flow that is an async generator returns",
    "tasks.py:_run_awaiting": "what calling an async task returns, to be awaited",
    "tasks.py:_items_awaited": "what calling a task that is an async generator returns",
    "notebook/*": "runs on the kernel's event loop",
    "execution/key_waits.py:wait": "the wait of a coroutine for a key",
    "execution/task_controls.py:ended": "the wait of a coroutine for another run",
    "execution/task_controls.py:unless_wished": "a wait of a coroutine that a wish ends",
    "execution/pausing.py:*_awaiting": "the wait of an async flow for somebody's answer",
    "execution/steps.py:*": "the awaiting driver's part of a step that several runs share",
    "execution/remote.py:RemoteCall._await": "bodies that are coroutine functions, in another process",
    "execution/cluster_runners.py:get_async_dask_client": "the name of the dask integration",
    "runners/dask.py:*": "the cluster's client is awaited",
    "runners/ray.py:Mailbox.*": "an actor of the cluster",
    "results/remote.py:_settled.wait": "file systems whose methods are coroutines",
    "results/records.py:_in_thread": "what a coroutine awaits of a blocking store",
    "service/input_handlers.py:*": "`async for` over what is sent to a run",
    "service/pausing.py:wait_for_flow_run": "the name in `prefect.flow_runs`",
}
# Interfaces that have every method in both colours, in Prefect too: users call, and write, either.
BOTH_COLOURS = {
    "execution/transactions.py",
    "filesystems.py",
    "locking/*.py",
    "results/records.py",
    "service/input_handlers.py",
    "service/pausing.py",
    "service/run_inputs.py",
    "transactions.py",
}

ENDINGS = ("_async", "_awaiting", "_aio", "_sync")

Scope = ast.Module | ast.ClassDef


def qualified_coroutines(source: str) -> Iterator[str]:
    """`Class.method` or `function` of every `async def`, in order of appearance."""

    def walk(node: ast.AST, path: tuple[str, ...]) -> Iterator[str]:
        for child in ast.iter_child_nodes(node):
            name = getattr(child, "name", None)
            inside = (*path, name) if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) else path
            if isinstance(child, ast.AsyncFunctionDef):
                yield ".".join(inside)
            yield from walk(child, inside)

    return walk(ast.parse(source), ())


def twins(source: str) -> Iterator[str]:
    """Pairs of functions in one scope that differ by colour alone: f and f_async, f_awaiting, f_sync, async_f, af."""
    tree = ast.parse(source)
    for scope in ast.walk(tree):
        if not isinstance(scope, Scope):
            continue
        functions = {node.name: node for node in scope.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
        for name in functions:
            bare = name.strip("_")
            for twin in (*(bare + ending for ending in ENDINGS), f"async_{bare}", f"a{bare}"):
                other = functions.get(name.replace(bare, twin))
                # `live` and `alive` are no twins: the short prefix must mark a coroutine.
                if other is not None and (twin != f"a{bare}" or isinstance(other, ast.AsyncFunctionDef)):
                    yield f"{name} and {other.name}"


def sources() -> Iterator[tuple[str, str]]:
    for file in sorted(PACKAGE.rglob("*.py")):
        yield file.relative_to(PACKAGE).as_posix(), file.read_text()


def test_coroutines_stand_where_something_is_awaited():
    found = [
        f"{file}:{name}"
        for file, source in sources()
        for name in qualified_coroutines(source)
        if not any(
            fnmatch(file, pattern) or fnmatch(f"{file}:{name}", pattern) for pattern in {*ALLOWED, *BOTH_COLOURS}
        )
    ]

    assert found == [], "If users await it, say so in ALLOWED; else let a driver do the waiting."


def test_every_named_function_is_there():
    places = [f"{file}:{name}" for file, source in sources() for name in qualified_coroutines(source)]

    assert [pattern for pattern in ALLOWED if ":" in pattern and not any(fnmatch(p, pattern) for p in places)] == []


def test_nothing_is_written_once_for_each_colour():
    one_colour = [(f, source) for f, source in sources() if not any(fnmatch(f, pattern) for pattern in BOTH_COLOURS)]
    assert [f"{file}: {pair}" for file, source in one_colour for pair in twins(source)] == []


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("def run(): ...\nasync def run_async(): ...", ["run and run_async"]),
        ("def run(): ...\nasync def arun(): ...", ["run and arun"]),
        ("def fire(): ...\nasync def fire_awaiting(): ...", ["fire and fire_awaiting"]),
        ("def _run_sync(): ...\nasync def _run(): ...", ["_run and _run_sync"]),
        ("class Task:\n  def call(self): ...\n  async def async_call(self): ...", ["call and async_call"]),
        ("def live(): ...\ndef alive(): ...\nasync def wait(): ...", []),
    ],
)
def test_twins_are_seen(source: str, expected: list[str]):
    assert list(twins(source)) == expected


def test_nested_coroutines_are_seen():
    source = "class Task:\n  def call(self):\n    if True:\n      async def inner(): ..."

    assert list(qualified_coroutines(source)) == ["Task.call.inner"]
