"""Rules on the text of the repository's own files. The patterns are spelled so that they do not match themselves."""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MOST_LINES = 600

MACHINE_PATHS = re.compile(r"(?<![\w.])/(?:wor[k]|far[m]|roo[t]|tm[p])/[\w.]")
DOWNLOAD_HOSTS = re.compile(r'"resolved": *"http[s]?://|__archive[U]rl|--(?:extra-)?inde[x]-url')
WHO_WROTE_IT = re.compile(
    r"\b(?:this (?:coding )?sessio[n]|developer sessio[n]|cl[a]ude|anthropi[c]|chatgp[t]|language model wrot[e]|subagen[t])\b",
    re.IGNORECASE,
)
# Nobody's words: what a package manager writes.
LOCK_FILES = {"labextension/package-lock.json"}


def repository_files() -> Iterator[str]:
    """Paths of the files that are tracked or about to be, without deleted ones."""
    listing = subprocess.run(
        ["git", "-c", f"safe.directory={ROOT}", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in sorted(set(listing.stdout.split("\0"))):
        if name and (ROOT / name).is_file():
            yield name


def lines_that_match(pattern: re.Pattern[str]) -> list[str]:
    found = []
    for name in repository_files():
        try:
            text = (ROOT / name).read_text()
        except UnicodeDecodeError:
            continue
        found += [f"{name}:{n}: {line[:200]}" for n, line in enumerate(text.splitlines(), 1) if pattern.search(line)]
    return found


def test_no_paths_of_one_machine():
    assert lines_that_match(MACHINE_PATHS) == []


def test_no_download_hosts():
    assert lines_that_match(DOWNLOAD_HOSTS) == []


def test_the_project_speaks_of_itself_alone():
    assert [line for line in lines_that_match(WHO_WROTE_IT) if line.split(":")[0] not in LOCK_FILES] == []


def test_no_file_is_too_long_to_read_at_once():
    lengths = {
        file.relative_to(ROOT).as_posix(): len(file.read_text().splitlines())
        for file in (ROOT / "prefect_nb").rglob("*.py")
    }

    assert {name: length for name, length in lengths.items() if length > MOST_LINES} == {}


def test_every_room_says_what_it_is():
    assert [
        file.relative_to(ROOT).as_posix()
        for file in sorted((ROOT / "prefect_nb").rglob("*.py"))
        if not file.read_text().startswith(('"""', 'r"""'))
    ] == []


@pytest.mark.parametrize(
    ("pattern", "line"),
    [
        (MACHINE_PATHS, "open('/" + "tmp/x.db')"),
        (MACHINE_PATHS, "cd /" + "root/notes"),
        (DOWNLOAD_HOSTS, "pip install --" + "index-url x"),
        (WHO_WROTE_IT, "as Cl" + "aude said"),
    ],
)
def test_the_patterns_see(pattern: re.Pattern[str], line: str):
    assert pattern.search(line)


@pytest.mark.parametrize("line", ["example.com/root/index.html", "`~/.prefect_nb`", "a/tmp/b", "/workers/1"])
def test_the_patterns_let_pass(line: str):
    assert not MACHINE_PATHS.search(line)
