"""A durable flow of many tasks: `squares.py start COUNT`, `squares.py resume ID [--force]`."""

import sys
from uuid import UUID

from notes import note, say

from prefect_nb import flow, task


@task
def square(n: int) -> int:
    note(f"square {n}")
    return n * n


@flow(durable=True)
def squares(count: int) -> int:
    third = count // 3
    first = [square(n) for n in range(third)]
    at_once = square.map(range(third, 2 * third)).result()
    last = [square(n) for n in range(2 * third, count)]
    return sum([*first, *at_once, *last])


if __name__ == "__main__":
    if sys.argv[1] == "start":
        say(squares(int(sys.argv[2])))
    else:
        say(squares.resume(UUID(sys.argv[2]), force="--force" in sys.argv))
