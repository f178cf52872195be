"""What a function only writes to is no part of its key; whatever it may read is."""

from collections.abc import Callable
from typing import Any

import pytest

from prefect_nb.model.code_fingerprints import code_parts
from prefect_nb.model.code_writes import written_only

seen: list[Any] = []
counts: dict[str, int] = {"n": 0}


class Box:
    """Something with an attribute."""

    value = 0


box = Box()
total = 0


def appends(x: int) -> int:
    seen.append(x)
    return x


def raises_a_counter(x: int) -> int:
    counts["n"] += 1
    return x


def stores_an_item(x: int) -> int:
    counts["n"] = x
    return x


def sets_an_attribute(x: int) -> int:
    box.value = x
    return x


def raises_an_attribute(x: int) -> int:
    box.value += x
    return x


def raises_a_global(x: int) -> int:
    global total
    total += 1
    return x


def reads_the_length(x: int) -> int:
    seen.append(x)
    return len(seen)


def reads_an_item(x: int) -> int:
    counts["n"] += 1
    return counts["n"] + x


def uses_the_answer(x: int) -> Any:
    return seen.append(x)


def stores_it_elsewhere(x: int) -> int:
    held = {}
    held["seen"] = seen
    return x + len(held)


def reads_a_global(x: int) -> int:
    global total
    total += 1
    return total + x


def chooses(x: int) -> int:
    seen.append(x if counts else 0)
    return x


@pytest.mark.parametrize(
    ("fn", "name"),
    [
        (appends, "seen"),
        (raises_a_counter, "counts"),
        (stores_an_item, "counts"),
        (sets_an_attribute, "box"),
        (raises_an_attribute, "box"),
        (raises_a_global, "total"),
    ],
)
def test_a_name_that_is_only_written_is_left_out(fn: Callable[..., Any], name: str) -> None:
    assert name in written_only(fn.__code__)
    assert name not in {part.name for part in code_parts(fn)}


@pytest.mark.parametrize(
    ("fn", "name"),
    [
        (reads_the_length, "seen"),
        (reads_an_item, "counts"),
        (uses_the_answer, "seen"),
        (stores_it_elsewhere, "seen"),
        (reads_a_global, "total"),
        (chooses, "counts"),
    ],
)
def test_a_name_that_may_be_read_counts(fn: Callable[..., Any], name: str) -> None:
    assert name not in written_only(fn.__code__)
    assert name in {part.name for part in code_parts(fn)}


def test_a_closure_that_is_only_raised_is_left_out() -> None:
    count = 0

    def counts_calls(x: int) -> int:
        nonlocal count
        count += 1
        return x

    before = code_parts(counts_calls)
    counts_calls(1)
    assert code_parts(counts_calls) == before
