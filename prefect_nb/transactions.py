"""Transactions: tasks that are committed together, or rolled back together.

    with transaction():
        write_file(text)       # a failure from here on calls the rollback hooks of what has completed, last first
        check_file()

`task.on_rollback` and `task.on_commit` give a task its hooks. `transaction(key=...)` keeps a staged value under the key,
so that the next entry finds it committed.
"""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from prefect_nb.execution.transaction_modes import CommitMode, IsolationLevel, TransactionState
from prefect_nb.execution.transactions import AsyncTransaction, BaseTransaction, Transaction, get_transaction
from prefect_nb.home import Home

__all__ = [
    "AsyncTransaction",
    "BaseTransaction",
    "CommitMode",
    "IsolationLevel",
    "Transaction",
    "TransactionState",
    "atransaction",
    "get_transaction",
    "transaction",
]


@contextmanager
def transaction(
    key: str | None = None,
    store: Any = None,
    commit_mode: CommitMode | None = None,
    isolation_level: IsolationLevel | None = None,
    overwrite: bool = False,
    write_on_commit: bool = True,
    logger: Any = None,
) -> Iterator[Transaction]:
    """Everything inside is committed together at the end, or rolled back when something fails.

    Args:
        key: keep what is staged under this key; if there is something already, the transaction is committed from the
            beginning (`txn.is_committed()`) and `txn.read()` gives it.
        store: where to keep it (a `ResultStore`); default: the home's cache.
        commit_mode: LAZY (default) at the end of the outermost transaction, EAGER at this one's own, OFF only when
            `txn.commit()` is called.
        isolation_level: SERIALIZABLE holds the key's lock meanwhile; the store needs a lock manager.
        overwrite: begin anew although there is something under the key.
        write_on_commit: keep what is staged.
        logger: where hooks and their errors are logged.

    Raises:
        ConfigurationError: SERIALIZABLE, and nothing that locks.
    """
    with Transaction(
        key=key,
        store=_store_for(key, store),
        commit_mode=commit_mode,
        isolation_level=isolation_level,
        overwrite=overwrite,
        write_on_commit=write_on_commit,
        logger=logger,
    ) as entered:
        yield entered


@asynccontextmanager
async def atransaction(
    key: str | None = None,
    store: Any = None,
    commit_mode: CommitMode | None = None,
    isolation_level: IsolationLevel | None = None,
    overwrite: bool = False,
    write_on_commit: bool = True,
    logger: Any = None,
) -> AsyncIterator[AsyncTransaction]:
    """`transaction` for coroutines: async hooks are awaited on their own loop. The arguments are the same."""
    async with AsyncTransaction(
        key=key,
        store=_store_for(key, store),
        commit_mode=commit_mode,
        isolation_level=isolation_level,
        overwrite=overwrite,
        write_on_commit=write_on_commit,
        logger=logger,
    ) as entered:
        yield entered


def _store_for(key: str | None, store: Any) -> Any:
    if key is None or store is not None:
        return store
    from prefect_nb.execution.records import HomeRecords

    return HomeRecords(Home.current())
