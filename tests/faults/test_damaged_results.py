"""Results that somebody or something has changed: never used, reported, set aside, computed again."""

import logging
import os
import pickle
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from prefect_nb import flow, task
from prefect_nb.exceptions import MissingResult, ResultCorrupt, ResultTooLarge, StoreUnavailable
from prefect_nb.home import Home
from prefect_nb.results import LocalResultStore, ResultStores, base, envelope
from prefect_nb.results.signing import Signer

# ------------------------------------------------------------------------------------------ through runs, by content


def _files(root: Path) -> list[Path]:
    return [path for path in root.rglob("*") if path.is_file() and "quarantine" not in path.parts]


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-3])


def _flip(path: Path) -> None:
    blob = bytearray(path.read_bytes())
    blob[-1] ^= 1
    path.write_bytes(blob)


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _dangling(path: Path) -> None:
    path.unlink()
    path.symlink_to("nowhere")


def _other_version(path: Path) -> None:
    blob = path.read_bytes()
    path.write_bytes(blob[:4] + b"\x09" + blob[5:])


DAMAGES = [_cut, _flip, _empty, _folder, _dangling, _other_version]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_cached_result_is_computed_again(
    prefect_nb_home: Path, damage: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    calls: list[int] = []

    @task(persist_result=True, cache_key_fn=lambda *_: "the key")
    def compute() -> dict[str, list[int]]:
        calls.append(1)
        return {"value": list(range(50))}

    @flow
    def run() -> Any:
        return compute()

    run()
    Home.current().close()
    (kept,) = [path for path in _files(prefect_nb_home / "results") if len(path.name) == 64]
    damage(kept)
    with caplog.at_level(logging.WARNING):
        assert run() == {"value": list(range(50))}
    assert run() == {"value": list(range(50))}

    assert len(calls) == 2
    assert "damaged" in caplog.text
    assert len(list((prefect_nb_home / "results" / "quarantine").iterdir())) == 1


# ---------------------------------------------------------------------------------------------------------- by key


@pytest.fixture
def store(tmp_path: Path) -> LocalResultStore:
    return LocalResultStore(tmp_path / "shared", signer=Signer(tmp_path / "secret"), address="here")


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_under_a_key_is_set_aside(
    store: LocalResultStore, damage: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    reference = store.put({"value": 1}, key="folder/name")
    damage(store.root / "folder" / "name")

    with caplog.at_level(logging.WARNING):
        assert store.find("folder/name") is None
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert len(list((store.root / "quarantine").iterdir())) == 1
    assert not store.check(reference)
    assert store.get(store.put({"value": 2}, key="folder/name")) == {"value": 2}


def test_every_cut_and_every_flipped_byte_under_a_key_is_noticed(store: LocalResultStore) -> None:
    reference = store.put({"value": list(range(20))}, key="k")
    path = store.root / "k"
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        assert store.find("k") is None, length
    for place in range(len(whole)):
        blob = bytearray(whole)
        blob[place] ^= 1 << place % 8
        path.write_bytes(blob)
        assert store.find("k") is None, place
    path.write_bytes(whole)
    assert store.find("k") == reference


def test_a_result_moved_to_another_key_is_not_used(store: LocalResultStore) -> None:
    for name in ("a", "b"):
        store.put(f"value of {name}", key=name)
    (store.root / "a").replace(store.root / "b")

    assert store.find("b") is None
    assert store.find("a") is None


def test_a_result_replaced_under_its_key_is_missing_for_who_knew_the_old_one(store: LocalResultStore) -> None:
    old = store.put("old", key="k")
    new = store.put("new", key="k")

    with pytest.raises(MissingResult, match="replaced by a later one"):
        store.get(old)
    assert store.get(new) == "new"
    assert not (store.root / "quarantine").exists()


# ------------------------------------------------------------------------------------------------- put there by others


class Bomb:
    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.canary),)


def plant(root: Path, key: str, payload: bytes, signature: bytes = bytes(32)) -> None:
    """A whole result as somebody who can write there, and knows the format, would make it."""
    head, digest, between = envelope.digest_keyed(envelope.About(key, "pickle"), payload)
    root.mkdir(exist_ok=True)
    (root / key).write_bytes(head + digest + signature + between + payload)


