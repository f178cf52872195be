"""One name for plain code and for coroutines: the caller's colour decides."""

import asyncio
import inspect
import threading

from prefect_nb.execution.duality import dual


@dual()
def where() -> int:
    return threading.get_ident()


async def _awaiting(value: int) -> str:
    return f"awaited {value}"


@dual(_awaiting)
def told(value: int) -> str:
    return f"blocked {value}"


def test_plain_code_blocks_even_under_a_running_loop():
    def helper() -> int:
        return where()

    async def main() -> int:
        return helper()

    assert asyncio.run(main()) == threading.get_ident()


def test_a_coroutine_awaits_and_the_work_is_done_elsewhere():
    async def main() -> int:
        return await where()

    assert asyncio.run(main()) != threading.get_ident()


def test_comprehensions_and_lambdas_have_the_colour_of_their_function():
    async def main() -> list[str]:
        call = lambda: told(7)  # noqa: E731
        return await asyncio.gather(*(told(n) for n in range(2)), *[told(n) for n in range(2)], call())

    assert asyncio.run(main()) == ["awaited 0", "awaited 1", "awaited 0", "awaited 1", "awaited 7"]
    assert [told(n) for n in range(2)] == ["blocked 0", "blocked 1"]


def test_both_ways_have_names_of_their_own():
    assert told.sync(1) == "blocked 1"
    awaitable = told.aio(1)
    assert inspect.iscoroutine(awaitable)
    awaitable.close()
