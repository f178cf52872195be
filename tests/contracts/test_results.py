"""What a result store promises: values kept whole or not at all, and checked when read."""

import logging
import os
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from prefect_nb.exceptions import (
    ConfigurationError,
    InvalidNameError,
    MissingResult,
    ResultCorrupt,
    SerializationError,
    StorageFull,
    StoreUnavailable,
)
from prefect_nb.model.runs import ResultReference
from prefect_nb.results import (
    CompressedJSONSerializer,
    LocalResultStore,
    ResultStores,
    Serializer,
    local,
    serializer_base,
    serializers,
)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "results"


@pytest.fixture
def store(root: Path) -> LocalResultStore:
    return LocalResultStore(root)


def path_of(root: Path, reference: ResultReference) -> Path:
    return root / reference.sha256[:2] / reference.sha256


def files_under(root: Path) -> list[Path]:
    return [path for path in root.rglob("*") if not path.is_dir()] if root.exists() else []


def refresh(root: Path) -> LocalResultStore:
    """The same files as another process sees them."""
    return LocalResultStore(root)


@pytest.mark.parametrize(
    "value", [None, 1, "text", {"a": [1, 2]}, b"x" * 200_000, float("inf")], ids=lambda v: str(v)[:9]
)
def test_a_value_comes_back(store: LocalResultStore, root: Path, value: Any) -> None:
    reference = store.put(value)

    assert store.get(reference) == value
    assert refresh(root).get(reference) == value
    assert store.check(reference)


@pytest.mark.parametrize("serializer", [None, "pickle", "json", "compressed/pickle", CompressedJSONSerializer("lzma")])
def test_each_serializer_is_noted_and_used_again(store: LocalResultStore, root: Path, serializer: Any) -> None:
    reference = store.put({"a": [1, 2]}, serializer)

    assert reference.serializer == getattr(serializer, "type", serializer or "pickle")
    assert refresh(root).get(reference) == {"a": [1, 2]}


def test_arrays_are_kept_in_their_own_format_unless_pickle_is_asked_for(store: LocalResultStore, root: Path) -> None:
    array = np.arange(6).reshape(2, 3)

    assert store.put(array).serializer == "numpy"
    assert store.put(array, "pickle").serializer == "pickle"
    assert LocalResultStore(root, "compressed/pickle").put(array).serializer == "compressed/pickle"
    np.testing.assert_array_equal(refresh(root).get(store.put(array)), array)


def test_expiry_is_kept_in_the_reference(store: LocalResultStore) -> None:
    assert store.put(1, expires_us=5).expires_us == 5
    assert store.put(1).expires_us is None


def test_each_get_makes_a_new_object(store: LocalResultStore) -> None:
    value = {"a": []}
    reference = store.put(value)
    value["a"].append("changed after it was kept")
    store.get(reference)["a"].append("changed by a reader")

    assert store.get(reference) == {"a": []}


def test_equal_values_share_one_file(store: LocalResultStore, root: Path) -> None:
    first = store.put([1, 2])
    before = path_of(root, first).stat()

    assert refresh(root).put([1, 2]) == first
    assert len(files_under(root)) == 1
    assert path_of(root, first).stat().st_mtime_ns == before.st_mtime_ns


