"""`%load_ext prefect_nb`: the magics `%%flow`, `%%task`, `%runs` and `%flow`, and the view under every flow run."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from typing import Any
from uuid import UUID

from IPython.core.error import UsageError
from IPython.core.magic import no_var_expand

from prefect_nb.exceptions import PrefectException
from prefect_nb.home import Home, root_hooks
from prefect_nb.notebook import commands, interrupting, options, view_outputs
from prefect_nb.notebook.cells import Cell, awaits
from prefect_nb.notebook.front_end import is_watched
from prefect_nb.notebook.options import Parser
from prefect_nb.notebook.parsers import add_common, add_runner, task_parser
from prefect_nb.notebook.view import make_view
from prefect_nb.service import history

_INSTEAD = {"flow": "prefect"}
"""What a magic is called where another extension has its name already: ipyflow owns `%flow`."""

_CALL = re.compile(r"get_ipython\(\)\.run_cell_magic\('(\w+)', ")


def _flow_parser(magic: str) -> Parser:
    parser = Parser(
        magic,
        "[name] [options]",
        "Run this cell as a flow run. Its tasks are shown live below it. The names it assigns hold plain values\n"
        "afterwards, also where they were given futures; the value of its last expression is the flow's result.",
        f"example:\n  {magic} nightly -r 2 --timeout 10m -p date=2026-01-01",
    )
    parser.add_argument("name", nargs="?", help="name of the flow (default: cell-flow)")
    add_common(parser)
    parser.add_argument(
        "-p",
        "--param",
        dest="parameters",
        action="append",
        default=[],
        type=options.parameter,
        metavar="NAME=VALUE",
        help="set a variable before the cell runs, and record it; @other as the value means that variable's value",
    )
    add_runner(parser)
    parser.add_argument("--plan", action="store_true", help="run no task; say what would run, what is cached, and why")
    parser.add_argument(
        "--detach",
        action="store_true",
        help="run it beside the notebook and return at once; %%flow queue shows what waits",
    )
    parser.add_argument(
        "--restart", action="store_true", help="with --detach: where this cell runs already, begin anew"
    )
    parser.add_argument("--durable", action="store_true", help="each result is on disk before the next line runs")
    parser.add_argument(
        "--cache",
        action="store_true",
        help="keep results; tasks with the same code and inputs reuse them, in later runs too",
    )
    return parser


def _runs_parser(magic: str) -> Parser:
    parser = Parser(magic, "[id or name] [options]", "List the newest flow runs, or show one.")
    parser.add_argument("run", nargs="?", help="a flow run: its name, its id or the beginning of its id")
    parser.add_argument("-n", "--limit", type=options.positive, default=10, metavar="N", help="how many (default: 10)")
    parser.add_argument(
        "--state", dest="states", action="append", default=[], metavar="STATE", help="only in this state"
    )
    parser.add_argument("--flow", metavar="NAME", help="only runs of this flow")
    return parser


def _why_parser(magic: str) -> Parser:
    parser = Parser(
        magic,
        "[task or run]",
        "Say why a task run was computed, or why it was not: a cache hit, or the first difference from an earlier run.",
        f"example:\n  {magic} clean",
    )
    parser.add_argument(
        "run",
        nargs="?",
        help="a task, future, state or run (a variable), or a name or id (default: the newest run with its tasks)",
    )
    return parser


class Magics:
    """The magics of one shell.

    Args:
        shell: the IPython shell.
        names: what each is called in this shell, by kind and usual name.
    """

    def __init__(self, shell: Any, names: dict[tuple[str, str], str]) -> None:
        self._shell = shell
        self._names = names

    def functions(self) -> dict[tuple[str, str], Callable[..., Any]]:
        """The magics, by kind and usual name."""
        return {
            ("cell", "flow"): self.flow_cell,
            ("cell", "task"): self.task_cell,
            ("line", "runs"): self.runs,
            ("line", "flow"): self.flows,
            ("line", "why"): self.why,
            ("line", "preflight"): self.preflight,
            ("line", "diff"): self.diff,
            ("line", "resume"): self.resume,
            ("line", "load_task"): self.load_task,
        }

    @no_var_expand
    def flow_cell(self, line: str, body: str) -> Any:
        """Run the cell as a flow run. `%%flow -h` tells the options."""
        from prefect_nb.notebook.flow_cells import FlowCell

        magic = "%%" + self._names["cell", "flow"]
        chosen = _flow_parser(magic).options(line)
        if chosen is None:
            return None
        cell = FlowCell(self._cell(magic, line, body), chosen)
        if chosen.plan:
            return cell.plan()
        return cell.detach(is_watched(self._shell)) if chosen.detach else cell.run()

    @no_var_expand
    def task_cell(self, line: str, body: str) -> Any:
        """Run the cell as a task. `%%task -h` tells the options."""
        from prefect_nb.notebook.notebook_cells import remember
        from prefect_nb.notebook.task_cells import TaskCell, read_heading

        magic = "%%" + self._names["cell", "task"]
        heading = read_heading(line)
        chosen = task_parser(magic).options(heading.options)
        if chosen is None:
            return None
        cell = self._cell(magic, line, body)
        remember(self._shell, line, body, cell)
        return TaskCell(cell, heading, chosen).run()

    @no_var_expand
    def runs(self, line: str) -> None:
        """List the newest flow runs, or show one. `%runs -h` tells the options."""
        from prefect_nb.notebook.listing import show, show_run, table_of

        chosen = _runs_parser("%" + self._names["line", "runs"]).options(line)
        if chosen is None:
            return
        Home.current().ledger.commit()
        try:
            if chosen.run is not None:
                show_run(history.find_flow_run(chosen.run))
                return
            found = history.flow_runs(states=chosen.states, flow=chosen.flow, limit=chosen.limit)
        except PrefectException as error:
            raise UsageError(str(error)) from None
        if found:
            show(table_of(found))
        else:
            print("No flow run fits." if chosen.states or chosen.flow else "No flow has run yet.")  # noqa: T201

    @no_var_expand
    def flows(self, line: str) -> Any:
        """List the flows, or do what a subcommand says: `%flow run`, `%flow graph`. `%flow -h` tells them all."""
        from prefect_nb.notebook.flow_magic import flow_magic

        return flow_magic(self._shell, self._names, line)

    @no_var_expand
    def why(self, line: str) -> None:
        """Say why task runs were computed, or were not. `%why -h` tells the options."""
        from prefect_nb.notebook.listing import reasons

        chosen = _why_parser("%" + self._names["line", "why"]).options(line)
        if chosen is None:
            return
        try:
            print(reasons(chosen.run, self._shell.user_ns))  # noqa: T201
        except PrefectException as error:
            raise UsageError(str(error)) from None

    @no_var_expand
    def resume(self, line: str) -> None:
        """Go on with a failed notebook run. `%resume -h` tells the options."""
        from prefect_nb.notebook.resume_magic import run_resume

        run_resume("%" + self._names["line", "resume"], line)

    @no_var_expand
    def load_task(self, line: str) -> None:
        """Bring a failed task's inputs and body here. `%load_task -h` tells the options."""
        from prefect_nb.notebook.load_task import run_load_task

        run_load_task(self._shell, "%" + self._names["line", "load_task"], line)

    @no_var_expand
    def preflight(self, line: str) -> None:
        """Say whether Restart & Run All would pass. `%preflight -h` tells the options."""
        from prefect_nb.notebook.preflight_magic import run_preflight

        run_preflight(self._shell, "%" + self._names["line", "preflight"], line)

    @no_var_expand
    def diff(self, line: str) -> None:
        """Compare two runs. `%diff -h` tells the options."""
        from prefect_nb.notebook.diff_magic import run_diff

        run_diff("%" + self._names["line", "diff"], line)

    def _cell(self, magic: str, line: str, body: str) -> Cell:
        cell = Cell(self._shell, f"{magic} {line}".rstrip(), body)
        if cell.is_empty:
            raise UsageError(f"{magic}: there is nothing to run; write the code below the line with {magic}.")
        return cell


