"""The kernel a notebook would run in: whether it starts, and which modules it has. No code of the notebook is run."""

import ast
import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from prefect_nb.bodies.kernels import choose_kernel
from prefect_nb.exceptions import NotebookError
from prefect_nb.service.preflight.cells import CheckedCell, dotted, nodes_of
from prefect_nb.service.preflight.findings import Finding, Level
from prefect_nb.service.preflight.magics import IN_IPYTHON
from prefect_nb.service.text import did_you_mean, one_line

PROBE_SECONDS = 20.0
"""How long the kernel's interpreter may take to say which modules it has."""

_PIP_NAMES = {
    "attr": "attrs",
    "bs4": "beautifulsoup4",
    "cv2": "opencv-python",
    "Crypto": "pycryptodome",
    "dateutil": "python-dateutil",
    "docx": "python-docx",
    "dotenv": "python-dotenv",
    "fitz": "pymupdf",
    "git": "gitpython",
    "googleapiclient": "google-api-python-client",
    "igraph": "python-igraph",
    "jwt": "pyjwt",
    "kafka": "kafka-python",
    "ldap": "python-ldap",
    "magic": "python-magic",
    "mpl_toolkits": "matplotlib",
    "MySQLdb": "mysqlclient",
    "OpenSSL": "pyopenssl",
    "PIL": "pillow",
    "pkg_resources": "setuptools",
    "pptx": "python-pptx",
    "prefect_nb": "prefect-nb",
    "psycopg2": "psycopg2-binary",
    "pylab": "matplotlib",
    "serial": "pyserial",
    "skimage": "scikit-image",
    "sklearn": "scikit-learn",
    "slugify": "python-slugify",
    "sql": "jupysql",
    "telegram": "python-telegram-bot",
    "usb": "pyusb",
    "umap": "umap-learn",
    "yaml": "pyyaml",
    "zmq": "pyzmq",
}
_FORGIVING = frozenset({"ImportError", "ModuleNotFoundError", "Exception", "BaseException"})
_INSTALL = re.compile(r"\b(?:pip3?|conda|mamba|uv|micromamba)\b.*?\b(?:install|add)\b(.*)")
_PYTHON = re.compile(r"python(?:3(?:\.\d+)?)?")

# Nothing is imported before the folder is out of the way: a `json.py` in it would be run.
_PROBE = """
import sys
folder = sys.argv[1]
sys.path[:] = [place for place in sys.path if place not in ("", folder)]
import importlib.machinery as machinery, importlib.util, json
asked = json.loads(sys.stdin.read())
sys.path[:0] = [folder, *asked["places"]]

def is_there(name):
    top, _, rest = name.partition(".")
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError, AttributeError):
        return top in sys.modules
    full = top
    while spec is not None and rest:
        if not spec.submodule_search_locations:
            return True
        part, _, rest = rest.partition(".")
        full += "." + part
        spec = machinery.PathFinder.find_spec(full, spec.submodule_search_locations)
    return spec is not None

def refused(source):
    import ast, warnings
    warnings.simplefilter("ignore")
    try:
        compile(source, "<cell>", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
    except SyntaxError as error:
        return str(error.msg)

print(json.dumps({
    "version": list(sys.version_info[:3]),
    "missing": [name for name in asked["names"] if not is_there(name)],
    "refused": [refused(source) for source in asked["sources"]],
}))
"""


class Imported(NamedTuple):
    """A module that a cell imports."""

    name: str
    cell: CheckedCell
    line: int
    is_sure: bool
    """Whether it is imported in any case."""


class Answer(msgspec.Struct):
    """What the interpreter said."""

    version: tuple[int, int, int]
    missing: list[str]
    refused: list[str | None]
    """For each source that this Python cannot read: what that one says; None: it can."""


class Kernel(NamedTuple):
    """The kernel that was chosen."""

    name: str | None
    python: str | None
    findings: list[Finding]
    readable: frozenset[int]
    """Numbers of cells that the kernel's Python can read, although this one cannot."""


def check_kernel(notebook: Mapping[str, Any], asked: str | None, folder: Path, cells: Sequence[CheckedCell]) -> Kernel:
    """Whether there is the kernel, and whether it has what the cells import."""
    try:
        name = choose_kernel(notebook, asked)
    except NotebookError as error:
        return Kernel(None, None, [Finding(level="error", rule="kernel", message=str(error))], frozenset())
    findings: list[Finding] = []
    command, environment = _interpreter(name)
    if command is None:
        note = f"The kernel {name!r} is started by a command of its own: whether it has the imported modules was not checked."
        return Kernel(name, None, [Finding(level="info", rule="kernel", message=note)], frozenset())
    imports, places, is_open = _imports(cells)
    unread = [cell for cell in cells if cell.error is not None]
    answer = _ask(command, environment, folder, {
        "names": list(dict.fromkeys(["ipykernel", *(part for one in imports for part in _parts(one.name))])),
        "places": [str(folder / place) for place in places],
        "sources": [cell.text for cell in unread],
    })  # fmt: skip
    if isinstance(answer, str):
        findings.append(Finding(level=("error" if "not found" in answer else "info"), rule="kernel", message=answer))
        return Kernel(name, None, findings, frozenset())
    if "ipykernel" in answer.missing:
        findings.append(
            Finding(
                level="error", rule="kernel", message=f"The kernel {name!r} cannot start: its Python has no ipykernel.",
                fix=f"{command[0]} -m pip install ipykernel",
            )
        )  # fmt: skip
    installed = _installed(cells)
    missing = {one for one in answer.missing if one != "ipykernel"}
    findings += _missing(imports, missing, installed, folder, name, is_open)
    readable = frozenset(cell.number for cell, said in zip(unread, answer.refused, strict=True) if said is None)
    return Kernel(name, ".".join(map(str, answer.version)), findings, readable)


