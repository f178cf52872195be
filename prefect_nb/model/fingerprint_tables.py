"""Digests of pandas, polars and arrow tables, column by column."""

import io
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from xxhash import xxh3_128, xxh3_128_digest

from prefect_nb.model.fingerprint_arrays import Digest, Pieces, buffer_digest, dtype_name
from prefect_nb.model.fingerprint_parts import Unhashable, seal


def pandas_pieces(value: Any, digest: Digest) -> Pieces | bytes | None:
    """Return the digest of a DataFrame, Series, Index or extension array; None for pandas' other types.

    Labels, order, dtypes, index and names count; how the values are laid out in memory does not.
    """
    import pandas as pd

    if isinstance(value, pd.DataFrame):
        columns = [(label, value.iloc[:, position].array) for position, label in enumerate(value.columns)]
        named = [*_columns(columns, lambda array: _pandas_array(array, digest)), ("labels", digest(value.columns))]
        facts = {"shape": f"{value.shape[0]}x{value.shape[1]}", "length": str(value.shape[1])}
        named += [("index", digest(value.index)), ("class", digest(type(value))), ("attrs", digest(value.attrs))]
        return Pieces("pandas.frame", named, facts)
    if isinstance(value, pd.Series):
        named = [("data", _pandas_array(value.array, digest)), ("index", digest(value.index))]
        named += [("name", digest(value.name)), ("class", digest(type(value))), ("attrs", digest(value.attrs))]
        return Pieces("pandas.series", named, {"dtype": str(value.dtype), "shape": str(len(value))})
    if isinstance(value, pd.Index):
        return _pandas_index(value, digest)
    if isinstance(value, pd.api.extensions.ExtensionArray):
        return _pandas_array(value, digest)
    if isinstance(value, pd.api.extensions.ExtensionDtype) and not isinstance(value, pd.CategoricalDtype):
        return seal("pandas.dtype", repr(value).encode())
    if isinstance(value, pd.CategoricalDtype):
        return seal("pandas.categorical", digest(value.categories), digest(value.ordered))
    return None


def _columns(columns: Iterable[tuple[Any, Any]], column_digest: Any) -> list[tuple[str, bytes]]:
    named = []
    for label, column in columns:
        try:
            named.append((f"column {label}", column_digest(column)))
        except Unhashable as refusal:
            raise refusal.within(f"[{label!r}]") from None
    return named


def _pandas_index(index: Any, digest: Digest) -> bytes:
    import pandas as pd

    names = digest(list(index.names))
    if isinstance(index, pd.RangeIndex):
        return seal("pandas.range", digest(range(index.start, index.stop, index.step)), names)
    if isinstance(index, pd.MultiIndex):
        levels = [_pandas_array(index.get_level_values(level).array, digest) for level in range(index.nlevels)]
        return seal("pandas.multiindex", *levels, names)
    return seal("pandas.index", _pandas_array(index.array, digest), names, digest(type(index)))


def _pandas_array(array: Any, digest: Digest) -> bytes:
    import numpy as np
    import pandas as pd

    arrays = pd.arrays
    if isinstance(array, arrays.NumpyExtensionArray):
        data = array.to_numpy()
        return seal("numpy", dtype_name(data.dtype).encode(), buffer_digest(data, digest))
    if isinstance(array, pd.Categorical):
        return seal("categorical", digest(array.codes), digest(array.categories), digest(array.ordered))
    dtype = repr(array.dtype).encode()
    if isinstance(array, arrays.DatetimeArray | arrays.TimedeltaArray | arrays.PeriodArray):
        return seal("time", dtype, buffer_digest(array.asi8, digest))
    if isinstance(array, arrays.IntegerArray | arrays.FloatingArray | arrays.BooleanArray):
        # values under the mask are leftovers, not data
        known = array[~array.isna()].to_numpy(dtype=array.dtype.numpy_dtype)
        return seal("masked", dtype, buffer_digest(known, digest), buffer_digest(np.asarray(array.isna()), digest))
    if isinstance(array, arrays.ArrowExtensionArray | arrays.ArrowStringArray):
        return seal("arrow", dtype, _arrow_column(array.__arrow_array__(), digest))
    if isinstance(array, arrays.IntervalArray):
        return seal("interval", dtype, digest(array.left), digest(array.right))
    return seal("objects", dtype, digest(list(array)))


