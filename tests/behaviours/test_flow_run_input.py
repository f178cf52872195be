"""Typed values from run to run, and forms."""

import asyncio
from typing import Any
from uuid import UUID, uuid4

import pydantic
import pytest
from answering import somebody, until

from prefect_nb import flow
from prefect_nb.exceptions import ObjectAlreadyExists, ObjectNotFound
from prefect_nb.home import Home
from prefect_nb.input import (
    RunInput,
    create_flow_run_input,
    create_flow_run_input_from_model,
    delete_flow_run_input,
    filter_flow_run_input,
    keyset_from_base_key,
    keyset_from_paused_state,
    read_flow_run_input,
    receive_input,
    send_input,
)
from prefect_nb.input.run_input import AutomaticRunInput, run_input_subclass_from_type
from prefect_nb.interfaces import RunQuery
from prefect_nb.runtime import flow_run as runtime
from prefect_nb.states import Paused, Running, Suspended


class Person(RunInput):
    name: str
    age: int = 30


class Size(pydantic.BaseModel):
    width: int


def me() -> UUID:
    return UUID(str(runtime.id))


def in_a_flow(body: Any) -> Any:
    return flow(body)()


@pytest.fixture
def receiver() -> UUID:
    """A flow run that has ended; values may be sent to it all the same."""
    return in_a_flow(me)


# Sending and receiving


@pytest.mark.parametrize(("value", "type_"), [(5, int), ("a", str), ([1, 2], list), ([1, 2], list[int]), (None, Any)])
def test_plain_values_arrive_as_they_were_sent(receiver: UUID, value: Any, type_: Any) -> None:
    send_input(value, receiver, key_prefix="values")
    assert receive_input(type_, timeout=0, flow_run_id=receiver, key_prefix="values").next() == value


def test_values_are_received_by_their_type_in_the_order_sent(receiver: UUID) -> None:
    for value in ("a", 1, "b", 2):
        send_input(value, receiver)
    assert list(receive_input(str, timeout=0, flow_run_id=receiver)) == ["a", "b"]
    assert list(receive_input(int, timeout=0, flow_run_id=receiver)) == [1, 2]


def test_models_are_sent_and_received(receiver: UUID) -> None:
    Person(name="Ada").send_to(receiver)
    send_input(Size(width=3), receiver)
    person = Person.receive(timeout=0, flow_run_id=receiver).next()
    assert (person.name, person.age) == ("Ada", 30)
    size = receive_input(Size, timeout=0, flow_run_id=receiver).next()
    assert isinstance(size, Size)
    assert size.width == 3


def test_a_value_says_where_it_came_from() -> None:
    def body() -> Any:
        send_input(7, me())
        Person(name="Eve").send_to(me(), sender="a test", key_prefix="people")
        number = receive_input(int, timeout=0, with_metadata=True).next()
        return me(), number, Person.receive(timeout=0, key_prefix="people").next()

    id, number, person = in_a_flow(body)
    assert number.value == 7
    assert number.metadata.key.startswith("intautomaticruninput-auto-")
    assert number.metadata.sender == f"prefect.flow-run.{id}"
    assert number.metadata.receiver == id
    assert person.metadata.key.startswith("people-")
    assert person.metadata.sender == "a test"
    with pytest.raises(AttributeError):
        Person(name="never sent").metadata  # noqa: B018


def test_a_receiver_waits_and_is_woken() -> None:
    @flow
    def receives() -> list[str]:
        return [receive_input(str, timeout=20).next(), *receive_input(str, timeout=0)]

    def send() -> None:
        [run] = until(lambda: Home.current().store.flow_runs(RunQuery()), "the flow run")
        send_input("hello", run.id)

    with somebody(send):
        assert receives() == ["hello", "hello"]  # a new iterator begins at the beginning


def test_an_async_receiver_waits_and_is_woken() -> None:
    @flow
    async def receives() -> list[Any]:
        async def later() -> None:
            await send_input("x", me())
            await Person(name="y").send_to(me())

        sender = asyncio.create_task(later())
        got: list[Any] = []
        async for value in receive_input(str, timeout=20):
            got.append(value)
            break
        got.append((await Person.receive(timeout=20).next()).name)
        await sender
        return got

    assert asyncio.run(receives()) == ["x", "y"]


def test_when_nothing_comes_the_iteration_ends_or_raises(receiver: UUID) -> None:
    assert list(receive_input(int, timeout=0.01, flow_run_id=receiver)) == []
    with pytest.raises(TimeoutError, match="Timed out waiting for input"):
        list(receive_input(int, timeout=0.01, raise_timeout_error=True, flow_run_id=receiver))
    with pytest.raises(TimeoutError):
        receive_input(int, timeout=0.01, flow_run_id=receiver).next()


def test_values_may_be_left_out(receiver: UUID) -> None:
    send_input(1, receiver)
    send_input(2, receiver)
    first = receive_input(int, timeout=0, flow_run_id=receiver, with_metadata=True).next()
    rest = receive_input(int, timeout=0, flow_run_id=receiver, exclude_keys={first.metadata.key})
    assert list(rest) == [2]


