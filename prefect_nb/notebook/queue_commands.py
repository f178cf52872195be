"""`%flow queue`, `cancel`, `move`, `wait` and `clear`: the detached cells of this kernel."""

from __future__ import annotations

import time
from argparse import Namespace
from typing import Any

from IPython.core.error import UsageError

from prefect_nb.exceptions import ObjectNotFound
from prefect_nb.notebook import options
from prefect_nb.notebook.detached import QUEUED, DetachedRun, item_named, queue_of
from prefect_nb.notebook.listing import show
from prefect_nb.notebook.options import Parser
from prefect_nb.service import control, history
from prefect_nb.service.text import one_line

_LOOK_SECONDS = 0.1


def queue_parser(magic: str) -> Parser:
    """Of `%flow queue`."""
    return Parser(
        magic,
        "[-h]",
        "List the cells that `%%flow --detach` has put into the queue: what ended lately, runs and waits.",
    )


def queue(shell: Any, _: Namespace) -> None:
    """Show the queue."""
    show({**queue_of(shell).table()})


def cancel_parser(magic: str) -> Parser:
    """Of `%flow cancel`."""
    parser = Parser(
        magic,
        "what",
        "Cancel a flow run: a cell of the queue by its number or name (one that waits is taken out), or any flow run that\n"
        "is going on, here or in another process, by its name or id.",
        f"example:\n  {magic} 2\n  {magic} proud-otter",
    )
    parser.add_argument("what", help="number or flow name in the queue, or a flow run's name or id")
    return parser


def cancel(shell: Any, chosen: Namespace) -> None:
    """Cancel what is named."""
    waiting = queue_of(shell)
    item = waiting.find(chosen.what)
    if item is not None:
        waiting.cancel(item)
        print(f"{one_line(item.name)} is {_word(item)}.")  # noqa: T201 - it is the magic's output
        return
    try:
        run = history.find_flow_run(chosen.what)
    except ObjectNotFound:
        item_named(waiting, chosen.what)
        raise
    after = control.cancel(run, reason="Cancelled from a notebook.")
    print(f"Flow run {one_line(after.name)} is {after.state_name}.")  # noqa: T201


def move_parser(magic: str) -> Parser:
    """Of `%flow move`."""
    parser = Parser(
        magic, "what place", "Change a waiting cell's place in the queue.", f"example:\n  {magic} nightly 1"
    )
    parser.add_argument("what", help="its number or its flow's name")
    parser.add_argument("place", type=options.positive, help="1: the next to run")
    return parser


def move(shell: Any, chosen: Namespace) -> None:
    """Change the order, and show it."""
    waiting = queue_of(shell)
    waiting.move(item_named(waiting, chosen.what), chosen.place)
    show({**waiting.table()})


def wait_parser(magic: str) -> Parser:
    """Of `%flow wait`."""
    parser = Parser(
        magic, "[what]", "Wait until a detached cell has ended, or all of them. An interrupt ends only the waiting."
    )
    parser.add_argument("what", nargs="?", help="its number or its flow's name (default: all)")
    parser.add_argument("--timeout", type=options.duration, metavar="TIME", help="wait no longer, such as 10m")
    return parser


def wait(shell: Any, chosen: Namespace) -> None:
    """Wait for one item, or all of them."""
    waiting = queue_of(shell)
    items = waiting.open() if chosen.what is None else [item_named(waiting, chosen.what)]
    deadline = None if chosen.timeout is None else time.monotonic() + chosen.timeout
    for item in items:
        while not item.wait(_LOOK_SECONDS):  # in short waits, so that an interrupt is seen everywhere
            if deadline is not None and time.monotonic() > deadline:
                raise UsageError(f"{one_line(item.name)} is still {item.status}.")
    for item in items:
        print(f"{one_line(item.name)} is {_word(item)}.")  # noqa: T201


def clear_parser(magic: str) -> Parser:
    """Of `%flow clear`."""
    return Parser(magic, "[-h]", "Take all waiting cells out of the queue. The one that runs goes on.")


def clear(shell: Any, _: Namespace) -> None:
    """Take out what waits."""
    waiting = queue_of(shell)
    items = [item for item in waiting.open() if item.status == QUEUED]
    for item in items:
        waiting.cancel(item)
    print(f"Taken out: {', '.join(one_line(item.name) for item in items) or 'nothing waited'}.")  # noqa: T201


def _word(item: DetachedRun) -> str:
    state: Any = item.state
    return str(state.name) if state is not None else item.status
