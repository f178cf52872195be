"""Where results are kept: paths, URLs, storage objects and blocks; under keys; and read again by other processes."""

import os
import subprocess
import sys
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from prefect_nb import flow, task
from prefect_nb.exceptions import ConfigurationError, InvalidNameError, MissingResult, StoreUnavailable
from prefect_nb.filesystems import LocalFileSystem, RemoteFileSystem
from prefect_nb.home import Home
from prefect_nb.results import ResultStore, ResultStores, get_result_store, remote, should_persist_result
from prefect_nb.service.results import state_of


@pytest.fixture(scope="session")
def object_store() -> Iterator[str]:
    """A server of the S3 protocol on a free port of this machine; its address."""
    import logging

    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def bucket(object_store: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """A new bucket; the environment has what reaches it."""
    import s3fs

    for name, value in {
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_ENDPOINT_URL": object_store,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_CONFIG_FILE": str(tmp_path / "none"),
        "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "none"),
    }.items():
        monkeypatch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()
    name = f"bucket-{os.urandom(6).hex()}"
    s3fs.S3FileSystem().mkdir(name)
    return name


def objects(bucket: str) -> list[str]:
    import s3fs

    files = s3fs.S3FileSystem()
    files.invalidate_cache()
    return sorted(path.removeprefix(f"{bucket}/") for path in files.find(bucket))


@pytest.fixture
def stores(tmp_path: Path) -> ResultStores:
    return ResultStores(tmp_path / "home" / "results")


def again(stores: ResultStores) -> ResultStores:
    """The same home as another process sees it."""
    return ResultStores(stores.own.root)


# -------------------------------------------------------------------------------------------------------- kinds of storage


@pytest.mark.parametrize("kind", ["path", "text", "url", "object"])
def test_a_folder_may_be_named_in_several_ways(stores: ResultStores, tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "elsewhere"
    storage: Any = {
        "path": folder,
        "text": str(folder),
        "url": f"file://{folder}",
        "object": LocalFileSystem(basepath=str(folder)),
    }[kind]

    reference = stores.at(storage).put({"a": 1})

    assert reference.storage == str(folder)
    assert (folder / ".content" / reference.sha256[:2] / reference.sha256).exists()
    assert again(stores).get(reference) == {"a": 1}
    assert again(stores).check(reference)
    assert not stores.own.root.exists()


def test_a_relative_path_means_the_folder_it_meant_when_it_was_used(
    stores: ResultStores, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    reference = stores.at("out").put(1)
    (tmp_path / "deeper").mkdir()
    monkeypatch.chdir(tmp_path / "deeper")

    assert stores.at("out").put(2).storage == str(tmp_path / "deeper" / "out")
    assert stores.get(reference) == 1


def test_any_address_that_fsspec_knows(stores: ResultStores) -> None:
    url = f"memory://results-{os.urandom(4).hex()}/deep"
    reference = stores.at(url).put([1, 2], key="a/b.json")

    assert reference.storage == url
    assert again(stores).get(reference) == [1, 2]
    assert again(stores).at(url).find("a/b.json") == reference
    assert again(stores).at(url).find("a/c.json") is None


def test_an_object_store(stores: ResultStores, bucket: str) -> None:
    store = stores.at(f"s3://{bucket}/some/prefix")
    plain, keyed = store.put({"a": 1}), store.put("value", key="reports/today")

    assert objects(bucket) == [f"some/prefix/.content/{plain.sha256[:2]}/{plain.sha256}", "some/prefix/reports/today"]
    assert again(stores).get(plain) == {"a": 1}
    assert again(stores).get(keyed) == "value"
    assert again(stores).check(plain)
    assert store.put({"a": 1}) == plain


def test_damage_in_an_object_store_is_set_aside_there(stores: ResultStores, bucket: str, caplog: Any) -> None:
    import s3fs

    store = stores.at(f"s3://{bucket}")
    reference = store.put("value")
    s3fs.S3FileSystem().pipe_file(f"{bucket}/.content/{reference.sha256[:2]}/{reference.sha256}", b"torn")

    assert not store.check(reference)
    assert "damaged" in caplog.text
    (name,) = objects(bucket)
    assert name.startswith("quarantine/")
    with pytest.raises(MissingResult):
        store.get(reference)
    assert store.get(store.put("value")) == "value"


def test_what_is_wrong_with_an_object_store_is_said(stores: ResultStores, bucket: str) -> None:
    with pytest.raises(StoreUnavailable, match="no-such-bucket"):
        stores.at("s3://no-such-bucket/x").put(1)
    with pytest.raises(ConfigurationError, match="gcsfs"):
        stores.at("gcs://bucket/x")
    with pytest.raises(ConfigurationError, match="nosuch"):
        stores.at("nosuch://bucket/x")
    with pytest.raises(ConfigurationError, match="no storage"):
        stores.at(3)


def test_without_fsspec_the_error_says_what_to_install(stores: ResultStores, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fsspec", None)

    with pytest.raises(ConfigurationError, match=r"prefect-nb\[remote\]"):
        stores.at("s3://bucket/x")


def test_settings_of_a_remote_storage_are_used_and_not_stored(
    stores: ResultStores, object_store: str, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name)
    settings = {"key": "key", "secret": "canary-of-a-secret", "client_kwargs": {"endpoint_url": object_store}}
    storage = RemoteFileSystem(basepath=f"s3://{bucket}/x", settings=settings)

    reference = stores.at(storage).put(1)

    assert stores.get(reference) == 1
    assert "canary" not in repr(reference)
    assert not any("canary" in path.read_text(errors="ignore") for path in stores.own.root.parent.rglob("*.*"))


def test_a_password_in_an_address_is_not_stored(stores: ResultStores) -> None:
    reference = stores.at("memory://user:canary@place/x").put(1)

    assert reference.storage == "memory://user@place/x"
    assert stores.get(reference) == 1


def test_a_saved_block_is_named_by_its_type_and_name(tmp_path: Path) -> None:
    RemoteFileSystem(basepath=f"memory://{os.urandom(4).hex()}/x").save("mine")
    home = Home.current()

    reference = home.result_store("remote-file-system/mine").put("value")

    assert reference.storage == "block:remote-file-system/mine"
    assert ResultStores(tmp_path, find_block=home._find_block).get(reference) == "value"
    assert home.result_store(RemoteFileSystem.load("mine")).put("value") == reference


class _Shelf:
    """A storage of somebody's own."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}

    def read_path(self, path: str) -> bytes:
        if path not in self.files:
            raise ValueError(f"Path {path} does not exist.")
        return self.files[path]

    def write_path(self, path: str, content: bytes) -> None:
        self.files[path] = content


class _AsyncShelf(_Shelf):
    async def read_path(self, path: str) -> bytes:  # type: ignore[override]
        return super().read_path(path)

    async def write_path(self, path: str, content: bytes) -> None:  # type: ignore[override]
        super().write_path(path, content)


@pytest.mark.parametrize("kind", [_Shelf, _AsyncShelf])
def test_an_object_that_reads_and_writes_paths(stores: ResultStores, kind: type[_Shelf]) -> None:
    shelf = kind()
    reference = stores.at(shelf).put({"a": 1}, key="x/y")

    assert list(shelf.files) == ["x/y"]
    assert stores.get(reference) == {"a": 1}
    assert stores.at(shelf).find("nothing") is None
    with pytest.raises(MissingResult, match="Save it as a block"):
        again(stores).get(reference)


def test_errors_that_may_pass_are_tried_again(stores: ResultStores, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "_PAUSES", (0, 0))
    shelf = _Shelf()
    failures = [ConnectionError("reset"), TimeoutError("slow")]
    whole = shelf.write_path

    def flaky(path: str, content: bytes) -> None:
        if failures:
            raise failures.pop()
        whole(path, content)

    monkeypatch.setattr(shelf, "write_path", flaky)
    reference = stores.at(shelf).put(1)
    assert stores.get(reference) == 1
    failures.extend([ConnectionError("gone"), ConnectionError("gone"), ConnectionError("gone")])
    with pytest.raises(StoreUnavailable, match="gone"):
        stores.at(shelf).put(2)


def test_a_storage_that_writes_files_never_shows_a_part(stores: ResultStores, tmp_path: Path, monkeypatch: Any) -> None:
    """Protocols that know no whole objects: a temporary name first, then a move."""
    from fsspec.implementations.local import LocalFileSystem as Files

    moves: list[tuple[str, str]] = []
    move = Files.mv
    monkeypatch.setattr(
        Files, "mv", lambda self, one, two, **rest: (moves.append((one, two)), move(self, one, two, **rest))
    )
    storage = RemoteFileSystem(basepath=f"local://{tmp_path}/files", settings={"auto_mkdir": False})

    reference = stores.at(storage).put("value", key="a/b")

    assert stores.get(reference) == "value"
    assert [two.rpartition("/")[2] for _, two in moves] == ["b"]
    assert [path.name for path in (tmp_path / "files").rglob("*") if path.is_file()] == ["b"]


# ------------------------------------------------------------------------------------------------------------ storage keys

HOSTILE = [
    "../x", "a/../x", "a/../../x", "..", ".", "a/./b", "..%2fx", "%252e%252e/x", "a%2Fb", "a\\b", "..\\x", "//host/x",
    "a//b", "/etc/x", "C:/x", "C:x", "\\\\host\\share", "a\0b", "\0", "~/x", "~root/x", "a/~x", "file:x",
    "file:///etc/x", "s3://b/x", "memory://x", ".hidden", "a/.hidden/b", "trailing.", "a./b", " a", "a ", "a/ b",
    unicodedata.normalize("NFD", "é"), "a\nb", "a\u202eb", "\ud800", "", "x" * 300, "a/" * 600 + "b", "quarantine/x",
]  # fmt: skip


@pytest.mark.parametrize("key", HOSTILE, ids=ascii)
def test_a_key_that_leads_elsewhere_is_refused_and_nothing_is_opened(tmp_path: Path, key: str) -> None:
    root = tmp_path / "storage"
    root.mkdir()
    stores = ResultStores(tmp_path / "home" / "results")
    opened: list[str] = []
    watching = [True]

    def watch(event: str, arguments: Any) -> None:
        if watching[0] and event in {"open", "os.mkdir", "os.rename", "os.remove"}:
            opened.append(str(arguments[0]))

    store = stores.at(root)
    sys.addaudithook(watch)
    try:
        with pytest.raises(InvalidNameError, match="storage key"):
            store.put(1, key=key)
        with pytest.raises(InvalidNameError, match="storage key"):
            store.find(key)
    finally:
        watching[0] = False

    assert opened == []


@pytest.mark.parametrize("key", ["a", "a/b/c.json", "é/ü", "2024-01-01T10:00:00", "42", "x=1,y=2", "a b/c d", "100%"])
def test_a_plain_key_is_the_files_path(tmp_path: Path, key: str) -> None:
    stores = ResultStores(tmp_path / "home" / "results")
    reference = stores.at(tmp_path / "storage").put("value", key=key)

    assert (tmp_path / "storage" / key).is_file()
    assert again(stores).get(reference) == "value"
    found = stores.own.put("at home", key=key)
    assert stores.get(found) == "at home"


def test_a_key_is_not_followed_through_links(tmp_path: Path) -> None:
    root, outside = tmp_path / "storage", tmp_path / "storage-secret"
    outside.mkdir()
    root.mkdir()
    (root / "link").symlink_to(outside, target_is_directory=True)
    (root / "file").symlink_to(outside / "file")
    store = ResultStores(tmp_path / "home" / "results").at(root)

    with pytest.raises(InvalidNameError, match="link"):
        store.put(1, key="link/x")
    store.put(2, key="file")
    (outside / "planted").write_bytes((root / "file").read_bytes())
    assert store.find("link/planted") is None

    assert [path.name for path in outside.iterdir()] == ["planted"]
    assert not (root / "file").is_symlink()


# ------------------------------------------------------------------------------------------------------------ tasks, flows


def test_tasks_and_flows_keep_results_where_they_say(tmp_path: Path, history: Any) -> None:
    @task(result_storage=tmp_path / "task", result_storage_key="{parameters[name]}/{flow_run.flow_name}.json")
    def one(name: str) -> str:
        return name.upper()

    @task
    def two() -> int:
        return 2

    @flow(result_storage=tmp_path / "flow", result_serializer="json")
    def both() -> list[Any]:
        return [one("ann"), two()]

    assert both() == ["ANN", 2]

    first, second = history.task_runs()
    (run,) = history.flow_runs()
    assert (tmp_path / "task" / "ann" / "both.json").is_file()
    assert (first.result.storage, first.result.key) == (str(tmp_path / "task"), "ann/both.json")
    assert (second.result.storage, second.result.serializer) == (str(tmp_path / "flow"), "json")
    assert run.result.storage == str(tmp_path / "flow")
    assert [state_of(stored).result() for stored in (first, second, run)] == ["ANN", 2, ["ANN", 2]]


def test_a_remote_result_is_a_cache_hit_in_the_next_run(bucket: str) -> None:
    calls: list[int] = []

    @task(result_storage=f"s3://{bucket}/cache", cache_key_fn=lambda *_: "k")
    def compute() -> int:
        calls.append(1)
        return 42

    @flow
    def run() -> int:
        return compute()

    assert [run(), run()] == [42, 42]
    assert calls == [1]
    assert len(objects(bucket)) >= 1


def test_the_settings_name_the_default_storage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_LOCAL_STORAGE_PATH", str(tmp_path / "by setting"))
    reference = Home.current().result_store().put(1)

    assert reference.storage == str(tmp_path / "by setting")
    monkeypatch.setenv("PREFECT_DEFAULT_RESULT_STORAGE_BLOCK", "memory://by-block")
    assert Home.current().result_store().put(1).storage == "memory://by-block"
    monkeypatch.delenv("PREFECT_LOCAL_STORAGE_PATH")
    monkeypatch.delenv("PREFECT_DEFAULT_RESULT_STORAGE_BLOCK")
    assert Home.current().result_store().put(1).storage is None
    assert Home.current().results.get(reference) == 1


_RUN = """
from prefect_nb import flow, task

@task
def kept_not(): return 1

@task(persist_result=True)
def kept(): return {"a": 1}

@task(persist_result=True)
def cannot_be_kept(): return open("/dev/null")

@flow
def run():
    kept_not(); kept(); cannot_be_kept()

run()
"""


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_results_of_another_process(history: Any) -> None:
    done = subprocess.run([sys.executable, "-c", _RUN], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr

    states = {run.task_key.partition("-")[0]: state_of(run) for run in history.task_runs()}
    assert states["kept"].result() == {"a": 1}
    assert all(state.is_completed() for state in states.values())
    with pytest.raises(MissingResult, match="persist_result=True"):
        states["kept_not"].result()
    with pytest.raises(MissingResult, match="cannot be pickled"):
        states["cannot_be_kept"].result()


# ------------------------------------------------------------------------------------------------------- records by key


def test_records_are_written_and_read_by_key(tmp_path: Path) -> None:
    store = ResultStore(result_storage=tmp_path / "records", serializer="json")
    store.write({"loss": 0.5}, key="run-1")
    store.persist_result_record(store.create_result_record([1], key="run-2"))
    reader = ResultStore(result_storage=tmp_path / "records")

    assert reader.exists("run-1")
    assert not reader.exists("run-3")
    assert reader.read("run-1").result == {"loss": 0.5}
    assert reader.read("run-1").metadata.serializer.type == "json"
    assert reader.read("run-2").result == [1]
    with pytest.raises(ValueError, match="does not exist"):
        reader.read("run-3")


async def test_records_in_coroutines(tmp_path: Path) -> None:
    store = ResultStore(result_storage=tmp_path / "records", cache_result_in_memory=False)
    await store.awrite("value", key="k")

    assert await store.aexists("k")
    assert (await store.aread("k")).result == "value"


def test_a_record_that_has_expired_does_not_exist(tmp_path: Path) -> None:
    from datetime import UTC, datetime, timedelta

    store = ResultStore(result_storage=tmp_path / "records")
    store.write(1, key="old", expiration=datetime.now(UTC) - timedelta(seconds=1))
    store.write(1, key="new", expiration=datetime.now(UTC) + timedelta(hours=1))

    assert not store.exists("old")
    assert store.exists("new")


def test_a_run_knows_its_store_and_whether_it_keeps_its_result(tmp_path: Path) -> None:
    @task(result_storage=tmp_path / "task", result_serializer="json")
    def inside() -> Any:
        store = get_result_store()
        return [str(store.result_storage), store.serializer.type, should_persist_result()]

    @flow
    def run() -> Any:
        return [inside(), should_persist_result()]

    assert run() == [[str(tmp_path / "task"), "json", True], False]
    assert get_result_store().result_storage is None


# ------------------------------------------------------------------------------------------------------------- filesystems


def test_a_local_file_system_stays_below_its_base_path(tmp_path: Path) -> None:
    files = LocalFileSystem(basepath=tmp_path / "base")

    assert files.write_path("a/b.txt", b"x") == str(tmp_path / "base" / "a" / "b.txt")
    assert files.read_path("a/b.txt") == b"x"
    for path in ("../x", "/etc/passwd", "a/../../x"):
        with pytest.raises(ValueError, match="outside of the base path"):
            files.read_path(path)
    with pytest.raises(ValueError, match="does not exist"):
        files.read_path("nothing")


async def test_file_systems_can_be_awaited(tmp_path: Path) -> None:
    files = LocalFileSystem(basepath=str(tmp_path))

    await files.write_path("a", b"x")
    assert await files.read_path("a") == b"x"
    assert await files.aread_path("a") == b"x"


def test_folders_go_to_a_file_system_and_back(tmp_path: Path) -> None:
    (tmp_path / "source" / "deep").mkdir(parents=True)
    (tmp_path / "source" / "deep" / "file").write_text("text")
    for files in (LocalFileSystem(basepath=tmp_path / "base"), RemoteFileSystem(basepath="memory://folders/base")):
        files.put_directory(str(tmp_path / "source"), "there")
        files.get_directory("there", str(tmp_path / "back"))
        assert (tmp_path / "back" / "deep" / "file").read_text() == "text"


@pytest.mark.parametrize(
    ("basepath", "message"),
    [("plain", "must start with a scheme"), ("memory://", "must include a location"), ("file:///x", "LocalFileSystem")],
)
def test_a_remote_file_system_needs_a_whole_address(basepath: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RemoteFileSystem(basepath=basepath)