def test_a_run_is_answered_by_another() -> None:
    @flow
    def asks(other: UUID) -> Any:
        Person(name="who?").send_to(other)
        return receive_input(str, timeout=0).next()

    @flow
    def answers() -> UUID:
        return me()

    @flow
    def both() -> Any:
        other = answers()
        Person(name="who?").send_to(other)
        question = Person.receive(timeout=0, flow_run_id=other).next()
        question.respond("me")
        return receive_input(str, timeout=0).next()

    assert both() == "me"


def test_only_what_a_run_sent_can_be_answered(receiver: UUID) -> None:
    send_input("q", receiver, sender="somebody")
    question = receive_input(str, timeout=0, flow_run_id=receiver, with_metadata=True).next()
    with pytest.raises(RuntimeError, match="not sent by a flow run"):
        question.respond("a")


def test_nothing_is_sent_to_nowhere() -> None:
    with pytest.raises(ObjectNotFound):
        send_input(1, uuid4())
    with pytest.raises(RuntimeError, match="flow run ID or be within a flow run"):
        receive_input(int)


# Values by key


def test_values_by_key(receiver: UUID) -> None:
    create_flow_run_input("k-1", {"a": [1, None]}, flow_run_id=receiver)
    create_flow_run_input_from_model("k-2", Size(width=2), flow_run_id=receiver, sender="s")
    assert read_flow_run_input("k-1", flow_run_id=receiver) == {"a": [1, None]}
    assert read_flow_run_input("nothing", flow_run_id=receiver) is None
    assert [item.key for item in filter_flow_run_input("k-", limit=5, flow_run_id=receiver)] == ["k-1", "k-2"]
    [second] = filter_flow_run_input("k-", exclude_keys={"k-1"}, flow_run_id=receiver)
    assert (second.decoded_value, second.sender) == ({"width": 2}, "s")
    with pytest.raises(ObjectAlreadyExists):
        create_flow_run_input("k-1", 1, flow_run_id=receiver)
    with pytest.raises(ValueError, match="lowercase letters, numbers, and dashes"):
        create_flow_run_input("Key one", 1, flow_run_id=receiver)
    delete_flow_run_input("k-1", flow_run_id=receiver)
    assert read_flow_run_input("k-1", flow_run_id=receiver) is None
    with pytest.raises(ObjectNotFound):
        delete_flow_run_input("k-1", flow_run_id=receiver)


def test_inside_a_run_its_own_values_are_meant() -> None:
    def body() -> Any:
        create_flow_run_input("k", 1)
        return read_flow_run_input("k")

    assert in_a_flow(body) == 1


async def awaited(receiver: UUID) -> Any:
    await create_flow_run_input("k", 1, flow_run_id=receiver)
    return await read_flow_run_input("k", flow_run_id=receiver)


def test_they_are_awaited_in_coroutines(receiver: UUID) -> None:
    assert asyncio.run(awaited(receiver)) == 1


# Forms


def test_keysets() -> None:
    keys = {"description": "a-1-description", "response": "a-1-response", "schema": "a-1-schema"}
    assert keyset_from_base_key("a-1") == keys
    assert keyset_from_paused_state(Paused(pause_key="x"))["schema"] == "paused-x-schema"
    assert keyset_from_paused_state(Suspended(pause_key="x"))["schema"] == "suspended-x-schema"
    with pytest.raises(RuntimeError, match="'RUNNING' is unsupported"):
        keyset_from_paused_state(Running())
    odd = {keyset_from_paused_state(Paused(pause_key=key))["schema"] for key in ("B 4", "b 4", "b-4")}
    assert len(odd) == 3
    assert Person.keyset_from_type()["response"] == "person-response"


def test_a_form_is_kept_and_its_answer_loaded(receiver: UUID) -> None:
    keys = keyset_from_base_key("form")
    Person.with_initial_data("Who are *you*?", name="Ada").save(keys, receiver)
    schema = read_flow_run_input("form-schema", flow_run_id=receiver)
    assert schema["properties"]["name"] == {"default": "Ada", "title": "Name", "type": "string"}
    assert schema["additionalProperties"] is False
    assert read_flow_run_input("form-description", flow_run_id=receiver) == "Who are *you*?"
    create_flow_run_input("form-response", {"name": "Eve"}, flow_run_id=receiver)
    loaded = Person.load(keys, receiver)
    assert (loaded.name, loaded.age, loaded.metadata.key) == ("Eve", 30, "form-response")


def test_initial_data_leaves_the_form_itself_alone() -> None:
    filled = Person.with_initial_data(name="Ada", age=1)
    assert (filled().name, filled().age) == ("Ada", 1)
    assert filled.__name__ == "Person"
    with pytest.raises(pydantic.ValidationError):
        Person()  # type: ignore[call-arg]


def test_a_form_takes_no_other_fields() -> None:
    with pytest.raises(pydantic.ValidationError):
        Person(name="a", colour="red")  # type: ignore[call-arg]


def test_the_form_of_a_type() -> None:
    assert run_input_subclass_from_type(Person) is Person
    made = run_input_subclass_from_type(Size)
    assert issubclass(made, RunInput)
    assert issubclass(made, Size)
    assert made.__name__ == "SizeRunInput"
    plain = run_input_subclass_from_type(int)
    assert issubclass(plain, AutomaticRunInput)
    assert plain.__name__ == "intAutomaticRunInput"
    assert run_input_subclass_from_type(list[int]).__name__ == "listAutomaticRunInput"
