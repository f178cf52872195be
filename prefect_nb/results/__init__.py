"""Results kept as files: serializers turn values into bytes, the store keeps the bytes by content."""

from prefect_nb.results.local import LocalResultStore
from prefect_nb.results.serializers import (
    CompressedJSONSerializer,
    CompressedPickleSerializer,
    CompressedSerializer,
    JSONSerializer,
    PickleSerializer,
    Serializer,
    resolve_serializer,
)

__all__ = [
    "CompressedJSONSerializer",
    "CompressedPickleSerializer",
    "CompressedSerializer",
    "JSONSerializer",
    "LocalResultStore",
    "PickleSerializer",
    "Serializer",
    "resolve_serializer",
]
