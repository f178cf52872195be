"""Digests of numpy arrays and scalars, and of scipy's sparse matrices, straight over their buffers."""

import sys
from collections.abc import Callable
from typing import Any, NamedTuple

from xxhash import xxh3_128, xxh3_128_digest

from prefect_nb.model.fingerprint_parts import seal

Digest = Callable[[object], bytes]

_BLOCK_BYTES = 4 * 1024 * 1024


class Pieces(NamedTuple):
    """A value's digest before it is sealed: named pieces, and plain facts that help to explain a difference."""

    tag: str
    named: list[tuple[str, bytes]]
    facts: dict[str, str]

    def seal(self) -> bytes:
        """Return the digest of all pieces and facts together."""
        texts = [(key, fact.encode()) for key, fact in self.facts.items()]
        return seal(self.tag, *(piece for key, item in [*texts, *self.named] for piece in (key.encode(), item)))


def numpy_pieces(value: Any, digest: Digest) -> Pieces | bytes | None:
    """Return the digest of a numpy value, or None when it is no array, scalar or dtype.

    Arrays are compared by shape, dtype (byte order included) and the bits of their elements in C order, whatever their
    strides: -0.0 and 0.0 differ, and so do NaNs of different bits. Elements of object arrays are hashed one by one.
    """
    import numpy as np

    if isinstance(value, np.dtype):
        return seal("numpy.dtype", dtype_name(value).encode())
    if isinstance(value, np.generic):
        return seal("numpy.scalar", dtype_name(value.dtype).encode(), buffer_digest(np.asarray(value), digest))
    if isinstance(value, np.ma.MaskedArray):
        pieces = _array("numpy.masked", value.filled(), digest)
        pieces.named.append(("mask", buffer_digest(np.ma.getmaskarray(value), digest)))
        return pieces
    if not isinstance(value, np.ndarray):
        return None
    if type(value) in (np.ndarray, np.memmap):
        return _array("numpy.array", value, digest)
    pieces = _array("numpy.subclass", np.asarray(value), digest)
    pieces.named.extend([("class", digest(type(value))), ("state", digest(getattr(value, "__dict__", None)))])
    return pieces


def _array(tag: str, array: Any, digest: Digest) -> Pieces:
    facts = {"dtype": dtype_name(array.dtype), "shape": "x".join(map(str, array.shape)) or "()"}
    return Pieces(tag, [("data", buffer_digest(array, digest))], facts)


def dtype_name(dtype: Any) -> str:
    """Return the dtype's own notation, with byte order and unit."""
    return repr(dtype) if dtype.names or dtype.kind == "T" else str(dtype.str)


def buffer_digest(array: Any, digest: Digest) -> bytes:
    """Return the digest of the elements in C order; no copy is made of a contiguous array."""
    import numpy as np

    dtype = array.dtype
    if dtype.names:
        return seal("fields", *(buffer_digest(array[name], digest) for name in dtype.names))
    if dtype.hasobject or dtype.kind == "T":
        return digest(array.ravel().tolist())
    if dtype.char in "gG":  # long doubles carry padding bytes of no fixed content
        return digest([repr(item) for item in array.ravel()])
    if array.nbytes == 0:
        return xxh3_128_digest(b"")
    if array.flags.c_contiguous:
        return xxh3_128_digest(array.reshape(-1).view(np.uint8))
    hasher = xxh3_128()
    rows = max(1, _BLOCK_BYTES * len(array) // array.nbytes)
    for start in range(0, len(array), rows):
        block: Any = np.ascontiguousarray(array[start : start + rows])
        hasher.update(block.reshape(-1).view(np.uint8))
    return hasher.digest()


def scipy_pieces(value: Any, digest: Digest) -> Pieces | None:
    """Return the digest of a sparse matrix or array by its parts, or None when it is something else."""
    sparse = sys.modules.get("scipy.sparse")
    if sparse is None or not sparse.issparse(value):
        return None
    facts = {"format": str(value.format), "dtype": dtype_name(value.dtype), "shape": "x".join(map(str, value.shape))}
    stored: Any = value
    names: tuple[str, ...]
    match value.format:
        case "csr" | "csc" | "bsr":
            names = ("indptr", "indices", "data")
        case "dia":
            names = ("offsets", "data")
        case _:
            stored, names = value.tocoo(), ("coords", "data")
    named = [(name, digest(getattr(stored, name))) for name in names]
    return Pieces("scipy.sparse", [*named, ("class", digest(type(value)))], facts)
