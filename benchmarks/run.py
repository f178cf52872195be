"""Run the same work with prefect_nb and with Prefect beside it, and write medians and ratios as a table.

    python benchmarks/run.py [--only direct,submit,...] [--peer-venv FOLDER] [--no-peer] [--out FILE]

README.md in this folder says what each row means.
"""

import argparse
import contextlib
import datetime as dt
import os
import platform
import sys
import tempfile
from pathlib import Path

from rows import ROWS, Bench
from sides import ours, peer_python, peer_server
from table import Result, render

HERE = Path(__file__).parent


def main() -> int:
    """Run the rows and write the table; the exit code."""
    arguments = parse()
    results: list[Result] = []
    with contextlib.ExitStack() as stack:
        scratch = Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="benchmark-", ignore_cleanup_errors=True))
        )
        python = None if arguments.no_peer else peer_python(arguments.peer_venv)
        bench = Bench(
            scratch=scratch,
            ours=ours(scratch / "ours"),
            peer=stack.enter_context(peer_server(python, folder(scratch / "peer"))) if python else None,
            tasks=arguments.tasks,
            repeat=arguments.repeat,
            peer_repeat=arguments.peer_repeat,
        )
        for name in arguments.only or ROWS:
            print(f"{name} ...", flush=True)
            for result in ROWS[name](bench):
                print(f"  {result.line()}", flush=True)
                results.append(result)
            # After every row, so that a run that is broken off leaves what it has.
            arguments.out.write_text(f"{heading(arguments)}\n{render(results)}")
    print(f"written to {arguments.out}")
    return 0


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", type=row_names, metavar="ROW,...", help=f"some of: {', '.join(ROWS)}")
    parser.add_argument(
        "--peer-venv",
        type=Path,
        metavar="FOLDER",
        default=Path(tempfile.gettempdir()) / "prefect-nb-benchmark-peer",
        help="Prefect's virtual environment, made if it is not there (default: %(default)s)",
    )
    parser.add_argument("--no-peer", action="store_true", help="measure prefect_nb only")
    parser.add_argument("--tasks", type=int, default=1000, metavar="N", help="task runs in a flow (default: 1000)")
    parser.add_argument("--repeat", type=int, default=3, metavar="N", help="processes a row, ours (default: 3)")
    parser.add_argument("--peer-repeat", type=int, default=1, metavar="N", help="processes a row, Prefect (default: 1)")
    parser.add_argument("--out", type=Path, default=HERE / "results.md", metavar="FILE", help="default: %(default)s")
    return parser.parse_args()


def row_names(text: str) -> list[str]:
    """The rows named in `text`, separated by commas."""
    names = [name.strip() for name in text.split(",")]
    unknown = [name for name in names if name not in ROWS]
    if unknown:
        raise argparse.ArgumentTypeError(f"no row is named {', '.join(unknown)}; there are {', '.join(ROWS)}")
    return names


def folder(path: Path) -> Path:
    """`path`, made."""
    path.mkdir(parents=True)
    return path


def heading(arguments: argparse.Namespace) -> str:
    """Where, when and how the table was made."""
    day = dt.datetime.now(dt.UTC).date()
    beside = "without Prefect" if arguments.no_peer else "Prefect 3.8.4 in the same run"
    return (
        f"# Speed\n\n"
        f"{day}, Python {platform.python_version()}, {platform.system()} {platform.machine()}, {os.cpu_count()} cores, "
        f"load {os.getloadavg()[0]:.1f}; {arguments.tasks:,} tasks a flow; medians; {beside}.\n"
        f"Made by `python benchmarks/run.py`; README.md in that folder says what each row means.\n"
    )


if __name__ == "__main__":
    sys.exit(main())