def polars_pieces(value: Any, digest: Digest) -> Pieces | bytes | None:
    """Return the digest of a DataFrame or Series; None for polars' other types.

    Raises Unhashable for a LazyFrame: it is a plan over sources that may change, not data.
    """
    import polars as pl

    if isinstance(value, pl.LazyFrame):
        raise Unhashable("cannot hash polars.LazyFrame, a plan and not data: collect() it first")
    if isinstance(value, pl.DataFrame):
        columns = [(series.name, series) for series in value.get_columns()]
        named = _columns(columns, lambda series: _polars_column(series, digest))
        facts = {"shape": f"{value.height}x{value.width}", "length": str(value.width)}
        return Pieces("polars.frame", [*named, ("class", digest(type(value)))], facts)
    if isinstance(value, pl.Series):
        facts = {"dtype": str(value.dtype), "shape": str(len(value)), "name": value.name}
        return Pieces("polars.series", [("data", _polars_column(value, digest))], facts)
    return None


def _polars_column(series: Any, digest: Digest) -> bytes:
    import polars as pl

    nulls = _ipc(series.is_null().cast(pl.UInt8)) if series.null_count() else b""
    data = _polars_data(series.drop_nulls(), digest)
    return seal("polars.column", repr(series.dtype).encode(), len(series).to_bytes(8, "little"), nulls, data)


def _polars_data(series: Any, digest: Digest) -> bytes:
    import polars as pl

    match series.dtype:
        case pl.Categorical():
            return _ipc(series.cast(pl.String))
        case pl.Enum():
            return digest(series.dtype.categories) + _ipc(series.cast(pl.String))
        case pl.Boolean():  # the bits beyond the last value are leftovers
            return _ipc(series.cast(pl.UInt8))
        case pl.Object():
            return digest(series.to_list())
        case pl.Array():
            return _polars_data(series.arr.to_list(), digest)
        case pl.List():
            lengths = series.list.len()
            return _ipc(lengths) + _polars_column(series.filter(lengths > 0).explode(), digest)
        case pl.Struct():
            fields = series.struct.unnest().get_columns()
            return b"".join(_polars_column(field, digest) for field in fields)
    return _ipc(series)


def _ipc(series: Any) -> bytes:
    """Hash a series without nulls as an Arrow file, in which chunks, offsets and string views are laid out one way."""
    import polars as pl

    # gathering leaves behind the bitmap of nulls that were filtered out before
    gathered = series.alias("").gather(pl.int_range(len(series), dtype=pl.UInt32, eager=True))
    target = io.BytesIO()
    frame = gathered.rechunk().to_frame()
    frame.write_ipc(target, compression="uncompressed", compat_level=pl.CompatLevel.oldest())
    return xxh3_128_digest(target.getbuffer())


def arrow_pieces(value: Any, digest: Digest) -> Pieces | bytes | None:
    """Return the digest of a table, record batch, array, scalar or type, whatever its chunks; None for other types."""
    import pyarrow as pa

    if isinstance(value, pa.Table | pa.RecordBatch):
        named = _columns(zip(value.column_names, value.columns, strict=True), lambda item: _arrow_column(item, digest))
        facts = {"shape": f"{value.num_rows}x{value.num_columns}", "length": str(value.num_columns)}
        named.append(("schema", value.schema.to_string(truncate_metadata=False).encode()))
        return Pieces(f"arrow.{type(value).__name__}", named, facts)
    if isinstance(value, pa.Array | pa.ChunkedArray):
        return seal("arrow.array", _arrow_column(value, digest))
    if isinstance(value, pa.Scalar):
        return seal("arrow.scalar", str(value.type).encode(), digest(value.as_py()))
    if isinstance(value, pa.DataType | pa.Schema | pa.Field):
        return seal("arrow.type", str(value).encode())
    if isinstance(value, pa.Buffer):
        return seal("arrow.buffer", xxh3_128_digest(memoryview(value)))
    return None