class Arrange:
    """Input transformer, before IPython's own, for what it would not take for a cell magic.

    Comments above the magic go below it, `-h` needs no body, and `%%task(raw)` no space.
    """

    def __init__(self, names: set[str]) -> None:
        self._heading = re.compile(rf"(%%(?:{'|'.join(sorted(names))}))(?![\w?])")

    def __call__(self, lines: list[str]) -> list[str]:
        """The lines of the cell as IPython should have them."""
        place = next((n for n, line in enumerate(lines) if line.strip() and not line.startswith("#")), None)
        if place is None or not self._heading.match(lines[place]):
            return lines
        heading = self._heading.sub(r"\1 ", lines[place], count=1)
        arranged = [heading, *lines[:place], *lines[place + 1 :]]
        if not "".join(arranged[1:]).strip() and re.search(r"\s(?:-h|--help)\b", lines[place]):
            arranged.append("\n")
        return arranged


class Await:
    """Input transformer, after IPython's own: a cell magic whose body awaits is awaited itself."""

    def __init__(self, shell: Any, names: set[str]) -> None:
        self._shell = shell
        self._names = names

    def __call__(self, lines: list[str]) -> list[str]:
        """The lines, with `await` before the call of such a magic."""
        found = _CALL.match(lines[0]) if len(lines) == 1 else None
        if found is None or found[1] not in self._names:
            return lines
        call = ast.parse(lines[0], mode="eval").body
        assert isinstance(call, ast.Call)
        name, line, body = map(ast.literal_eval, call.args)
        return [f"await {lines[0]}"] if awaits(self._shell, f"%%{name} {line}".rstrip(), body) else lines