def test_a_file_found_there_is_synced_once(
    store: LocalResultStore, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.put("value")
    synced: list[Path] = []
    monkeypatch.setattr(local.folders, "sync", synced.append)
    other = refresh(root)
    for _ in range(3):
        store.put("value")
        other.put("value")

    assert len(synced) == 1


def test_equal_bytes_of_different_serializers_stay_apart(store: LocalResultStore, monkeypatch: Any) -> None:
    monkeypatch.setattr(serializer_base, "registered", dict(serializer_base.registered))

    class Loud(Serializer):
        type = "loud"

        def dumps(self, obj: Any) -> bytes:
            return f'"{obj}"'.encode()

        def loads(self, blob: bytes) -> Any:
            return blob.decode().strip('"').upper()

    loud, plain = store.put("word", Loud()), store.put("word", "json")

    assert (store.get(loud), store.get(plain)) == ("WORD", "word")


def test_an_unknown_serializer_is_refused(store: LocalResultStore, root: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"builtins\.eval"):
        store.put(1, "builtins.eval")
    reference = store.put(1)
    with pytest.raises((SerializationError, ResultCorrupt)):
        store.get(msgspec.structs.replace(reference, serializer="os"))


# ------------------------------------------------------------------------------------- values that cannot be kept or read


class RefusesToReduce:
    def __reduce__(self) -> Any:
        raise ValueError("not me")


class PicklesButDoesNotUnpickle:
    def __reduce__(self) -> Any:
        return (_cannot_build, ())


def _cannot_build() -> None:
    raise LookupError("the factory is gone")


def _deep() -> Any:
    value: list[Any] = []
    for _ in range(100_000):
        value = [value]
    return value


@pytest.mark.parametrize(
    "make",
    [threading.Lock, lambda: (n for n in range(3)), lambda: sys.stdout.buffer, RefusesToReduce, _deep],
    ids=["lock", "generator", "open file", "reduce raises", "too deep"],
)
def test_what_cannot_be_kept_leaves_nothing_behind(
    store: LocalResultStore, root: Path, make: Callable[[], Any]
) -> None:
    with pytest.raises(SerializationError):
        store.put(make())

    assert not root.exists()


def test_what_cannot_be_read_back_is_no_damage(store: LocalResultStore, root: Path) -> None:
    reference = store.put(PicklesButDoesNotUnpickle())

    with pytest.raises(SerializationError, match="the factory is gone"):
        store.get(reference)
    assert store.check(reference)
    assert not (root / "quarantine").exists()


# ------------------------------------------------------------------------------------- what every kind of store promises


@pytest.fixture(params=["home", "folder", "fsspec", "own"])
def stores_and_storage(request: pytest.FixtureRequest, root: Path, tmp_path: Path) -> tuple[ResultStores, Any]:
    stores = ResultStores(root)
    return stores, {
        "home": None,
        "folder": tmp_path / "folder",
        "fsspec": f"memory://contract-{os.urandom(6).hex()}",
        "own": Shelf(),
    }[request.param]


class Shelf:
    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}

    def read_path(self, path: str) -> bytes:
        if path not in self.files:
            raise ValueError(path)
        return self.files[path]

    def write_path(self, path: str, content: bytes) -> None:
        self.files[path] = content


@pytest.mark.parametrize("key", [None, "k", "deep/er/k.json", "42"])
@pytest.mark.parametrize("serializer", [None, "json", "compressed/pickle"])
def test_every_store_gives_back_what_it_was_given(
    stores_and_storage: tuple[ResultStores, Any], key: str | None, serializer: Any
) -> None:
    stores, storage = stores_and_storage
    store = stores.at(storage)
    reference = store.put({"a": [1, 2]}, serializer, 77, key)

    assert (reference.key, reference.expires_us, reference.serializer) == (key, 77, serializer or "pickle")
    assert store.get(reference) == stores.get(reference) == {"a": [1, 2]}
    assert stores.check(reference)
    if key is not None:
        assert store.find(key) == reference
        assert store.find("other") is None
        replaced = store.put("later", key=key)
        assert stores.get(replaced) == "later"
        assert not stores.check(reference)
        with pytest.raises(MissingResult):
            stores.get(reference)


def test_every_store_says_what_is_missing_or_cannot_be_kept(stores_and_storage: tuple[ResultStores, Any]) -> None:
    stores, storage = stores_and_storage
    store = stores.at(storage)

    with pytest.raises(MissingResult):
        store.get(ResultReference(sha256="0" * 64, size=1, serializer="pickle", storage=store.address))
    assert not store.check(ResultReference(sha256="0" * 64, size=1, serializer="pickle", storage=store.address))
    with pytest.raises(ResultCorrupt):
        store.get(ResultReference(sha256="../x", size=1, serializer="pickle", storage=store.address))
    with pytest.raises(ResultCorrupt):
        store.get(ResultReference(sha256="0" * 64, size=1, serializer="pickle", storage=store.address, key="../x"))
    with pytest.raises(SerializationError):
        store.put(threading.Lock())
    with pytest.raises(InvalidNameError):
        store.put(1, key="../x")


# ------------------------------------------------------------------------------------------------------------- damage


@pytest.fixture
def kept(store: LocalResultStore, root: Path) -> tuple[ResultReference, Path]:
    reference = store.put({"value": list(range(40))})
    return reference, path_of(root, reference)


