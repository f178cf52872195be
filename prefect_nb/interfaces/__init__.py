"""The ports: what the imperative shell needs of storage, of results and of whoever calls a body.

Each protocol says its obligations in prose; one contract suite per port (`tests/contracts/`) is run by every
implementation. Implementations live in `store/`, `results/`, `runners/`; only `home` picks one.
"""

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

__all__ = [
    "CacheEntry",
    "Change",
    "Emit",
    "Entry",
    "KeyParts",
    "LogLine",
    "Observer",
    "Owner",
    "Problem",
    "Request",
    "ResultStore",
    "RunQuery",
    "Runner",
    "Store",
    "Work",
]
