"""Serializers: values to bytes and back. See `prefect_nb.results.serializers`."""

from prefect_nb.results.json_values import decode_object as prefect_json_object_decoder
from prefect_nb.results.json_values import encode_object as prefect_json_object_encoder
from prefect_nb.results.serializer_base import Serializer
from prefect_nb.results.serializers import (
    CompressedJSONSerializer,
    CompressedPickleSerializer,
    CompressedSerializer,
    ImageSerializer,
    JSONSerializer,
    NumpySerializer,
    ParquetSerializer,
    PickleSerializer,
)

__all__ = [
    "CompressedJSONSerializer",
    "CompressedPickleSerializer",
    "CompressedSerializer",
    "ImageSerializer",
    "JSONSerializer",
    "NumpySerializer",
    "ParquetSerializer",
    "PickleSerializer",
    "Serializer",
    "prefect_json_object_decoder",
    "prefect_json_object_encoder",
]
