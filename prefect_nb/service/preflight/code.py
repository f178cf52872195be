"""What in a notebook's code does not work, or not elsewhere, whatever its names: read from the trees, nothing executed."""

import ast
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath

from prefect_nb.model.name_flow import names_bound
from prefect_nb.service.preflight import magics
from prefect_nb.service.preflight.cells import CheckedCell, Context, Magic, dotted, nodes_of
from prefect_nb.service.preflight.findings import Finding, Level
from prefect_nb.service.text import one_line

_ASKING = {"input", "getpass", "getpass.getpass", "breakpoint", "pdb.set_trace", "ipdb.set_trace", "code.interact"}
_ENDING = {"exit", "quit", "os._exit"}
_MACHINE_PATH = re.compile(
    r"/(?:home|Users|root|content|mnt|media|data|tmp|var|opt|srv|kaggle|Volumes|dbfs|workspace|scratch)/[\w. +@=/-]*"
    r"|[A-Za-z]:[\\/][\w. +@=\\/-]*"
)
_READERS = re.compile(r"read_\w+|scan_\w+|loadtxt|genfromtxt|imread|open_dataset|read_file|open_mfdataset")
_MODULE_READERS = frozenset({"np.load", "numpy.load", "joblib.load", "torch.load", "Image.open", "PIL.Image.open"})
_PATH_READERS = frozenset({"read_text", "read_bytes"})
_PATHS = frozenset({"Path", "pathlib.Path", "PurePath", "pathlib.PurePath"})
_SECRET_NAME = re.compile(
    r"(?:^|_)(?:password|passwd|pwd|passphrase|secret|token|api_?key|access_?key|secret_?key|private_?key|auth_?key)(?:_?\d+)?$",
    re.IGNORECASE,
)
_SECRET_SHAPE = re.compile(
    r"(?:AKIA|ASIA)[0-9A-Z]{16}|gh[pousr]_\w{30,}|sk-[\w-]{20,}|xox[abpr]-[\w-]{10,}|glpat-[\w-]{20,}"
)
_PLACEHOLDER = re.compile(r"your|example|changeme|placeholder|dummy|\.\.\.|xxx|[<>{}$*\s]", re.IGNORECASE)
_SHORTEST_SECRET = 8


def code_findings(cells: Sequence[CheckedCell], folder: Path, values: Mapping[str, object]) -> list[Finding]:
    """What is wrong in the cells' code.

    Args:
        cells: in their order.
        folder: where the notebook runs.
        values: those given for its parameters.
    """
    loads = _Extensions(cells)
    bound = {name for cell in cells if cell.tree is not None for name in names_bound(cell.tree)}
    found = [finding for cell in cells for finding in loads.findings(cell)]
    for cell in cells:
        if cell.tree is not None:
            for node, context in nodes_of(cell.tree):
                found += _of_node(cell, node, context, bound)
    return found + _Files(cells, folder, values).findings()


def _of_node(cell: CheckedCell, node: ast.AST, context: Context, bound: set[str]) -> Iterator[Finding]:
    sure: Level = "error" if context.sure else "warning"
    if isinstance(node, ast.Call):
        name = dotted(node.func)
        if name in _ASKING and name not in bound:
            yield cell.finding(
                sure, "asks-for-input", f"`{name}()` waits for somebody to type, and nobody is there in a run by itself",
                "Make what it asks for a parameter.", node.lineno,
            )  # fmt: skip
        elif name in _ENDING and name not in bound:
            yield cell.finding(
                sure, "ends-kernel", f"`{name}()` ends the kernel in the middle of the run",
                "Write `stop(\"why\")` of prefect_nb, which ends the run as Completed, or raise an exception.", node.lineno,
            )  # fmt: skip
        elif name == "asyncio.run" or name.endswith(".run_until_complete"):
            yield cell.finding(
                sure, "await", f"`{one_line(name, 40)}()` fails in a notebook: its event loop runs already",
                f"Write `await {_awaited(node)}`; a cell may await at its top level.", node.lineno,
            )  # fmt: skip
        for keyword in node.keywords:
            if keyword.arg is not None:
                yield from _secret(cell, keyword.arg, keyword.value)
    elif isinstance(node, ast.Assign):
        for target in node.targets:
            yield from _secret(cell, _target_name(target), node.value)
    elif isinstance(node, ast.AnnAssign) and node.value is not None:
        yield from _secret(cell, _target_name(node.target), node.value)
    elif isinstance(node, ast.ImportFrom) and node.level:
        yield cell.finding(
            sure, "missing-import", f"`from {'.' * node.level}{node.module or ''} import ...`: a notebook is in no package",
            "Import it by its full name.", node.lineno,
        )  # fmt: skip


