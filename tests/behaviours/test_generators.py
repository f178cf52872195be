"""Generators and async generators as tasks and flows."""

import asyncio
import time

import pytest

from prefect_nb import flow, get_run_logger, runtime, task
from prefect_nb.exceptions import TaskRunTimeoutError
from prefect_nb.home import Home
from prefect_nb.interfaces import RunQuery
from prefect_nb.states import Completed


def newest_task_run():
    home = Home.current()
    home.ledger.commit()
    return home.store.task_runs(RunQuery(limit=1))[0]


def newest_flow_run():
    home = Home.current()
    home.ledger.commit()
    return home.store.flow_runs(RunQuery(limit=1))[0]


class TestGeneratorTask:
    def test_a_direct_call_yields_the_items_as_they_come(self):
        seen = []

        @task
        def count(n):
            for i in range(n):
                seen.append(i)
                yield i

        @flow
        def main():
            items = count(3)
            first = next(items)
            assert seen == [0]
            return [first, *items]

        assert main() == [0, 1, 2]
        assert newest_task_run().state_name == "Completed"

    def test_it_runs_outside_a_flow(self):
        @task
        def count():
            yield from "ab"

        assert list(count()) == ["a", "b"]

    def test_an_exception_after_some_items_fails_the_run(self):
        @task
        def count():
            yield 1
            raise ValueError("after one")

        items = count()
        assert next(items) == 1
        with pytest.raises(ValueError, match="after one"):
            next(items)
        assert newest_task_run().state_name == "Failed"

    def test_retries_begin_from_the_first_item_again(self):
        calls = []

        @task(retries=1)
        def count():
            calls.append(1)
            yield len(calls)
            if len(calls) == 1:
                raise ValueError("once")

        assert list(count()) == [1, 2]
        assert newest_task_run().run_count == 2

    def test_what_the_consumer_does_between_two_items_is_not_in_the_task(self):
        @task
        def count():
            yield runtime.task_run.name
            yield runtime.task_run.name

        between = [(inside, runtime.task_run.name) for inside in count()]
        assert between == [("count", None), ("count", None)]

    def test_a_consumer_who_has_enough_ends_the_run_well(self):
        closed = []

        @task
        def count():
            try:
                yield 1
                yield 2
            finally:
                closed.append(True)

        items = count()
        next(items)
        items.close()
        assert closed == [True]
        assert newest_task_run().state_name == "Completed"

    def test_values_sent_in_reach_the_body(self):
        @task
        def echo():
            got = yield "first"
            yield f"got {got}"

        items = echo()
        assert next(items) == "first"
        assert items.send("this") == "got this"

    def test_an_exception_thrown_in_reaches_the_body(self):
        @task
        def careful():
            try:
                yield 1
            except KeyError:
                yield "caught"

        items = careful()
        next(items)
        assert items.throw(KeyError("x")) == "caught"

    def test_the_timeout_counts_the_bodys_own_time(self):
        @task(timeout_seconds=0.3)
        def slow():
            yield 1
            while True:
                time.sleep(0.01)

        items = slow()
        next(items)
        with pytest.raises(TaskRunTimeoutError):
            next(items)
        assert newest_task_run().state_name == "TimedOut"

    def test_submit_gives_the_list_of_the_items(self):
        @task
        def count(n):
            yield from range(n)

        @flow
        def main():
            return count.submit(3).result(), count.map([1, 2]).result()

        assert main() == ([0, 1, 2], [[0], [0, 1]])

    def test_return_state_gives_the_state_with_the_list(self):
        @task
        def count():
            yield 1
            yield 2

        assert count(return_state=True).result() == [1, 2]

    def test_an_item_remembers_the_run_it_came_from(self):
        @task
        def rows():
            yield {"row": 1}

        @task
        def use(row):
            return row

        @flow
        def main():
            for row in rows():
                use(row)

        main()
        runs = {run.name.split("-")[0]: run for run in Home.current().store.task_runs(RunQuery(limit=9))}
        assert runs["use"].task_inputs["row"] == [{"input_type": "task_run", "id": str(runs["rows"].id)}]

    def test_kept_items_are_yielded_again_on_a_hit(self):
        calls = []

        @task(persist_result=True)
        def count():
            calls.append(1)
            yield from (10, 20)

        @flow
        def main():
            return list(count()), list(count())

        assert main() == ([10, 20], [10, 20])
        assert len(calls) == 1

    def test_tasks_called_inside_are_its_children(self):
        @task
        def inner(x):
            return x * 2

        @task
        def outer():
            yield inner(1)
            yield inner.submit(2).result()

        @flow
        def main():
            return list(outer())

        assert main() == [2, 4]

    def test_methods_may_be_generators(self):
        class Source:
            def __init__(self, n):
                self.n = n

            @task
            def items(self):
                yield from range(self.n)

        assert list(Source(2).items()) == [0, 1]