def test_a_planted_pickle_is_not_loaded(
    store: LocalResultStore, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    plant(store.root, "k", pickle.dumps(Bomb(tmp_path / "canary")))

    with caplog.at_level(logging.WARNING):
        assert store.find("k") is None

    assert "not signed by this home" in caplog.text
    assert not (tmp_path / "canary").exists()
    assert len(list((store.root / "quarantine").iterdir())) == 1


def test_a_pickle_signed_with_another_secret_is_not_loaded(store: LocalResultStore, tmp_path: Path) -> None:
    LocalResultStore(store.root, signer=Signer(tmp_path / "another"), address="here").put(
        Bomb(tmp_path / "canary"), key="k"
    )

    assert store.find("k") is None
    assert not (tmp_path / "canary").exists()


def test_homes_with_the_same_secret_use_each_others_results(store: LocalResultStore, tmp_path: Path) -> None:
    store.put("value", key="k")
    other = LocalResultStore(store.root, signer=Signer(tmp_path / "secret"), address="here")

    reference = other.find("k")

    assert reference is not None
    assert other.get(reference) == "value"


def test_unsigned_results_count_where_that_is_asked_for(tmp_path: Path) -> None:
    plant(tmp_path / "shared", "k", pickle.dumps("value"))
    store = LocalResultStore(tmp_path / "shared", signer=Signer(tmp_path / "secret"), trusting=True, address="here")

    reference = store.find("k")

    assert reference is not None
    assert store.get(reference) == "value"


def test_the_secret_is_private_and_refused_if_it_is_not(store: LocalResultStore, tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        store.put(1, key="k")
    finally:
        os.umask(before)
    secret = tmp_path / "secret"
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600
    secret.chmod(0o644)

    with pytest.raises(StoreUnavailable, match="chmod 600"):
        LocalResultStore(store.root, signer=Signer(secret), address="here").find("k")
    secret.chmod(0o600)
    secret.write_bytes(b"short")
    with pytest.raises(StoreUnavailable, match="damaged"):
        LocalResultStore(store.root, signer=Signer(secret), address="here").find("k")


def test_a_damaged_result_elsewhere_is_set_aside_there(tmp_path: Path) -> None:
    stores = ResultStores(tmp_path / "home")
    reference = stores.at(tmp_path / "elsewhere").put("value")
    path = tmp_path / "elsewhere" / ".content" / reference.sha256[:2] / reference.sha256
    path.write_bytes(b"torn")

    with pytest.raises(ResultCorrupt, match=str(tmp_path / "elsewhere" / "quarantine")):
        stores.get(reference)


# --------------------------------------------------------------------------------------------------------- odd values


class RefusesToReduce:
    def __reduce__(self) -> Any:
        raise ValueError("not me")


class DoesNotUnpickle:
    def __reduce__(self) -> Any:
        return _raise, ()


def _raise() -> None:
    raise LookupError("the factory is gone")


def _recursive() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


_opened: list[Any] = []


def _open_file() -> Any:
    _opened.append(Path(os.devnull).open())  # noqa: SIM115 - the fixture closes it
    return _opened[-1]


@pytest.fixture
def closing() -> Iterator[None]:
    """Left open, a file would make whichever test comes next report it."""
    yield
    while _opened:
        _opened.pop().close()


@pytest.mark.usefixtures("closing")
@pytest.mark.parametrize(
    ("make", "kept"),
    [
        (RefusesToReduce, False),
        (_open_file, False),
        (lambda: {"deep": [_open_file()]}, False),
        (threading.Lock, False),
        (DoesNotUnpickle, True),
        (_recursive, True),
        (lambda: None, True),
        (lambda: lambda: 1, True),
    ],
    ids=["refuses", "file", "deep", "lock", "does not unpickle", "recursive", "none", "lambda"],
)
def test_a_run_with_an_odd_value_completes_and_never_claims_what_is_not_there(make: Any, kept: bool) -> None:
    @task(persist_result=True)
    def odd() -> Any:
        return make()

    @flow
    def run() -> Any:
        return odd(return_state=True)

    state = run(return_state=True).result()
    home = Home.current()
    home.ledger.commit()
    stored = home.store.task_run(state.state_details.task_run_id)

    assert state.is_completed()
    assert stored is not None
    assert (stored.result is not None) is kept
    if kept:
        assert home.results.check(stored.result)
    else:
        assert "not persisted" in str(stored.result_note)


def test_a_result_above_the_limit_is_refused_and_says_what_to_do(tmp_path: Path) -> None:
    store = LocalResultStore(tmp_path, largest=1_000)

    assert store.get(store.put(b"x" * 900)) == b"x" * 900
    with pytest.raises(ResultTooLarge, match="PREFECT_NB_RESULTS_MAX_BYTES"):
        store.put(b"x" * 1_000)
    assert len(_files(tmp_path)) == 1


def test_the_limit_is_a_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_NB_RESULTS_MAX_BYTES", "1000")

    @task(persist_result=True)
    def large() -> bytes:
        return b"x" * 2_000

    @flow
    def run() -> Any:
        return large(return_state=True)

    state = run(return_state=True).result()
    home = Home.current()
    home.ledger.commit()
    stored = home.store.task_run(state.state_details.task_run_id)
    assert state.is_completed()
    assert stored is not None
    assert "larger than results may be" in str(stored.result_note)


def test_a_huge_result_is_kept_with_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(base, "_HUGE", 1_000)
    store = LocalResultStore(tmp_path)

    with caplog.at_level(logging.WARNING):
        store.put(b"x" * 900)
        assert not caplog.records
        store.put(b"x" * 1_100)
    assert "writing it to a file" in caplog.text