def _awaited(node: ast.Call) -> str:
    return one_line(ast.unparse(node.args[0]), 60) if node.args else "..."


def _target_name(target: ast.expr) -> str:
    match target:
        case ast.Subscript(slice=ast.Constant(value=str(key))):
            return key
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name
    return ""


def _secret(cell: CheckedCell, name: str, value: ast.expr) -> Iterator[Finding]:
    if not isinstance(value, ast.Constant) or not isinstance(value.value, str):
        return
    text = value.value
    long = len(text) >= _SHORTEST_SECRET and _PLACEHOLDER.search(text) is None
    if (_SECRET_NAME.search(name) and long) or _SECRET_SHAPE.search(text):
        yield cell.finding(
            "warning", "secret", f"`{one_line(name, 40)}` is given a secret in plain text, which every copy of the notebook has",
            "Keep it in a Secret block (`Secret.load(...)`) or in an environment variable, and change it where it counts.",
            value.lineno,
        )  # fmt: skip


class _Extensions:
    """Which magics there are in each cell."""

    def __init__(self, cells: Sequence[CheckedCell]) -> None:
        self._loaded: set[str] = set()
        self._aliases = {
            word for cell in cells for magic in cell.magics if magic.name in ("alias", "alias_magic", "macro")
            for word in magic.rest.split()
        }  # fmt: skip
        self._registers = any("register_magic" in cell.source or "register_cell_magic" in cell.source for cell in cells)

    def findings(self, cell: CheckedCell) -> Iterator[Finding]:
        if cell.tree is not None:
            for node, _ in nodes_of(cell.tree):
                self._see_import(node)
        for magic in cell.magics:
            if magic.name in ("load_ext", "reload_ext"):
                self._loaded.add(magic.rest.strip())
            known = magics.known_after(self._loaded, magic.kind)
            if magic.name not in known and magic.name not in self._aliases:
                yield self._unknown(cell, magic)

    def _see_import(self, node: ast.AST) -> None:
        # Importing `flow` or `task` in a notebook brings the magics along.
        if isinstance(node, ast.ImportFrom) and node.module == "prefect_nb":
            if any(name.name in ("flow", "task") for name in node.names):
                self._loaded.add("prefect_nb")
        elif isinstance(node, ast.Attribute) and dotted(node) in ("prefect_nb.flow", "prefect_nb.task"):
            self._loaded.add("prefect_nb")

    def _unknown(self, cell: CheckedCell, magic: Magic) -> Finding:
        mark = "%%" if magic.kind == "cell" else "%"
        other = "line" if magic.kind == "cell" else "cell"
        extension = magics.extension_of(magic.name)
        near = magics.like(magic.name, magic.kind)
        guess = self._registers or any(map(magics.is_unknown, self._loaded))
        if extension is not None:
            fix: str | None = f"Add `%load_ext {extension}` to a cell above."
        elif magic.name in magics.known_after(self._loaded, other):
            fix = f"There is {'%' if other == 'line' else '%%'}{magic.name}, for a {'line' if other == 'line' else 'whole cell'}."
        else:
            fix = f"Did you mean {mark}{near}?" if near else "Load the extension that has it by `%load_ext`."
        return cell.finding(
            "warning" if guess else "error", "unknown-magic", f"No extension that is loaded by then has the magic "
            f"`{mark}{one_line(magic.name, 40)}`", fix, magic.line,
        )  # fmt: skip