def show_root_run(home: Home, flow_run_id: UUID) -> Callable[[], None] | None:
    """The view under the cell of a flow run that no other encloses."""
    view = make_view(flow_run_id)
    if view is None:
        return None
    home.ledger.observers.append(view)
    view.start()
    end = view_outputs.finisher(home, view)

    def finish() -> None:
        end()
        home.ledger.observers.remove(view)

    return finish


def register(shell: Any) -> None:
    """Register the magics in a shell and have its flow runs shown. Doing it again changes nothing."""
    names = {place: _free_name(shell, *place) for place in Magics(shell, {}).functions()}
    for (kind, usual), function in Magics(shell, names).functions().items():
        shell.register_magic_function(function, magic_kind=kind, magic_name=names[kind, usual])
    cell_magics = {name for (kind, _), name in names.items() if kind == "cell"}
    _put(shell.input_transformer_manager.cleanup_transforms, Arrange(cell_magics))
    _put(shell.input_transformers_post, Await(shell, cell_magics))
    _put(root_hooks, show_root_run)
    commands.listen(shell)
    interrupting.listen(shell)


def _free_name(shell: Any, kind: str, usual: str) -> str:
    owner = shell.magics_manager.magics[kind].get(usual)
    is_free = owner is None or _is_ours(owner)
    return usual if is_free else _INSTEAD.get(usual, f"prefect_{usual}")


def _put(place: list[Any], item: Any) -> None:
    """Add an item, in the place of what an earlier registration (before a reload) put there."""
    name = _name_of(item)
    kept = [other for other in place if _name_of(other) != name]
    place[:] = [*kept, item]


def _name_of(item: Any) -> str:
    of = item if hasattr(item, "__qualname__") else type(item)
    return f"{of.__module__}.{of.__qualname__}"


def _is_ours(owner: Any) -> bool:
    return str(getattr(owner, "__module__", "")).startswith(f"{__package__}.")
