"""What surrounds a kept result: every change of it shows, and no file chooses what happens when it is read."""

import json
import os
import pickle
import random
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from prefect_nb.exceptions import ResultCorrupt
from prefect_nb.model.runs import ResultReference
from prefect_nb.results import LocalResultStore, envelope
from prefect_nb.results.signing import Signer

MUTATIONS = 20_000


def by_content(value: bytes) -> tuple[bytes, ResultReference]:
    header, sha = envelope.seal("pickle", value)
    return header + value, ResultReference(sha256=sha, size=len(value), serializer="pickle")


def by_key(about: envelope.About, value: bytes, signature: bytes = bytes(32)) -> bytes:
    head, digest, between = envelope.digest_keyed(about, value)
    return head + digest + signature + between + value


def read_by_content(blob: bytes, reference: ResultReference) -> None:
    envelope.check(blob[: envelope.HEADER_SIZE], blob[envelope.HEADER_SIZE :], reference)


def mutated(whole: bytes, chance: random.Random) -> bytes:
    blob = bytearray(whole)
    for _ in range(chance.choice([1, 1, 1, 2, 8])):
        place = chance.randrange(len(blob) + 1)
        match chance.randrange(6):
            case 0 if place < len(blob):
                blob[place] ^= 1 << chance.randrange(8)
            case 1:
                del blob[place:]
            case 2:
                blob[place:place] = chance.randbytes(chance.randrange(1, 40))
            case 3:
                blob[place : place + 8] = chance.choice([b"\xff" * 8, b"\x00" * 8, b"\x7f" + b"\xff" * 7])
            case 4:
                del blob[place : place + chance.randrange(1, 9)]
            case _:
                blob[place : place + 4] = chance.choice([b"PNBR", b"cos\n", b'{"a"', b"\x80\x05c"])
    return bytes(blob)


@pytest.fixture
def nothing_is_imported() -> Iterator[None]:
    before = set(sys.modules)
    yield
    assert set(sys.modules) == before


@pytest.mark.usefixtures("nothing_is_imported")
def test_mutations_are_refused_and_nothing_else_happens() -> None:
    chance = random.Random(7)
    content, reference = by_content(pickle.dumps({"value": list(range(30))}))
    keyed = by_key(envelope.About("a/b", "pickle", 12), pickle.dumps("value"))
    signed = slice(envelope.HEADER_SIZE, envelope.HEADER_SIZE + 32)  # the signature is for the signer to judge
    slowest = 0.0
    for _ in range(MUTATIONS // 2):
        blob = mutated(content, chance)
        if blob != content:
            with pytest.raises(ResultCorrupt):
                read_by_content(blob, reference)
        blob = mutated(keyed, chance)
        if blob[: signed.start] + blob[signed.stop :] == keyed[: signed.start] + keyed[signed.stop :]:
            continue
        began = time.perf_counter()
        with pytest.raises(ResultCorrupt):
            envelope.unseal_keyed(blob, "a/b")
        slowest = max(slowest, time.perf_counter() - began)
    assert slowest < 0.5  # 100 ms on a quiet machine


@pytest.mark.parametrize(
    "about",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b'{"key":"k"}',
        b'{"key":1,"serializer":"json"}',
        b'{"key":"k","serializer":"json","expires_us":"soon"}',
        b'{"key":"k","serializer":"json","more":1}',
        b"\xff\xfe",
        b"[" * 10_000,
    ],
)
def test_what_a_file_says_of_itself_must_have_the_known_form(about: bytes) -> None:
    # The hash is right, as whoever wrote the file could make it.
    head = envelope._head(2, "json", 4)
    between = envelope._ABOUT_SIZE.pack(len(about)) + about
    blob = head + envelope._digest(head + between, b"null") + bytes(32) + between + b"null"

    with pytest.raises(ResultCorrupt):
        envelope.unseal_keyed(blob, "k")


def test_a_huge_size_in_a_header_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    store = LocalResultStore(tmp_path, signer=Signer(tmp_path / "secret"), address="here")
    store.put("value", key="k")
    blob = bytearray((tmp_path / "k").read_bytes())
    blob[6:14] = (2**62).to_bytes(8, "big")
    (tmp_path / "k").write_bytes(blob)

    assert store.find("k") is None


class Bomb:
    def __reduce__(self) -> Any:
        return os.system, ("touch canary",)


def test_looking_at_hostile_results_unpickles_none(tmp_path: Path) -> None:
    """Also those whose signature is right: a home may have been made to keep such a value."""
    store = LocalResultStore(tmp_path / "results", signer=Signer(tmp_path / "secret"))
    references = [store.put(Bomb(), key=f"{n}") for n in range(50)] + [store.put([n, Bomb()]) for n in range(50)]
    found: list[str] = []
    watching = [True]

    def watch(event: str, _arguments: Any) -> None:
        if watching[0] and event in {"pickle.find_class", "os.system", "marshal.loads"}:
            found.append(event)

    sys.addaudithook(watch)
    try:
        reader = LocalResultStore(tmp_path / "results", signer=Signer(tmp_path / "secret"))
        assert all(reader.check(reference) for reference in references)
        assert [reader.find(f"{n}") for n in range(50)] == references[:50]
    finally:
        watching[0] = False

    assert found == []


@pytest.mark.parametrize("name", ["os", "builtins.eval", "marshal", "compressed/os", "json?[", 'json?{"jsonlib":"os"}'])
def test_a_serializer_named_in_a_file_is_looked_up_never_imported(tmp_path: Path, name: str) -> None:
    from prefect_nb.exceptions import SerializationError

    signer = Signer(tmp_path / "secret")
    store = LocalResultStore(tmp_path / "results", signer=signer, address="here")
    about = envelope.About("k", name)
    (tmp_path / "results").mkdir()
    digest = envelope.digest_keyed(about, b"[]")[1]
    (tmp_path / "results" / "k").write_bytes(by_key(about, b"[]", signer.sign(digest)))

    reference = store.find("k")

    assert reference is not None
    with pytest.raises(SerializationError):
        store.get(reference)


def test_about_is_plain_json() -> None:
    blob = by_key(envelope.About("a/b", "json", 5), b"null")

    about = blob[envelope.KEYED_HEADER_SIZE : -len(b"null")]
    assert json.loads(about) == {"key": "a/b", "serializer": "json", "expires_us": 5}