class _Files:
    """The files that are named by text in the code, and are not there."""

    def __init__(self, cells: Sequence[CheckedCell], folder: Path, values: Mapping[str, object]) -> None:
        self._cells = cells
        self._folder = folder
        self._constants = self._read_constants(values)
        self._moves = any("chdir" in cell.source or any(m.name == "cd" for m in cell.magics) for cell in cells)
        self._made: list[str] = []
        """Texts seen before, in which a file that the notebook makes itself may be named."""

    def findings(self) -> list[Finding]:
        found: list[Finding] = []
        for cell in self._cells:
            self._made += [*cell.commands, *(magic.rest for magic in cell.magics)]
            if cell.tree is None:
                continue
            nodes = list(nodes_of(cell.tree))
            flagged = set[int]()
            for node, context in nodes:
                if (path := _path_read(node)) is not None:
                    found += self._missing(cell, path, context)
                    flagged |= {id(inner) for inner in ast.walk(path)}
            for node, _ in nodes:
                if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in flagged:
                    self._made.append(node.value)
                    found += self._elsewhere(cell, node, node.value)
        return found

    def _missing(self, cell: CheckedCell, node: ast.expr, context: Context) -> Iterator[Finding]:
        text = self._text(node)
        if text is None or not text or "://" in text or any(letter in text for letter in "*?\n{}"):
            return
        path = self._folder / Path(text).expanduser()
        name = PurePosixPath(text).name
        is_absolute = Path(text).is_absolute() or PureWindowsPath(text).is_absolute()
        if _exists(path) or (self._moves and not is_absolute) or (name and any(name in made for made in self._made)):
            return
        forgiven = context.caught & {"FileNotFoundError", "OSError", "IOError", "Exception", "BaseException"}
        where = "" if is_absolute else f" in {self._folder.name or 'the folder'}/, where the notebook runs"
        yield cell.finding(
            "error" if context.sure and not forgiven else "warning",
            "missing-file",
            f"There is no file `{one_line(text, 100)}`{where}",
            "Make the path a parameter, or relative to the notebook."
            if is_absolute
            else "Put it there, or correct the path.",
            getattr(node, "lineno", None),
        )

    def _elsewhere(self, cell: CheckedCell, node: ast.Constant, text: str) -> Iterator[Finding]:
        if len(text) > 300 or _MACHINE_PATH.fullmatch(text) is None:
            return
        path = Path(text)
        if path.is_absolute() and (_exists(path) or _exists(path.parent)):
            return
        yield cell.finding(
            "warning", "machine-path", f"`{one_line(text, 100)}` is a place on another machine: it does not exist here",
            "Make the path a parameter, or relative to the notebook.", node.lineno,
        )  # fmt: skip

    def _read_constants(self, values: Mapping[str, object]) -> dict[str, ast.expr]:
        """The names that are assigned once, and to what; values of parameters in place of their defaults."""
        assigned: dict[str, list[ast.expr]] = {}
        for cell in self._cells:
            for statement in cell.tree.body if cell.tree is not None else ():
                match statement:
                    case (
                        ast.Assign(targets=[ast.Name(id=name)], value=value)
                        | ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value)
                    ):
                        assigned.setdefault(name, []).append(value)
        known = {name: found[0] for name, found in assigned.items() if len(found) == 1}
        return {**known, **{name: ast.Constant(value) for name, value in values.items() if isinstance(value, str)}}

    def _text(self, node: ast.expr, depth: int = 0) -> str | None:
        """The path that an expression is, if that can be read."""
        if depth > 8:
            return None
        match node:
            case ast.Constant(value=str(text)):
                return text
            case ast.Name(id=name) if name in self._constants:
                return self._text(self._constants[name], depth + 1)
            case ast.Call(func=function, args=parts) if dotted(function) in (*_PATHS, "os.path.join", "str") and parts:
                return self._joined(parts, depth)
            case ast.BinOp(left=left, op=ast.Div(), right=right):
                return self._joined([left, right], depth)
        return None

    def _joined(self, parts: Sequence[ast.expr], depth: int) -> str | None:
        texts = [self._text(part, depth + 1) for part in parts]
        known = [text for text in texts if text is not None]
        return str(Path(*known)) if len(known) == len(texts) else None


def _path_read(node: ast.AST) -> ast.expr | None:
    """The path that a call reads, as it is written."""
    if not isinstance(node, ast.Call):
        return None
    name = dotted(node.func)
    last = name.rpartition(".")[2]
    if isinstance(node.func, ast.Attribute) and (
        last in _PATH_READERS or (last == "open" and _is_path(node.func.value))
    ):
        return node.func.value if last in _PATH_READERS or _reads(node, 0) else None
    if not node.args or isinstance(node.args[0], ast.Starred):
        return None
    if name == "open":
        return node.args[0] if _reads(node, 1) else None
    is_reader = name in _MODULE_READERS or ("." in name and _READERS.fullmatch(last) is not None)
    return (
        node.args[0]
        if is_reader and last not in ("read_sql", "read_sql_query", "read_sql_table", "read_clipboard")
        else None
    )


def _is_path(node: ast.expr) -> bool:
    return isinstance(node, ast.BinOp) or (isinstance(node, ast.Call) and dotted(node.func) in _PATHS)


def _reads(node: ast.Call, place: int) -> bool:
    """Whether a file is opened to be read."""
    mode = (
        node.args[place] if len(node.args) > place else next((k.value for k in node.keywords if k.arg == "mode"), None)
    )
    return mode is None or (isinstance(mode, ast.Constant) and isinstance(mode.value, str) and "r" in mode.value)


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):
        return False