def _interpreter(name: str) -> tuple[list[str] | None, dict[str, str]]:
    """The command that starts the kernel's Python, and its environment."""
    from jupyter_client.kernelspec import KernelSpecManager

    spec = KernelSpecManager().get_kernel_spec(name)
    provisioner = (spec.metadata or {}).get("kernel_provisioner", {}).get("provisioner_name", "local-provisioner")
    if provisioner != "local-provisioner" or "-m" not in spec.argv:
        return None, {}
    command = list(spec.argv[: spec.argv.index("-m")])
    if not command:
        return None, {}
    if _PYTHON.fullmatch(command[0]):
        command[0] = sys.executable  # as jupyter_client does
    if any("{" in word for word in command):
        return None, {}
    return command, {**os.environ, **spec.env}


def _ask(command: Sequence[str], environment: Mapping[str, str], folder: Path, asked: dict[str, Any]) -> Answer | str:
    where = str(folder)
    try:
        done = subprocess.run(  # noqa: S603 - the kernel's own interpreter, as its specification names it
            [*command, "-c", _PROBE, where], input=json.dumps(asked), cwd=where, env=dict(environment),
            capture_output=True, text=True, timeout=PROBE_SECONDS, check=False,
        )  # fmt: skip
    except FileNotFoundError:
        return f"The kernel cannot start: its interpreter {command[0]} is not found. Install the kernel again."
    except subprocess.TimeoutExpired:
        return f"The kernel's Python did not answer within {PROBE_SECONDS:g} seconds: its modules were not checked."
    except OSError as error:
        return f"The kernel's Python could not be asked ({error}): its modules were not checked."
    try:
        return msgspec.json.decode(done.stdout.strip().rpartition("\n")[2], type=Answer)
    except msgspec.DecodeError:
        why = one_line(done.stderr.strip().rpartition("\n")[2], 200)
        return f"The kernel's Python could not be asked ({why}): its modules were not checked."


def _imports(cells: Sequence[CheckedCell]) -> tuple[list[Imported], list[str], bool]:
    """What the cells import, the folders they add to `sys.path`, and whether they add some that cannot be read."""
    found: list[Imported] = []
    places: list[str] = []
    is_open = False
    for cell in cells:
        for magic in cell.magics:
            word = magic.rest.strip()
            if magic.name == "load_ext" and word and word not in IN_IPYTHON:
                found.append(Imported(word, cell, magic.line, is_sure=True))
            is_open = is_open or magic.name == "cd"
        if cell.tree is None:
            continue
        for node, context in nodes_of(cell.tree):
            match node:
                case ast.Import(names=names) if not context.caught & _FORGIVING:
                    found += [Imported(one.name, cell, node.lineno, context.sure) for one in names]
                case ast.ImportFrom(module=str(module), level=0) if not context.caught & _FORGIVING:
                    found.append(Imported(module, cell, node.lineno, context.sure))
                case ast.Call(func=function, args=[*_, ast.Constant(value=str(place))]) if _adds_place(function):
                    places.append(place)
                case ast.Call(func=function) if _adds_place(function) or dotted(function) == "os.chdir":
                    is_open = True
    return found, places, is_open


def _parts(name: str) -> tuple[str, str]:
    """A module and the package it is in."""
    return name.partition(".")[0], name


def _adds_place(function: ast.expr) -> bool:
    return dotted(function) in ("sys.path.append", "sys.path.insert", "path.append", "path.insert", "site.addsitedir")


def _installed(cells: Sequence[CheckedCell]) -> set[str]:
    """The packages that the notebook itself installs."""
    names = set[str]()
    for cell in cells:
        for command in cell.commands:
            for words in _INSTALL.findall(command):
                names |= {re.split(r"[<>=\[!~ ]", word)[0].lower().replace("_", "-") for word in words.split()}
    return names


def _missing(
    imports: Sequence[Imported], missing: set[str], installed: set[str], folder: Path, kernel: str, is_open: bool
) -> list[Finding]:
    findings: list[Finding] = []
    done = set[str]()
    for one in sorted(imports, key=lambda one: not one.is_sure):
        top = one.name.partition(".")[0]
        name = top if top in missing else one.name
        package = _PIP_NAMES.get(top, top.replace("_", "-"))
        if name not in missing or name in done or {package.lower(), top.lower()} & installed:
            continue
        done.add(name)
        message = f"The kernel {kernel!r} has no module `{name}`"
        if is_open:
            message += " (the notebook changes where modules are looked for: it may be there)"
        # What is inside a package may be made by the package when it is imported.
        level: Level = "error" if one.is_sure and not is_open and name == top else "warning"
        beside = [path.stem for path in folder.glob("*.py")]
        near = did_you_mean(name, beside, 1).strip()
        fix = f"pip install {package}" if name == top else f"Is `{top}` installed in another version?"
        findings.append(one.cell.finding(level, "missing-import", message, f"{near} {fix}".strip(), one.line))
    return findings