def assert_set_aside(root: Path, reference: ResultReference, caplog: pytest.LogCaptureFixture) -> None:
    """Never served; a warning; the original kept in quarantine; a new copy can be written."""
    damaged = refresh(root)
    caplog.clear()
    with caplog.at_level(logging.WARNING), pytest.raises(ResultCorrupt) as caught:
        damaged.get(reference)

    assert "quarantine" in str(caught.value)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert len(list((root / "quarantine").iterdir())) == 1
    assert not os.path.lexists(path_of(root, reference))
    with pytest.raises(MissingResult):
        damaged.get(reference)
    assert damaged.put({"value": list(range(40))}) == reference
    assert damaged.get(reference) == {"value": list(range(40))}


def test_a_file_cut_anywhere_is_noticed(root: Path, kept: tuple[ResultReference, Path]) -> None:
    reference, path = kept
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        assert not refresh(root).check(reference), length
    path.write_bytes(whole)
    assert refresh(root).check(reference)


def test_every_flipped_byte_is_noticed(root: Path, kept: tuple[ResultReference, Path]) -> None:
    reference, path = kept
    whole = path.read_bytes()
    for position in range(len(whole)):
        damaged = bytearray(whole)
        damaged[position] ^= 1 << position % 8
        path.write_bytes(damaged)
        with pytest.raises(ResultCorrupt):
            refresh(root).get(reference)
    assert len(list((root / "quarantine").iterdir())) == len(whole)


def _append(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"more")


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _garbage(path: Path) -> None:
    path.write_bytes(os.urandom(path.stat().st_size))


def _other_version(path: Path) -> None:
    whole = path.read_bytes()
    path.write_bytes(whole[:4] + b"\x02" + whole[5:])


def _another_result(path: Path) -> None:
    other = LocalResultStore(path.parents[1] / "other")
    path.write_bytes(path_of(other.root, other.put({"value": list(range(1, 41))})).read_bytes())


def _directory(path: Path) -> None:
    path.unlink()
    (path / "inside").mkdir(parents=True)


def _dangling_link(path: Path) -> None:
    path.unlink()
    path.symlink_to("nowhere")


def _link_to_a_twin(path: Path) -> None:
    path.symlink_to(path.rename(path.with_name("twin")))


