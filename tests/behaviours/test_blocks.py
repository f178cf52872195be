"""Blocks: saved by type and name, loaded as what they were, their secrets encrypted."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, Field, SecretStr

from prefect_nb import flow, task
from prefect_nb.blocks.abstract import CredentialsBlock, DatabaseBlock
from prefect_nb.blocks.core import Block, BlockNotSavedError, InvalidBlockRegistration, UnknownBlockType, load_by_slug
from prefect_nb.blocks.system import Secret
from prefect_nb.execution.blocks import types_by_slug
from prefect_nb.types import SecretDict


class Login(Block):
    _block_type_name = "A Login"

    user: str = "ada"
    password: SecretStr


class Warehouse(Block):
    """Where the data is.

    Attributes:
        url: its address.
    """

    url: str
    login: Login
    options: dict[str, Any] = Field(default_factory=dict)
    tokens: SecretDict | None = None

    def block_initialization(self) -> None:
        self._connected = f"to {self.url}"


class Plain(Block):
    x: int


@pytest.fixture(autouse=True)
def classes():
    before = dict(types_by_slug)
    yield
    types_by_slug.clear()
    types_by_slug.update(before)


def database(home: Path) -> bytes:
    from prefect_nb.home import Home

    Home.current().close()
    return b"".join(path.read_bytes() for path in home.iterdir() if path.is_file())


class TestSavingAndLoading:
    def test_what_was_saved_is_loaded(self):
        id = Plain(x=3).save("three")

        found = Plain.load("three")

        assert found == Plain.load("three")
        assert found.x == 3
        assert (found._block_document_id, found._block_document_name, found._is_anonymous) == (id, "three", False)

    def test_the_base_class_loads_any_type_by_its_slug(self):
        Login(password="hunter22").save("main")

        found = Block.load("a-login/main")

        assert type(found) is Login
        assert load_by_slug("a-login/main") == found

    def test_a_name_is_taken_until_it_is_overwritten(self):
        block = Plain(x=1)
        id = block.save("one")

        with pytest.raises(ValueError, match="already in use"):
            Plain(x=2).save("one")
        assert Plain(x=2).save("one", overwrite=True) == id
        assert Plain.load("one").x == 2

    def test_a_loaded_block_is_saved_under_its_own_name(self):
        Plain(x=1).save("one")
        block = Plain.load("one")
        block.x = 5

        block.save(overwrite=True)

        assert Plain.load("one").x == 5

    @pytest.mark.parametrize("name", ["Upper", "under_score", "sp ace", "a/b", "ü"])
    def test_names_have_lower_case_letters_digits_and_dashes(self, name: str):
        with pytest.raises(ValueError, match="must only contain lowercase letters, numbers, and dashes"):
            Plain(x=1).save(name)

    def test_a_name_is_needed(self):
        with pytest.raises(ValueError, match="without a name"):
            Plain(x=1).save()

    def test_a_block_that_is_not_there(self):
        Plain(x=1).save("one")

        with pytest.raises(ValueError, match="Unable to find block document named two for block type plain"):
            Plain.load("two")
        with pytest.raises(ValueError, match="Unable to find block document named one for block type a-login"):
            Login.load("one")
        with pytest.raises(ValueError, match="Unable to find block document named two for block type plain"):
            Block.load("plain/two")

    def test_deleting(self):
        Plain(x=1).save("one")

        Plain.delete("one")

        with pytest.raises(ValueError, match="Unable to find"):
            Plain.load("one")
        with pytest.raises(ValueError, match="Unable to find"):
            Plain.delete("one")

    def test_by_reference(self):
        id = Plain(x=1).save("one")

        assert Plain.load_from_ref(id).x == 1
        assert Plain.load_from_ref(str(id)).x == 1
        assert Plain.load_from_ref({"block_document_id": str(id)}).x == 1
        assert Block.load_from_ref({"block_document_slug": "plain/one"}).x == 1
        with pytest.raises(ValueError, match="not a valid UUID"):
            Plain.load_from_ref("plain/one")

    def test_in_coroutines(self):
        async def story() -> list[int]:
            await Plain(x=1).save("one")
            await Plain(x=2).asave("two")
            found = [await Plain.load("one"), await Plain.aload("two"), await Block.load("plain/one")]
            await Plain.adelete("one")
            await Plain.delete("two")
            return [block.x for block in found]

        assert asyncio.run(story()) == [1, 2, 1]

    def test_other_processes_see_it(self, prefect_nb_home: Path):
        from prefect_nb.home import close_all

        Warehouse(url="u", login=Login(password="hunter22")).save("main")
        close_all()

        assert Warehouse.load("main").login.password.get_secret_value() == "hunter22"

    def test_data_that_looks_like_ours_is_the_users(self):
        tricky = {"$secret": "x", "deep": {"$block": "y"}, "list": [{"$inline": {"$plain": 1}}]}
        Warehouse(url="u", login=Login(password="hunter22"), options=tricky).save("main")
        Warehouse(url="u", login=Login(password="hunter22"), options={"$plain": {"$secret": 1}}).save("other")

        assert Warehouse.load("main").options == tricky
        assert Warehouse.load("other").options == {"$plain": {"$secret": 1}}

    def test_aliases_and_unknown_fields_survive(self):
        class Odd(Block):
            kind: str = Field(alias="type")

        Odd(type="a", extra=[1, 2]).save("odd")

        found = Odd.load("odd")
        assert (found.kind, found.extra) == ("a", [1, 2])

    def test_what_initialization_made_is_made_again_and_no_field(self):
        block = Warehouse(url="u", login=Login(password="hunter22"))
        block.save("main")

        assert Warehouse.load("main")._connected == "to u"
        assert "_connected" not in repr(block)


class TestNesting:
    def test_a_saved_block_is_referred_to(self):
        login = Login(password="hunter22")
        login.save("main")
        Warehouse(url="u", login=login).save("one")
        login.password = SecretStr("changed1")
        login.save(overwrite=True)

        assert Warehouse.load("one").login.password.get_secret_value() == "changed1"

    def test_one_that_was_not_saved_is_kept_inside(self):
        Warehouse(url="u", login=Login(user="bob", password="hunter22")).save("one")

        found = Warehouse.load("one").login

        assert (type(found), found.user, found.password.get_secret_value()) == (Login, "bob", "hunter22")
        assert found._block_document_id is None

    def test_a_subclass_stays_one(self):
        class Special(Login):
            extra: int = 1

        Warehouse(url="u", login=Special(password="hunter22", extra=7)).save("one")

        assert type(Warehouse.load("one").login) is Special

    def test_the_nested_block_is_gone(self):
        login = Login(password="hunter22")
        login.save("main")
        Warehouse(url="u", login=login).save("one")
        Login.delete("main")

        with pytest.raises(RuntimeError, match="Unable to load 'one' of block type 'warehouse'"):
            Warehouse.load("one")

    def test_models_inside(self):
        class Part(BaseModel):
            pin: SecretStr

        class Whole(Block):
            parts: list[Part]

        Whole(parts=[Part(pin="123456"), Part(pin="654321")]).save("w")

        assert [part.pin.get_secret_value() for part in Whole.load("w").parts] == ["123456", "654321"]


class TestSecrets:
    def test_they_are_encrypted_in_the_database(self, prefect_nb_home: Path):
        Warehouse(url="u", login=Login(password="CANARY-1"), tokens={"a": "CANARY-2"}).save("main")
        Secret(value={"deep": ["CANARY-3"]}).save("three")

        data = database(prefect_nb_home)

        assert b"CANARY" not in data
        assert b"$secret" in data

    def test_they_are_readable_once_loaded(self):
        Warehouse(url="u", login=Login(password="CANARY-1"), tokens={"a": "CANARY-2"}).save("main")

        found = Warehouse.load("main")

        assert found.login.password.get_secret_value() == "CANARY-1"
        assert found.tokens is not None
        assert found.tokens.get_secret_value() == {"a": "CANARY-2"}

    def test_they_are_not_shown(self):
        block = Login(password="CANARY-1")

        shown = [repr(block), str(block), str(block.model_dump()), block.model_dump_json()]

        assert not [text for text in shown if "CANARY" in text]

    def test_who_asks_gets_them(self):
        block = Warehouse(url="u", login=Login(password="hunter22"), tokens={"a": 1})

        shown = block.model_dump(mode="json", context={"include_secrets": True})

        assert shown["login"]["password"] == "hunter22"
        assert shown["tokens"] == {"a": 1}

    @pytest.mark.parametrize("value", ["text", {"a": 1}, ["x", 2], 5, 1.5, True])
    def test_a_secret_of_any_json_kind(self, value: Any):
        Secret(value=value).save("s")

        assert Secret(value=value).get() == value
        assert Secret.load("s").get() == value

    def test_a_text_that_is_json_is_what_it_says(self):
        assert Secret(value=json.dumps({"a": 2})).get() == {"a": 2}

    def test_a_secret_of_a_given_type(self):
        assert Secret[int](value=5).get() == 5
        assert Secret[int].get_block_type_slug() == "secret"

    def test_in_a_flow(self):
        Secret(value="hunter22").save("token")

        @task
        def use() -> int:
            return len(Secret.load("token").get())

        @flow
        def work() -> int:
            return use()

        assert work() == 8

    def test_types_of_ours_need_no_import(self):
        Secret(value="hunter22").save("token")
        types_by_slug.pop("secret")

        import sys

        sys.modules.pop("prefect_nb.blocks.system")
        assert Block.load("secret/token").get() == "hunter22"


class TestTypes:
    def test_names_and_slugs(self):
        assert (Login.get_block_type_name(), Login.get_block_type_slug()) == ("A Login", "a-login")
        assert (Plain.get_block_type_name(), Plain.get_block_type_slug()) == ("Plain", "plain")

    def test_description_and_example(self):
        assert Warehouse.get_description() == "Where the data is."
        assert 'Warehouse.load("BLOCK_NAME")' in (Warehouse.get_code_example() or "")

    def test_a_type_that_nobody_defined_is_not_looked_for_by_its_import_path(self):
        class Gone(Block):
            x: int = 1

        Gone().save("g")
        types_by_slug.pop("gone")

        with pytest.raises(UnknownBlockType, match="No block class found for slug 'gone'"):
            Block.load("gone/g")
        with pytest.raises(UnknownBlockType):
            Block.get_block_class_from_key("os.system")

    def test_registering(self):
        from prefect_nb.service import blocks

        Warehouse.register_type_and_schema()

        (found,) = blocks.types()
        assert (found.slug, found.name) == ("warehouse", "Warehouse")
        assert found.schema["secret_fields"] == ["login.password", "tokens.*"]
        with pytest.raises(InvalidBlockRegistration):
            Block.register_type_and_schema()

    def test_a_class_that_has_changed(self):
        class Changing(Block):
            x: int

        Changing(x=1).save("c")

        class Changing(Block):  # type: ignore[no-redef]
            x: int
            z: int

        with pytest.raises(RuntimeError, match="try loading again with `validate=False`"):
            Changing.load("c")
        with pytest.warns(UserWarning, match="Could not fully load 'c' of block type 'changing'"):
            found = Changing.load("c", validate=False)
        assert (found.x, found.z) == (1, None)

    def test_a_dump_of_another_type_is_refused(self):
        assert Plain.model_validate(Plain(x=1).model_dump()) == Plain(x=1)
        with pytest.raises(ValueError, match="expected block_type_slug 'plain'"):
            Plain.model_validate({"x": 1, "block_type_slug": "warehouse"})

    def test_placeholder(self):
        block = Plain(x=1)
        with pytest.raises(BlockNotSavedError):
            block.get_block_placeholder()
        block.save("one")
        assert block.get_block_placeholder() == "prefect.blocks.plain.one"

    def test_is_a_block_class(self):
        assert Block.is_block_class(Plain)
        assert not Block.is_block_class(Plain(x=1))
        assert Block.annotation_refers_to_block_class(Plain | None)
        assert not Block.annotation_refers_to_block_class(int | None)


class TestAbstractBlocks:
    def test_they_say_what_is_missing(self):
        with pytest.raises(TypeError, match="get_client"):
            CredentialsBlock()

    def test_they_have_a_logger(self):
        class Creds(CredentialsBlock):
            def get_client(self) -> int:
                return 1

        @flow
        def work() -> str:
            return Creds().logger.extra["flow_name"]

        assert Creds().logger.name == "prefect.Creds"
        assert work() == "work"

    def test_a_database_without_contexts(self):
        class Db(DatabaseBlock):
            def fetch_one(self, *args: Any, **kwargs: Any) -> Any: ...
            def fetch_many(self, *args: Any, **kwargs: Any) -> Any: ...
            def fetch_all(self, *args: Any, **kwargs: Any) -> Any: ...
            def execute(self, *args: Any, **kwargs: Any) -> Any: ...
            def execute_many(self, *args: Any, **kwargs: Any) -> Any: ...

        with pytest.raises(NotImplementedError, match="Db does not support context management"), Db():
            pass