def _arrow_column(column: Any, digest: Digest) -> bytes:
    import pyarrow as pa

    chunks = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
    return _arrow_chunks(chunks, column.type, digest)


def _arrow_chunks(chunks: Sequence[Any], kind: Any, digest: Digest) -> bytes:
    """Hash values and null positions apart: what lies under a null, and where a chunk ends, is not data."""
    import pyarrow as pa
    import pyarrow.compute as pc

    head = (str(kind).encode(), sum(len(chunk) for chunk in chunks).to_bytes(8, "little"))
    simpler = _simpler_arrow(chunks, kind)
    if simpler is not None:
        return seal("arrow.encoded", *head, _arrow_chunks(*simpler, digest))
    write = _arrow_writer(kind, digest)
    if write is None:
        return seal("arrow.objects", *head, digest([item for chunk in chunks for item in chunk.to_pylist()]))
    nulls = b""
    if any(chunk.null_count for chunk in chunks):
        nulls = _fixed_width(pc.cast(chunk.is_null(), pa.uint8()) for chunk in chunks)
        chunks = [chunk.drop_null() for chunk in chunks]
    return seal("arrow.column", *head, nulls, write(chunks))


def _simpler_arrow(chunks: Sequence[Any], kind: Any) -> tuple[list[Any], Any] | None:
    """Return the same values in a type with fewer ways to store them; None when there is none."""
    import pyarrow as pa

    types = pa.types
    if isinstance(kind, pa.BaseExtensionType):
        return [chunk.storage for chunk in chunks], kind.storage_type
    if types.is_dictionary(kind):
        return [chunk.dictionary_decode() for chunk in chunks], kind.value_type
    if types.is_string(kind) or types.is_string_view(kind):
        return [chunk.cast(pa.large_string()) for chunk in chunks], pa.large_string()
    if types.is_binary(kind) or types.is_binary_view(kind):
        return [chunk.cast(pa.large_binary()) for chunk in chunks], pa.large_binary()
    if types.is_boolean(kind):
        return [chunk.cast(pa.uint8()) for chunk in chunks], pa.uint8()
    return None


def _arrow_writer(kind: Any, digest: Digest) -> Callable[[Sequence[Any]], bytes] | None:
    import pyarrow as pa

    types = pa.types
    if types.is_primitive(kind) or types.is_decimal(kind) or types.is_fixed_size_binary(kind):
        return _fixed_width
    if types.is_large_string(kind) or types.is_large_binary(kind):
        return _variable_width
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        return lambda chunks: _arrow_lists(chunks, kind, digest)
    if types.is_struct(kind):
        return lambda chunks: b"".join(
            _arrow_chunks(list(field), field[0].type, digest)
            for field in zip(*(chunk.flatten() for chunk in chunks), strict=True)
        )
    return None


def _arrow_lists(chunks: Sequence[Any], kind: Any, digest: Digest) -> bytes:
    import pyarrow as pa
    import pyarrow.compute as pc

    lengths = _fixed_width(pc.cast(pc.list_value_length(chunk), pa.int64()) for chunk in chunks)
    return lengths + _arrow_chunks([chunk.flatten() for chunk in chunks], kind.value_type, digest)


def _fixed_width(chunks: Iterable[Any]) -> bytes:
    hasher = xxh3_128()
    for chunk in chunks:
        width = chunk.type.bit_width // 8
        data = chunk.buffers()[1]
        if data is not None:
            hasher.update(memoryview(data)[chunk.offset * width : (chunk.offset + len(chunk)) * width])
    return hasher.digest()


def _variable_width(chunks: Sequence[Any]) -> bytes:
    import pyarrow as pa
    import pyarrow.compute as pc

    lengths = _fixed_width(pc.cast(pc.binary_length(chunk), pa.int64()) for chunk in chunks)
    hasher = xxh3_128()
    for chunk in chunks:
        _, offsets, data = chunk.buffers()
        if data is not None and len(chunk):
            ends = memoryview(offsets).cast("q")
            hasher.update(memoryview(data)[ends[chunk.offset] : ends[chunk.offset + len(chunk)]])
    return lengths + hasher.digest()
