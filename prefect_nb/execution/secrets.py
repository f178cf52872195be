"""What is recorded of values that hold secrets: masks, and beside them the arguments of flow runs, encrypted."""

from __future__ import annotations

import pickle
from typing import Any

import msgspec
from msgspec.structs import replace

from prefect_nb.exceptions import NotResumable
from prefect_nb.interfaces import Cipher, Entry
from prefect_nb.model import redaction
from prefect_nb.model.codec import is_note, jsonable
from prefect_nb.model.events import FlowRunCreated, Renamed, TaskRunCreated
from prefect_nb.model.runs import FlowRun, Run

LARGEST = 512 * 1024
"""Bytes of JSON that are recorded of one parameter; of more, only how many there were."""


def recorded_parameters(
    cipher: Cipher, given: dict[str, Any], accepted: dict[str, Any], hints: dict[str, Any]
) -> dict[str, Any]:
    """The fields of a `FlowRun` that hold its arguments. Secrets in them are looked for from then on.

    Args:
        cipher: encrypts those with secrets.
        given: the arguments as the caller gave them: these are recorded.
        accepted: the same as validation left them, which says what in them is secret.
        hints: their annotations, which say it where validation failed.

    Raises:
        SecretKeyError: there are secrets among them, and they cannot be encrypted.
    """
    shown: dict[str, Any] = {}
    notes: list[str] = []
    sealed: dict[str, bytes] = {}
    for name, value in given.items():
        secrets = list(redaction.secrets_in(accepted.get(name)))
        if secrets:
            value = accepted[name]
        for secret in secrets:
            redaction.notice(secret)
        plain = jsonable(redaction.masked(value) if secrets else value, limit=LARGEST)
        if is_note(plain, value):
            notes.append(name)
        if not secrets and isinstance(value, str) and "Secret" in str(hints.get(name)):
            redaction.learn(value)
            shown[name] = redaction.MASK
        else:
            shown[name] = redaction.redact_values(plain)
        if secrets or shown[name] != plain:
            pickled = _pickled(value)
            if pickled is not None:
                sealed[name] = pickled
    recorded: dict[str, Any] = {"parameters": shown, "unrecorded": tuple(name for name in notes if name not in sealed)}
    if sealed:
        recorded["sealed_parameters"] = cipher.encrypt(pickle.dumps(sealed))
    return recorded


def all_parameters(cipher: Cipher, run: FlowRun) -> dict[str, Any]:
    """A flow run's arguments as they were recorded, with those that hold secrets as they were given.

    Raises:
        SecretKeyError: they cannot be decrypted.
        NotResumable: of some only a note was recorded.
    """
    if run.unrecorded:
        names = ", ".join(map(repr, run.unrecorded))
        raise NotResumable(
            f"Flow run {run.name!r} was given what cannot be written down, or is too large to be: {names}. "
            "Start a new run."
        )
    if run.sealed_parameters is None:
        return run.parameters
    sealed = pickle.loads(cipher.decrypt(run.sealed_parameters))
    return {**run.parameters, **{name: pickle.loads(pickled) for name, pickled in sealed.items()}}


class Sealed(msgspec.Struct, frozen=True):
    """A value with secrets, encrypted; it stands where the value would."""

    text: str


def sealed(cipher: Cipher, value: Any) -> Any:
    """The value, encrypted if there are secrets in it: for what is kept in a file.

    Raises:
        SecretKeyError: it cannot be encrypted.
    """
    secrets = list(redaction.secrets_in(value))
    for secret in secrets:
        redaction.notice(secret)
    data = _pickled(value) if secrets else None
    return value if data is None else Sealed(cipher.encrypt(data))


def unsealed(cipher: Cipher, value: Any) -> Any:
    """What `sealed` was given.

    Raises:
        SecretKeyError: it cannot be decrypted.
    """
    return pickle.loads(cipher.decrypt(value.text)) if isinstance(value, Sealed) else value


def without_secrets(entry: Entry) -> Entry:
    """An event without the secrets that are known: where it brings names, tags or a first message into the history."""
    event = entry.event
    if isinstance(event, Renamed):
        name = redaction.redact(event.name)
        return replace(entry, event=replace(event, name=name), run=replace(entry.run, name=name))
    if not isinstance(event, FlowRunCreated | TaskRunCreated):
        return entry
    run: Run = replace(
        event.run,
        name=redaction.redact(event.run.name),
        state_message=event.run.state_message and redaction.redact(event.run.state_message),
        tags=tuple(map(redaction.redact, event.run.tags)),
        labels=redaction.redact_values(event.run.labels),
    )
    return replace(entry, event=type(event)(run), run=run)  # type: ignore[arg-type]


def _pickled(value: Any) -> bytes | None:
    import cloudpickle

    try:
        data: bytes = cloudpickle.dumps(value)
    except Exception:  # whatever a value's own hooks raise
        return None
    return data
