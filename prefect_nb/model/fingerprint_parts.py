"""The named parts of a cache key, how they become one key, and what to say when two lists of them differ."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import msgspec
from xxhash import xxh3_128_digest

DETAIL_LIMIT = 64
"""At most this many entries explain one part."""


class Part(msgspec.Struct, frozen=True):
    """One named thing a result depends on.

    `kind` is "source", "helper", "closure", "default", "global", "input", "flow_parameter", "run" or "custom"; `digest` is
    the hex xxh3_128 of a pre-image tagged with the value's type. `detail` holds finer digests (per column, per key) which
    only explain a difference: they are no part of the key.
    """

    kind: str
    name: str
    digest: str
    detail: dict[str, str] | None = None


class Unhashable(TypeError, ValueError):
    """A value has no stable digest, so no key can be made from it.

    `reason` says which type cannot be hashed; `path` where it was found, as in ``input df['x'][3]``.
    """

    def __init__(self, reason: str, path: str = "") -> None:
        super().__init__(reason, path)
        self.reason = reason
        self.path = path

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}" if self.path else self.reason

    def within(self, place: str) -> "Unhashable":
        """Return the same refusal, seen from one level further out."""
        return Unhashable(self.reason, place + self.path)


def seal(tag: str, *pieces: bytes) -> bytes:
    """Return the digest of `pieces` under `tag`; each is length-prefixed, so no two lists share a pre-image."""
    image = bytearray(tag.encode())
    image.append(0)
    for piece in pieces:
        image += len(piece).to_bytes(8, "little")
        image += piece
    return xxh3_128_digest(image)


def combine(parts: Iterable[Part]) -> str:
    """Return the cache key of `parts`: hex, whatever their order, whatever their details."""
    rows = sorted({(part.kind, part.name, part.digest) for part in parts})
    return seal("key", *(text.encode("utf-8", "surrogatepass") for row in rows for text in row)).hex()


_ORDER = ("source", "helper", "closure", "default", "global", "input", "flow_parameter", "run", "custom")
_Named = dict[tuple[str, str], list[Part]]


def explain(before: Sequence[Part] | None, after: Sequence[Part]) -> str:
    """Return the first difference between two lists of parts, in words for the person who asks why a task ran."""
    if not before:
        return "first run with this code"
    first = next(iter(differences(before, after)), None)
    return "same code and inputs as before" if first is None else first.words


class Difference(NamedTuple):
    """One thing in which two lists of parts differ; None on the side that has no such part."""

    kind: str
    name: str
    was: Part | None
    now: Part | None
    words: str


def differences(before: Sequence[Part], after: Sequence[Part]) -> list[Difference]:
    """Return what differs, code before inputs."""
    old, new = _by_name(before), _by_name(after)
    found = []
    for key in sorted({**new, **old}, key=lambda key: _rank(key[0])):
        was, now = old.get(key, []), new.get(key, [])
        if {part.digest for part in was} != {part.digest for part in now}:
            stale, fresh = _unlike(was, now), _unlike(now, was)
            found.append(Difference(*key, stale, fresh, _difference(*key, was, now)))
    return found


def _unlike(parts: list[Part], others: list[Part]) -> Part | None:
    """The first of the parts that is not among the others; else the first of all."""
    known = {part.digest for part in others}
    return next((part for part in parts if part.digest not in known), parts[0] if parts else None)


def _by_name(parts: Sequence[Part]) -> _Named:
    named: _Named = {}
    for part in parts:
        named.setdefault((part.kind, part.name), []).append(part)
    return named


def _rank(kind: str) -> int:
    return _ORDER.index(kind) if kind in _ORDER else len(_ORDER)


def _difference(kind: str, name: str, was: list[Part], now: list[Part]) -> str:
    if kind == "source" and not (was and now):
        return (
            f"ran because the function is now `{name}()`"
            if now
            else f"ran because the function is not `{name}()` any more"
        )
    if not was:
        return f"ran because it now depends on {_title(kind, name)}"
    if not now:
        return f"ran because it no longer depends on {_title(kind, name)}"
    fresh, stale = _unlike(now, was), _unlike(was, now)
    assert fresh is not None
    assert stale is not None
    return _changed(kind, name, stale.detail or {}, fresh.detail or {})


def _title(kind: str, name: str) -> str:
    match kind:
        case "source" | "helper":
            return f"`{name}()`"
        case "flow_parameter":
            return f"flow parameter `{name}`"
        case "closure":
            return f"captured variable `{name}`"
        case _:
            return f"{kind} `{name}`"


def _changed(kind: str, name: str, was: dict[str, str], now: dict[str, str]) -> str:
    match kind:
        case "source" | "helper":
            return _code_changed(name, was, now)
        case "run":
            return "ran because this is another run"
        case "custom":
            return f"ran because the key of `{name}` changed"
    title = _title(kind, name)
    finer = _finer(was, now)
    return f"{title}: {finer}" if finer else f"{title} changed"


def _code_changed(name: str, was: dict[str, str], now: dict[str, str]) -> str:
    if "library" in was and "library" in now and was["library"] != now["library"]:
        return f"ran because `{name}` changed from {was['library']} to {now['library']}"
    same_source = was.get("source") == now.get("source")
    if "source" in now and same_source:
        differing = [key for key in now if was.get(key) != now[key]]
        if differing:
            return f"ran because {differing[0]} of `{name}()` changed"
    return f"ran because `{name}()` changed"


def _finer(was: dict[str, str], now: dict[str, str]) -> str:
    if was.get("type") != now.get("type"):
        return f"was {was.get('type', 'nothing')}, is now {now.get('type', 'nothing')}"
    if "value" in was and "value" in now:
        return f"was {was['value']}, is now {now['value']}"
    for noun in ("column", "key", "attribute"):
        counted = _count(noun, was, now)
        if counted:
            return counted
    for fact in ("dtype", "shape", "length"):
        if fact in was and fact in now and was[fact] != now[fact]:
            return f"{fact} was {was[fact]}, is now {now[fact]}"
    return "the index differs" if was.get("index") != now.get("index") else ""


def _count(noun: str, was: dict[str, str], now: dict[str, str]) -> str:
    prefix = f"{noun} "
    old = {key for key in was if key.startswith(prefix)}
    new = {key for key in now if key.startswith(prefix)}
    if not old or not new:
        return ""
    added, removed = sorted(new - old), sorted(old - new)
    whole = int(now.get("length", len(new)))
    if was.get("length") == now.get("length") and (added or removed) and whole > len(new):
        return ""  # the details were cut off, so a name may be missing from one side only
    if added or removed:
        told = [f"{sign} {', '.join(keys[:3])}" for sign, keys in (("new", added), ("gone", removed)) if keys]
        return "; ".join(told)
    differing = sum(was[key] != now[key] for key in new)
    at_least = "at least " if whole > len(new) else ""
    plural = "" if whole == 1 else "s"
    return f"{at_least}{differing} of {whole} {noun}{plural} differ" if differing else ""
