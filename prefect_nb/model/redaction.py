"""Keeping secrets out of what is stored and shown: whole values known to be secret, and shapes that secrets have.

A secret is known in its own spelling, as JSON writes it and as `repr` does. A part of it, or another encoding of it
(base64, URL-encoded), is not recognized.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

MASK = "********"
SHORTEST = 6
"""Characters: what is shorter is not looked for, since it would be found everywhere."""
_SHORTEST_LINE = 16
_DEEPEST = 12

_PLAIN = frozenset({str, int, float, bool, type(None), bytes})

known: list[str] = []
"""Every spelling to look for, the longest first; empty while there are no secrets, which costs nothing."""

_USERINFO = re.compile(r"(?<=://)([^\s/:@'\"<>]{0,256}):([^\s/@'\"<>]{1,1024})@")
_SHAPES = re.compile(
    r"((?i:\bAuthorization['\"]?\s*[:=]\s*['\"]?(?:Bearer|Basic|Token)\s+)|\bBearer\s+)[A-Za-z0-9._~+/=-]{8,}"
    r"|\b(?:AKIA|ASIA)[0-9A-Z]{16}\b"
    r"|((?i:aws_?secret_?(?:access_?)?key)['\"]?\s*[:=]\s*['\"]?)[A-Za-z0-9/+=]{40}"
)
_SECRET_WORDS = frozenset(
    {"SECRET", "SECRETS", "TOKEN", "PASSWORD", "PASSWD", "PASSPHRASE", "PWD", "APIKEY", "CREDENTIAL", "CREDENTIALS"}
)
_SECRET_KEYS = ("API_KEY", "ACCESS_KEY", "PRIVATE_KEY", "SECRET_KEY", "ENCRYPTION_KEY", "AUTH_KEY", "SIGNING_KEY")
_NOT_THE_SECRET = ("FILE", "PATH", "DIR", "NAME", "ID", "TYPE", "URL", "LIFETIME", "TIMEOUT", "EXPIRY")
_ONLY_WORDS = frozenset({"disabled", "enabled", "default", "required", "optional"})


def learn(*secrets: str) -> None:
    """Look for these values from now on, in this process."""
    global known
    spellings = set(known)
    for secret in secrets:
        lines = [line.strip() for line in secret.splitlines()]
        wanted = [secret] if len(lines) < 2 else [secret, *(line for line in lines if len(line) >= _SHORTEST_LINE)]
        for text in wanted:
            if len(text.strip()) >= SHORTEST and text != MASK:
                spellings |= {
                    text,
                    json.dumps(text)[1:-1],
                    json.dumps(text, ensure_ascii=False)[1:-1],
                    repr(text)[1:-1],
                }
    if len(spellings) != len(known):
        # A new list, so that who goes through the old one is not disturbed.
        known = sorted(spellings, key=len, reverse=True)


def forget() -> None:
    """Know no secrets any more."""
    global known
    known = []


def learn_environment(variables: Mapping[str, str]) -> None:
    """Look for the values of those variables whose names say that they are secrets."""
    learn(*(value for name, value in variables.items() if _names_secret(name) and _is_secret_like(value)))


def notice(value: Any) -> None:
    """Look for what a `SecretStr` or the like holds."""
    learn(*texts(value.get_secret_value()))


def secrets_in(value: Any, depth: int = _DEEPEST) -> Iterator[Any]:
    """Every `SecretStr` and the like in a value: in containers, dataclasses and models."""
    if type(value) in _PLAIN or isinstance(value, type):
        return
    if hasattr(value, "get_secret_value"):
        yield value
        return
    children = _parts(value)
    if depth == 0 or _PLAIN.issuperset(map(type, children)):
        return
    for part in children:
        yield from secrets_in(part, depth - 1)


def masked(value: Any) -> Any:
    """A value with a mask for every secret in its containers and dataclasses; a model masks its own when it is shown."""
    if hasattr(value, "get_secret_value") and not isinstance(value, type):
        return MASK
    if isinstance(value, dict):
        return {key: masked(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [masked(item) for item in value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: masked(getattr(value, field.name, None)) for field in dataclasses.fields(value)}
    return value


def redact(text: str) -> str:
    """A text without secrets: neither those that are known, nor a URL's password, a bearer token or an AWS key."""
    if known:
        text = redact_known(text)
    if "://" in text and "@" in text:
        text = _USERINFO.sub(rf"\1:{MASK}@", text)
    if (
        "Bearer" in text
        or "uthorization" in text
        or "AKIA" in text
        or "ASIA" in text
        or "ecret" in text
        or "ECRET" in text
    ):
        text = _SHAPES.sub(lambda found: f"{found[1] or found[2] or ''}{MASK}", text)
    return text


def redact_known(text: str) -> str:
    """A text without the secrets that are known."""
    for secret in known:
        if secret in text:
            text = text.replace(secret, MASK)
    return text


def redact_values(value: Any) -> Any:
    """Plain data (as JSON has it) with every text in it redacted, keys too; passwords of URLs are known from then on."""
    if isinstance(value, str):
        if "://" in value:
            learn(*(password for _, password in _USERINFO.findall(value)))
        return redact(value)
    if isinstance(value, dict):
        return {redact(key) if isinstance(key, str) else key: redact_values(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [redact_values(item) for item in value]
    return value


def redact_texts(value: Any) -> Any:
    """Plain data with every text in it redacted, keys left as they are: what has a form of its own stays valid."""
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, dict):
        return {key: redact_texts(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [redact_texts(item) for item in value]
    return value


def texts(value: Any) -> Iterator[str]:
    """Every text in a secret's value; numbers as text."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, bytes):
        yield value.decode("utf-8", "replace")
        yield repr(value)[2:-1]
    elif isinstance(value, dict):
        for item in value.values():
            yield from texts(item)
    elif isinstance(value, list | tuple | set | frozenset):
        for item in value:
            yield from texts(item)
    elif value is not None and not isinstance(value, bool):
        yield str(value)


def _parts(value: Any) -> Any:
    if isinstance(value, dict):
        return value.values()
    if isinstance(value, list | tuple | set | frozenset):
        return value
    if dataclasses.is_dataclass(value):
        return [getattr(value, field.name, None) for field in dataclasses.fields(value)]
    if hasattr(type(value), "model_fields"):
        return value.__dict__.values()
    return ()


def _names_secret(name: str) -> bool:
    words = name.upper().split("_")
    if words[-1] in _NOT_THE_SECRET:
        return False
    return not _SECRET_WORDS.isdisjoint(words[1:] or words) or name.upper().endswith(_SECRET_KEYS)


def _is_secret_like(value: str) -> bool:
    """Whether a variable's value is a secret rather than a path, a number or a word."""
    return len(value) >= SHORTEST and not value.startswith(("/", "~/", "./")) and value.lower() not in _ONLY_WORDS
