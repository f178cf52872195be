"""The ports: what the imperative shell needs of storage, of results and of whoever calls a body.

Each protocol says its obligations in prose; one contract suite per port (`tests/contracts/`) is run by every
implementation. Implementations live in `store/`, `results/`, `runners/`; only `home` picks one.
"""

from prefect_nb.interfaces.blocks import BlockDocument, BlockStore, BlockType, Cipher
from prefect_nb.interfaces.history import (
    CacheEntry,
    Change,
    Emit,
    Entry,
    KeyParts,
    LogLine,
    Observer,
    Owner,
    Problem,
    Request,
    ResultStore,
    Runner,
    RunQuery,
    Store,
    Work,
)
from prefect_nb.interfaces.metrics import MetricPoint, MetricStore, MetricSummary
from prefect_nb.interfaces.objects import Artifact, ArtifactQuery, ObjectStore, Variable
from prefect_nb.interfaces.outputs import Output, OutputStore, OutputSummary

__all__ = [
    "Artifact",
    "ArtifactQuery",
    "BlockDocument",
    "BlockStore",
    "BlockType",
    "CacheEntry",
    "Change",
    "Cipher",
    "Emit",
    "Entry",
    "KeyParts",
    "LogLine",
    "MetricPoint",
    "MetricStore",
    "MetricSummary",
    "ObjectStore",
    "Observer",
    "Output",
    "OutputStore",
    "OutputSummary",
    "Owner",
    "Problem",
    "Request",
    "ResultStore",
    "RunQuery",
    "Runner",
    "Store",
    "Variable",
    "Work",
]
