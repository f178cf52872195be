"""Whatever a person can type is mentioned in the README or shown in an example notebook."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import msgspec
import nbformat
import pytest

ROOT = Path(__file__).parents[2]

# Prints the magics that the extension adds to a shell. In a process of its own: a shell takes over `__main__`.
_LIST_MAGICS = """
import json
from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config

shell = InteractiveShell(config=Config({"HistoryManager": {"enabled": False}}))
before = {kind: set(names) for kind, names in shell.magics_manager.magics.items()}
shell.run_line_magic("load_ext", "prefect_nb")
after = shell.magics_manager.magics
marks = {"line": "%", "cell": "%%"}
print(json.dumps([marks[kind] + name for kind in marks for name in sorted(set(after[kind]) - before[kind])]))
"""


@pytest.fixture(scope="module")
def documents() -> str:
    """The README and every cell of the example notebooks."""
    texts = [(ROOT / "README.md").read_text()]
    for path in sorted((ROOT / "example_notebooks").glob("*.ipynb")):
        texts += [cell.source for cell in nbformat.read(path, as_version=4).cells]
    return "\n".join(texts)


def is_mentioned(phrase: str, text: str) -> bool:
    """Whether a phrase stands in the text on its own, not as part of a longer word or magic."""
    words = r"\s+".join(re.escape(word) for word in phrase.split())
    return re.search(rf"(?<![\w%]){words}(?![\w-])", text) is not None


def commands(command: click.Command, path: tuple[str, ...]) -> Iterator[str]:
    """The full name of every command that does something: `prefect-nb run`, `flow-run ls`."""
    if command.hidden:
        return
    if isinstance(command, click.Group):
        for name, child in command.commands.items():
            yield from commands(child, (*path, name))
    else:
        yield " ".join(path[1:] if len(path) > 2 else path)


def test_every_public_name(documents: str):
    import prefect_nb

    assert [name for name in prefect_nb.__all__ if not is_mentioned(name, documents)] == []


def test_every_command(documents: str):
    from prefect_nb import cli

    assert [name for name in commands(cli.main, ("prefect-nb",)) if not is_mentioned(name, documents)] == []


def test_every_magic(documents: str):
    listing = subprocess.run([sys.executable, "-c", _LIST_MAGICS], capture_output=True, text=True, check=True)
    magics = json.loads(listing.stdout.splitlines()[-1])

    assert magics, "the extension registers no magic"
    assert [magic for magic in magics if not is_mentioned(magic, documents)] == []


def test_every_setting(documents: str):
    from prefect_nb.settings import Settings, environment_names

    variables = [environment_names(field.name)[0] for field in msgspec.structs.fields(Settings)]
    assert [variable for variable in variables if not is_mentioned(variable, documents)] == []


def test_readme_has_the_two_commands():
    blocks = re.findall(r"^```bash\n(.*?)^```$", (ROOT / "README.md").read_text(), re.DOTALL | re.MULTILINE)

    assert [len(block.splitlines()) for block in blocks[:2]] == [1, 1]
    assert "prefect-nb run example_notebooks/" in blocks[0]
    assert blocks[1].strip() == "bash scripts/test.sh"


@pytest.mark.parametrize(
    ("phrase", "text", "expected"),
    [
        ("flow", "use `flow`.", True),
        ("flow", "a workflow_run", False),
        ("flow", "a flow-run", False),
        ("%runs", "`%runs -h`", True),
        ("%flow", "%%flow clean", False),
        ("%%flow", "%%flow clean", True),
        ("flow-run ls", "prefect-nb flow-run ls", True),
        ("flow-run ls", "flow-run inspect | ls", False),
    ],
)
def test_mentions_are_seen(phrase: str, text: str, expected: bool):
    assert is_mentioned(phrase, text) is expected


def test_commands_are_seen():
    group = click.Group(
        "main", commands=[click.Command("run"), click.Group("flow-run", commands=[click.Command("ls")])]
    )
    group.add_command(click.Command("secret", hidden=True))

    assert list(commands(group, ("prefect-nb",))) == ["prefect-nb run", "flow-run ls"]
