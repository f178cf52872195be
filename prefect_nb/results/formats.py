"""Formats of the libraries that values come from: numpy's `.npy`, Parquet tables, PNG pictures.

They run no code when they are read, and outlive versions of the library. A value is written in one of them only if it
comes back exactly; what they cannot hold so is for pickle.
"""

import importlib.util
import io
import sys
from typing import Any

from prefect_nb.exceptions import SerializationError

_NUMPY_KINDS = frozenset("biufcmMSU")
_PNG_MODES = frozenset({"1", "L", "LA", "RGB", "RGBA"})
_TABLES = {("pandas", "DataFrame"): b"pandas", ("polars", "DataFrame"): b"polars", ("pyarrow", "Table"): b"pyarrow"}


def format_of(value: Any) -> str | None:
    """The format of ours that is made for values of this type; None: pickle is."""
    kind = type(value)
    root = kind.__module__.partition(".")[0]
    if root == "numpy":
        return "numpy" if is_plain_array(value) else None
    if (root, kind.__name__) in _TABLES:
        return "parquet" if root == "polars" or importlib.util.find_spec("pyarrow") is not None else None
    if root == "PIL":
        return "image"
    return None


def is_plain_array(value: Any) -> bool:
    """Whether numpy's format holds exactly this array."""
    numpy = sys.modules.get("numpy")
    if numpy is None or type(value) is not numpy.ndarray:
        return False
    dtype = value.dtype
    return dtype.kind in _NUMPY_KINDS and dtype.isbuiltin != 2 and dtype.metadata is None


def write_array(value: Any) -> bytes:
    """An array in `.npy` format, without pickle."""
    from numpy.lib import format as npy

    buffer = io.BytesIO()
    npy.write_array(buffer, value, allow_pickle=False)
    return buffer.getvalue()


def read_array(blob: bytes) -> Any:
    """The array again, writable."""
    from numpy.lib import format as npy

    return npy.read_array(io.BytesIO(blob), allow_pickle=False)


def write_table(value: Any) -> bytes:
    """A pandas or polars frame or a pyarrow table as Parquet, after the name of its library.

    Raises:
        SerializationError: it would not come back as it is.
    """
    kind = type(value)
    library = _TABLES.get((kind.__module__.partition(".")[0], kind.__name__))
    if library is None:
        raise SerializationError(f"Parquet holds tables of pandas, polars and pyarrow, not a {kind.__qualname__}.")
    buffer = io.BytesIO(library + b"\n")
    buffer.seek(0, io.SEEK_END)
    if library == b"polars":
        value.write_parquet(buffer)
    else:
        import pyarrow as pa
        import pyarrow.parquet as pq

        table = value if library == b"pyarrow" else pa.Table.from_pandas(value)
        pq.write_table(table, buffer, compression="zstd", store_schema=True)
    blob = buffer.getvalue()
    if not _SAME[library](value, read_table(blob)):
        raise SerializationError(f"This {kind.__qualname__} would not come back from Parquet exactly. Use 'pickle'.")
    return blob


def read_table(blob: bytes) -> Any:
    """The table again, of the library it came from."""
    library, _, content = blob.partition(b"\n")
    if library not in _TABLES.values():
        raise SerializationError("It does not name the library of its table.")
    if library == b"polars":
        import polars

        return polars.read_parquet(content)
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pq.read_table(pa.BufferReader(content))
    return table if library == b"pyarrow" else table.to_pandas()


def _same_pandas(one: Any, other: Any) -> bool:
    import pandas as pd

    # Objects may come back as other objects that merely compare equal: a list as an array, None as NaN.
    if any(dtype.kind == "O" and dtype.name == "object" for dtype in (*one.index.to_frame().dtypes, *one.dtypes)):
        return False
    if not all(type(label) is str for label in one.columns) or one.attrs or not one.flags.allows_duplicate_labels:
        return False
    try:
        pd.testing.assert_frame_equal(
            one, other, check_exact=True, check_freq=True, check_column_type="exact", check_index_type="exact"
        )
    except AssertionError:
        return False
    return one.columns.name is other.columns.name and list(one.dtypes) == list(other.dtypes)


def _same_polars(one: Any, other: Any) -> bool:
    # A column of Python objects has no schema that anything could be compared by.
    return bool("Object" not in map(str, one.schema.values()) and one.schema == other.schema and one.equals(other))


def _same_arrow(one: Any, other: Any) -> bool:
    return bool(one.schema.equals(other.schema, check_metadata=True) and one.equals(other))


_SAME = {b"pandas": _same_pandas, b"polars": _same_polars, b"pyarrow": _same_arrow}


def write_picture(value: Any) -> bytes:
    """A PIL image as PNG; a matplotlib figure as the picture it shows.

    Raises:
        SerializationError: PNG would not give it back as it is.
    """
    buffer = io.BytesIO()
    if type(value).__module__.startswith("matplotlib.") and hasattr(value, "savefig"):
        value.savefig(buffer, format="png")
        return buffer.getvalue()
    from PIL import Image

    if type(value) is not Image.Image or value.mode not in _PNG_MODES or value.info:
        raise SerializationError("PNG holds plain pictures (black and white, grey, RGB, with alpha). Use 'pickle'.")
    value.save(buffer, format="PNG", compress_level=1)
    return buffer.getvalue()


def read_picture(blob: bytes) -> Any:
    """The picture as a PIL image."""
    from PIL import Image

    with Image.open(io.BytesIO(blob), formats=["PNG"]) as found:
        picture = found.copy()
    picture.info = {}
    return picture
