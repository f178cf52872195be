"""Bases for blocks of a certain use: what their subclasses have to provide."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, Generic, Self, TypeVar

from prefect_nb.blocks.core import Block
from prefect_nb.exceptions import MissingContextError
from prefect_nb.execution.logs import RunLogger, get_logger, get_run_logger

T = TypeVar("T")


class NotificationError(Exception):
    """A notification was not delivered."""

    def __init__(self, log: str) -> None:
        super().__init__(log)
        self.log = log


class _Logging:
    @property
    def logger(self) -> logging.Logger | RunLogger:
        """The logger of the run this is used in; outside any, one of the class's name."""
        try:
            return get_run_logger()
        except MissingContextError:
            return get_logger(type(self).__name__)


class CredentialsBlock(_Logging, Block, ABC):
    """Credentials, and the client they make."""

    @abstractmethod
    def get_client(self, *args: Any, **kwargs: Any) -> Any:
        """A client that uses these credentials."""


class NotificationBlock(_Logging, Block, ABC):
    """Sends messages."""

    _block_schema_capabilities: ClassVar[list[str] | None] = ["notify"]

    @abstractmethod
    def notify(self, body: str, subject: str | None = None) -> Any:
        """Send a message."""

    _raise_on_failure: bool = False

    @contextmanager
    def raise_on_failure(self) -> Iterator[None]:
        """Inside: a message that is not delivered raises `NotificationError`."""
        self._raise_on_failure = True
        try:
            yield
        finally:
            self._raise_on_failure = False


class JobRun(_Logging, ABC, Generic[T]):
    """One run of a job elsewhere."""

    @abstractmethod
    def wait_for_completion(self) -> Any:
        """Wait until it has ended."""

    @abstractmethod
    def fetch_result(self) -> Any:
        """What it gave."""


class JobBlock(_Logging, Block, ABC):
    """A job elsewhere that can be started."""

    @abstractmethod
    def trigger(self) -> Any:
        """Start it; gives a `JobRun`."""


class DatabaseBlock(_Logging, Block, ABC):
    """A database that answers queries."""

    @abstractmethod
    def fetch_one(self, operation: str, parameters: dict[str, Any] | None = None, **execution_kwargs: Any) -> Any:
        """The first row."""

    @abstractmethod
    def fetch_many(
        self, operation: str, parameters: dict[str, Any] | None = None, size: int | None = None, **execution_kwargs: Any
    ) -> Any:
        """So many rows."""

    @abstractmethod
    def fetch_all(self, operation: str, parameters: dict[str, Any] | None = None, **execution_kwargs: Any) -> Any:
        """Every row."""

    @abstractmethod
    def execute(self, operation: str, parameters: dict[str, Any] | None = None, **execution_kwargs: Any) -> Any:
        """Execute a statement that gives no rows."""

    @abstractmethod
    def execute_many(self, operation: str, seq_of_parameters: list[dict[str, Any]], **execution_kwargs: Any) -> Any:
        """Execute a statement once for each of these parameters."""

    def __enter__(self) -> Self:
        raise NotImplementedError(f"{type(self).__name__} does not support context management.")

    def __exit__(self, *args: object) -> None:
        raise NotImplementedError(f"{type(self).__name__} does not support context management.")


class ObjectStorageBlock(_Logging, Block, ABC):
    """A place that keeps files."""

    @abstractmethod
    def download_object_to_path(self, from_path: str, to_path: str | Path, **download_kwargs: Any) -> Any:
        """One file to a local path."""

    @abstractmethod
    def download_object_to_file_object(self, from_path: str, to_file_object: BinaryIO, **download_kwargs: Any) -> Any:
        """One file into an open one."""

    @abstractmethod
    def download_folder_to_path(self, from_folder: str, to_folder: str | Path, **download_kwargs: Any) -> Any:
        """A folder to a local path."""

    @abstractmethod
    def upload_from_path(self, from_path: str | Path, to_path: str, **upload_kwargs: Any) -> Any:
        """A local file."""

    @abstractmethod
    def upload_from_file_object(self, from_file_object: BinaryIO, to_path: str, **upload_kwargs: Any) -> Any:
        """What an open file holds."""

    @abstractmethod
    def upload_from_folder(self, from_folder: str | Path, to_folder: str, **upload_kwargs: Any) -> Any:
        """A local folder."""


class SecretBlock(_Logging, Block, ABC):
    """A place that keeps secrets."""

    @abstractmethod
    def read_secret(self) -> bytes:
        """The secret."""

    @abstractmethod
    def write_secret(self, secret_data: bytes) -> str:
        """Keep a secret; gives its key."""
