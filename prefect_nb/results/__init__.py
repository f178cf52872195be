"""Results kept as files: serializers turn values into bytes, the store keeps the bytes by content."""

from prefect_nb.results.base import BaseResultStore
from prefect_nb.results.local import LocalResultStore
from prefect_nb.results.records import (
    ResultRecord,
    ResultRecordMetadata,
    ResultStore,
    get_default_persist_setting,
    get_default_persist_setting_for_tasks,
    get_default_result_serializer,
    get_result_store,
    should_persist_result,
)
from prefect_nb.results.remote import RemoteResultStore
from prefect_nb.results.serializer_base import Serializer
from prefect_nb.results.serializers import (
    CompressedJSONSerializer,
    CompressedPickleSerializer,
    CompressedSerializer,
    JSONSerializer,
    PickleSerializer,
    resolve_serializer,
)
from prefect_nb.results.stores import ResultStores

__all__ = [
    "BaseResultStore",
    "CompressedJSONSerializer",
    "CompressedPickleSerializer",
    "CompressedSerializer",
    "JSONSerializer",
    "LocalResultStore",
    "PickleSerializer",
    "RemoteResultStore",
    "ResultRecord",
    "ResultRecordMetadata",
    "ResultStore",
    "ResultStores",
    "Serializer",
    "get_default_persist_setting",
    "get_default_persist_setting_for_tasks",
    "get_default_result_serializer",
    "get_result_store",
    "resolve_serializer",
    "should_persist_result",
]
