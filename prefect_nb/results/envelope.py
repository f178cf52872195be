"""What surrounds a kept value's bytes, wherever they are kept.

A result that is found by its content::

    magic (4 bytes) | version 1 (1) | serializer (1) | payload size (8, big endian) | SHA-256 (32) | payload

The hash covers all that comes before it and the payload, and is also the file's name, so any changed byte shows. The
serializer's number is only compared with what the reference says; such a file never chooses the code that reads it.

A result that is found by a key::

    magic | version 2 | serializer | payload size | SHA-256 | HMAC (32) | size of about (4) | about | payload

`about` is JSON: key, serializer and expiry. The hash covers head, about and payload; the HMAC, made with the home's
secret, covers the hash. Only a file so signed may say which serializer reads it.
"""

import hashlib
import struct

import msgspec

from prefect_nb.exceptions import ResultCorrupt
from prefect_nb.model.runs import ResultReference

_MAGIC = b"PNBR"
_BY_CONTENT, _BY_KEY = 1, 2
_HEAD = struct.Struct(">4sBBQ")
_ABOUT_SIZE = struct.Struct(">I")
_LARGEST_ABOUT = 16 * 1024
_NUMBERS = {
    "pickle": 1, "json": 2, "numpy": 3, "compressed/pickle": 4, "compressed/json": 5, "parquet": 6, "image": 7,
}  # fmt: skip
_OTHER = 0

HEADER_SIZE = _HEAD.size + 32
KEYED_HEADER_SIZE = HEADER_SIZE + 32 + _ABOUT_SIZE.size


class About(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """What a result kept under a key says of itself."""

    key: str
    serializer: str
    expires_us: int | None = None


class Keyed(msgspec.Struct, frozen=True):
    """A whole result that was kept under a key. Whether to believe it is for its signature to say."""

    about: About
    payload: bytes
    digest: bytes
    signature: bytes


_encode_about = msgspec.json.Encoder().encode
_decode_about = msgspec.json.Decoder(About).decode


def seal(serializer: str, payload: bytes) -> tuple[bytes, str]:
    """The header of a result found by its content, and its hash in hexadecimal digits."""
    head = _head(_BY_CONTENT, serializer, len(payload))
    digest = _digest(head, payload)
    return head + digest, digest.hex()


def check(header: bytes, payload: bytes, reference: ResultReference) -> None:
    """Raise `ResultCorrupt` unless these are the header and payload that the reference means."""
    if len(payload) != reference.size:
        raise ResultCorrupt(f"it has {len(payload):,} bytes instead of {reference.size:,}")
    head, digest = header[: _HEAD.size], header[_HEAD.size :]
    if head != _head(_BY_CONTENT, reference.serializer, reference.size):
        raise ResultCorrupt("its envelope does not fit")
    if digest.hex() != reference.sha256 or _digest(head, payload) != digest:
        raise ResultCorrupt("its checksum does not fit")


def digest_keyed(about: About, payload: bytes) -> tuple[bytes, bytes, bytes]:
    """Of a result kept under a key: what comes before the hash, the hash, and what comes between it and the payload."""
    head = _head(_BY_KEY, about.serializer, len(payload))
    text = _encode_about(about)
    between = _ABOUT_SIZE.pack(len(text)) + text
    return head, _digest(head + between, payload), between


def unseal_keyed(blob: bytes, key: str) -> Keyed:
    """The result kept under this key, after every check but its signature. Raises `ResultCorrupt`."""
    head = blob[: _HEAD.size]
    about_size = _keyed_sizes(blob)[0]
    start = KEYED_HEADER_SIZE + about_size
    digest = blob[_HEAD.size : HEADER_SIZE]
    signature = blob[HEADER_SIZE : HEADER_SIZE + 32]
    payload = blob[start:]
    if _digest(head + blob[HEADER_SIZE + 32 : start], payload) != digest:
        raise ResultCorrupt("its checksum does not fit")
    try:
        about = _decode_about(blob[KEYED_HEADER_SIZE:start])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise ResultCorrupt("it does not say what it is") from None
    if head != _head(_BY_KEY, about.serializer, len(payload)):
        raise ResultCorrupt("its envelope does not fit")
    if about.key != key:
        raise ResultCorrupt(f"it was kept under another key, {about.key!r}")
    return Keyed(about, payload, digest, signature)


def check_keyed_size(beginning: bytes, size: int) -> None:
    """Raise `ResultCorrupt` unless a file that begins so has this many bytes: asked before all of it is read."""
    if size != sum(_keyed_sizes(beginning, size)) + KEYED_HEADER_SIZE:
        raise ResultCorrupt(f"it has {size:,} bytes, which is not what its header says")


def _keyed_sizes(blob: bytes, size: int | None = None) -> tuple[int, int]:
    size = len(blob) if size is None else size
    if len(blob) < KEYED_HEADER_SIZE:
        raise ResultCorrupt(f"it has only {len(blob)} bytes")
    magic, version, _, payload_size = _HEAD.unpack_from(blob)
    if (magic, version) != (_MAGIC, _BY_KEY):
        raise ResultCorrupt("its envelope does not fit")
    (about_size,) = _ABOUT_SIZE.unpack_from(blob, KEYED_HEADER_SIZE - _ABOUT_SIZE.size)
    if about_size > _LARGEST_ABOUT or KEYED_HEADER_SIZE + about_size + payload_size != size:
        raise ResultCorrupt(f"it has {size:,} bytes, which is not what its header says")
    return about_size, payload_size


def _head(version: int, serializer: str, size: int) -> bytes:
    return _HEAD.pack(_MAGIC, version, _NUMBERS.get(serializer, _OTHER), size)


def _digest(head: bytes, payload: bytes) -> bytes:
    digest = hashlib.sha256(head)
    digest.update(payload)
    return digest.digest()