class TestAsyncGeneratorTask:
    async def test_async_for_iterates(self):
        @task
        async def count(n):
            for i in range(n):
                await asyncio.sleep(0)
                yield i

        @flow
        async def main():
            return [i async for i in count(3)]

        assert await main() == [0, 1, 2]
        assert newest_task_run().state_name == "Completed"

    async def test_an_exception_fails_the_run(self):
        @task
        async def count():
            yield 1
            raise ValueError("later")

        with pytest.raises(ValueError, match="later"):
            async for _ in count():
                pass
        assert newest_task_run().state_name == "Failed"

    async def test_leaving_the_loop_ends_the_run_well(self):
        @task
        async def count():
            yield 1
            yield 2

        items = count()
        assert await anext(items) == 1
        await items.aclose()
        assert newest_task_run().state_name == "Completed"

    async def test_retries_begin_again(self):
        calls = []

        @task(retries=1)
        async def count():
            calls.append(1)
            yield len(calls)
            if len(calls) == 1:
                raise ValueError("once")

        assert [i async for i in count()] == [1, 2]

    async def test_the_timeout_counts(self):
        @task(timeout_seconds=0.1)
        async def slow():
            yield 1
            await asyncio.sleep(30)

        items = slow()
        await anext(items)
        with pytest.raises(TaskRunTimeoutError):
            await anext(items)

    def test_submit_gives_the_list(self):
        @task
        async def count():
            yield 1
            yield 2

        @flow
        def main():
            return count.submit().result()

        assert main() == [1, 2]


class TestGeneratorFlow:
    def test_items_are_yielded_and_the_run_completes_at_the_end(self):
        @task
        def double(x):
            return 2 * x

        @flow
        def numbers(n: int):
            for i in range(n):
                yield double(i)

        items = numbers("3")
        assert next(items) == 0
        assert newest_flow_run().state_name == "Running"
        assert list(items) == [2, 4]
        assert newest_flow_run().state_name == "Completed"

    def test_an_exception_fails_the_run_and_is_raised(self):
        @flow
        def numbers():
            yield 1
            raise ValueError("no more")

        items = numbers()
        next(items)
        with pytest.raises(ValueError, match="no more"):
            next(items)
        assert newest_flow_run().state_name == "Failed"

    def test_retries_begin_again(self):
        calls = []

        @flow(retries=1)
        def numbers():
            calls.append(1)
            yield len(calls)
            if len(calls) == 1:
                raise ValueError("once")

        assert list(numbers()) == [1, 2]

    def test_the_logger_and_the_context_are_there_only_inside(self):
        @flow
        def numbers():
            get_run_logger().info("inside")
            yield runtime.flow_run.flow_name
            yield runtime.flow_run.flow_name

        assert [(inside, runtime.flow_run.flow_name) for inside in numbers()] == [("numbers", None)] * 2

    def test_a_generator_flow_inside_a_flow(self):
        @flow
        def child():
            yield 1
            yield 2

        @flow
        def parent():
            return list(child())

        assert parent() == [1, 2]

    def test_what_it_returns_is_judged_as_in_any_flow(self):
        @flow
        def numbers():
            yield 1
            return Completed(message="fine")

        assert list(numbers()) == [1]
        assert newest_flow_run().state_message == "fine"

    async def test_async_generator_flows(self):
        @flow
        async def numbers():
            yield 1
            await asyncio.sleep(0)
            yield 2

        assert [i async for i in numbers()] == [1, 2]
        assert newest_flow_run().state_name == "Completed"

    async def test_an_exception_in_an_async_generator_flow(self):
        @flow
        async def numbers():
            yield 1
            raise ValueError("no more")

        with pytest.raises(ValueError, match="no more"):
            async for _ in numbers():
                pass
        assert newest_flow_run().state_name == "Failed"