def _pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize(
    "damage",
    [
        _append,
        _empty,
        _garbage,
        _other_version,
        _another_result,
        _directory,
        _dangling_link,
        _link_to_a_twin,
        _pipe,
    ],
)
def test_damage_is_set_aside_and_can_be_mended(
    root: Path, kept: tuple[ResultReference, Path], damage: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    reference, path = kept
    damage(path)

    assert_set_aside(root, reference, caplog)


def test_damage_is_noticed_by_the_store_that_wrote_it(store: LocalResultStore, root: Path) -> None:
    reference = store.put("value")
    path_of(root, reference).write_bytes(b"")

    with pytest.raises(ResultCorrupt):
        store.get(reference)


def test_put_over_damage_writes_a_whole_file(store: LocalResultStore, root: Path) -> None:
    reference = store.put("value")
    path_of(root, reference).write_bytes(b"torn")

    assert store.put("value") == reference
    assert refresh(root).get(reference) == "value"


def test_a_removed_file_is_missing(store: LocalResultStore, root: Path) -> None:
    reference = store.put("value")
    path_of(root, reference).unlink()

    assert not store.check(reference)
    with pytest.raises(MissingResult):
        store.get(reference)


def test_a_reference_cannot_lead_out_of_the_folder(store: LocalResultStore, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"x")
    reference = ResultReference(sha256="../secret", size=1, serializer="pickle")

    assert not store.check(reference)
    with pytest.raises(ResultCorrupt):
        store.get(reference)
    assert (tmp_path / "secret").exists()


def test_check_never_unpickles(root: Path, store: LocalResultStore, monkeypatch: pytest.MonkeyPatch) -> None:
    reference = store.put({"a": 1})
    monkeypatch.setattr(serializers.pickle, "loads", lambda _: pytest.fail("unpickled"))

    assert refresh(root).check(reference)


# --------------------------------------------------------------------------------------------------------- files and room


def test_files_are_private_whatever_the_umask(root: Path) -> None:
    for umask in (0o000, 0o077):
        before = os.umask(umask)
        try:
            store = LocalResultStore(root / f"{umask:o}")
            reference = store.put("value")
            path_of(store.root, reference).write_bytes(b"")
            store.check(reference)
            store.put("value")
        finally:
            os.umask(before)

    for path in root.rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path


_FULL = """
import resource, sys
from pathlib import Path
from prefect_nb.exceptions import StorageFull
from prefect_nb.results import LocalResultStore

store = LocalResultStore(Path(sys.argv[1]))
kept = store.put(b"small")
resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, resource.RLIM_INFINITY))
for number in range(4):
    try:
        store.put(bytes([number]) * 1_000_000)
    except StorageFull as error:
        assert "1,000,0" in str(error) and sys.argv[1] in str(error), error
    else:
        raise SystemExit("not noticed")
assert store.get(kept) == b"small"
assert store.get(store.put(b"still room for this")) == b"still room for this"
"""


def test_no_room_is_said_with_path_and_bytes_and_leaves_nothing(root: Path) -> None:
    done = subprocess.run([sys.executable, "-c", _FULL, str(root)], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    files = files_under(root)
    assert len(files) == 2
    assert all(path.stat().st_size < 1_000 for path in files)


@pytest.mark.parametrize("call", ["write", "fsync", "open"])
def test_each_step_may_run_out_of_room(
    store: LocalResultStore, root: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    def no_room(*_: Any, **__: Any) -> Any:
        raise OSError(28, "No space left on device")

    (root / store.put("first").sha256[:2]).mkdir(exist_ok=True)
    with monkeypatch.context() as patch:
        patch.setattr(local.os, call, no_room)
        with pytest.raises(StorageFull):
            store.put("second")

    assert len(files_under(root)) == 1
    assert store.get(store.put("second")) == "second"


def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")

    with pytest.raises(StoreUnavailable, match="file"):
        LocalResultStore(tmp_path / "file").put(1)


_CRASH = """
import os, signal, sys
from pathlib import Path
from prefect_nb.results import LocalResultStore, ResultStores, local

def crash(point):
    if point == sys.argv[2]:
        os.kill(os.getpid(), signal.SIGKILL)

local.crash_point = crash
LocalResultStore(Path(sys.argv[1])).put("value")
"""


@pytest.mark.parametrize("point", ["before_temp_write", "after_temp_write", "after_fsync", "after_rename"])
def test_a_death_at_any_point_leaves_no_torn_file_under_a_final_name(root: Path, point: str) -> None:
    done = subprocess.run([sys.executable, "-c", _CRASH, str(root), point], capture_output=True, text=True, check=False)
    assert done.returncode == -9, done.stderr

    final = [path for path in files_under(root) if not path.name.startswith(".")]
    assert len(final) == (1 if point == "after_rename" else 0)
    store = refresh(root)
    reference = store.put("value")
    assert refresh(root).get(reference) == "value"


def test_many_writers_of_the_same_and_of_different_values(root: Path) -> None:
    stores = [LocalResultStore(root) for _ in range(4)]
    with ThreadPoolExecutor(8) as pool:
        references = list(pool.map(lambda n: stores[n % 4].put({"n": n // 8}), range(64)))

    assert len({reference.sha256 for reference in references}) == 8
    assert len(files_under(root)) == 8
    assert [refresh(root).get(reference) for reference in references] == [{"n": n // 8} for n in range(64)]


# ------------------------------------------------------------------------------------------------- bytes kept in memory


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    seen: list[Path] = []
    whole = local._read_whole

    def counted(path: Path, reference: ResultReference) -> Any:
        seen.append(path)
        return whole(path, reference)

    monkeypatch.setattr(local, "_read_whole", counted)
    return seen


def test_a_hit_reads_the_disk_once(root: Path, store: LocalResultStore, reads: list[Path]) -> None:
    reference = store.put("value")
    reader = refresh(root)

    assert reader.check(reference)
    assert reader.get(reference) == "value"
    assert len(reads) == 1


def test_memory_for_recent_results_is_bounded(store: LocalResultStore, reads: list[Path], monkeypatch: Any) -> None:
    monkeypatch.setattr(local._RecentPayloads, "room", 2_000)
    large = store.put(b"x" * 70_000)
    references = [store.put(bytes([n]) * 900) for n in range(4)]

    store.get(large)
    for reference in reversed(references):
        store.get(reference)

    assert len(reads) == 3  # the large one and the two oldest
    assert store._recent._size <= 2_000
