"""Storages that can be configured, saved as blocks and named as `result_storage`.

    LocalFileSystem(basepath="/data/results").save("shared")
    RemoteFileSystem(basepath="s3://bucket/results", settings={"key": ..., "secret": SecretStr(...)}).save("s3")

    @task(result_storage="remote-file-system/s3")
    def train(): ...

Secrets in `settings` are encrypted in a saved block if they are given as `SecretStr`.
"""

from __future__ import annotations

import asyncio
import shutil
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field, field_validator

from prefect_nb.execution.blocks import Block
from prefect_nb.execution.duality import dual
from prefect_nb.results.stores import plain_settings
from prefect_nb.settings import get_settings


class ReadableFileSystem(Block, ABC):
    """A storage that files can be read from."""

    _block_schema_capabilities: ClassVar[list[str] | None] = ["read-path"]

    @abstractmethod
    def read_path(self, path: str) -> Any:
        """The bytes at a path."""


class WritableFileSystem(Block, ABC):
    """A storage that files can be read from and written to."""

    _block_schema_capabilities: ClassVar[list[str] | None] = ["read-path", "write-path"]

    @abstractmethod
    def read_path(self, path: str) -> Any:
        """The bytes at a path."""

    @abstractmethod
    def write_path(self, path: str, content: bytes) -> Any:
        """Write bytes to a path."""


class ReadableDeploymentStorage(Block, ABC):
    """A storage that whole folders can be fetched from."""

    _block_schema_capabilities: ClassVar[list[str] | None] = ["get-directory"]

    @abstractmethod
    def get_directory(self, from_path: str | None = None, local_path: str | None = None) -> Any:
        """Copy a folder from here."""


class WritableDeploymentStorage(Block, ABC):
    """A storage that whole folders can be fetched from and put into."""

    _block_schema_capabilities: ClassVar[list[str] | None] = ["get-directory", "put-directory"]

    @abstractmethod
    def get_directory(self, from_path: str | None = None, local_path: str | None = None) -> Any:
        """Copy a folder from here."""

    @abstractmethod
    def put_directory(
        self, local_path: str | None = None, to_path: str | None = None, ignore_file: str | None = None
    ) -> Any:
        """Copy a folder to here."""


class LocalFileSystem(WritableFileSystem, WritableDeploymentStorage):
    """A folder on this machine.

    Args:
        basepath: the folder; None: the default folder of results.
    """

    _block_type_name = "Local File System"
    _block_type_slug = "local-file-system"

    basepath: str | None = Field(default=None, description="Default local path for this block to write to.")

    @field_validator("basepath", mode="before")
    @classmethod
    def _as_text(cls, value: str | Path | None) -> str | None:
        return str(value) if isinstance(value, Path) else value

    def _resolve_path(self, path: str) -> Path:
        settings = get_settings()
        default = settings.results_local_storage_path or settings.home / "results"
        base = (Path(self.basepath).expanduser() if self.basepath else default).resolve()
        resolved = (base / path).resolve() if path else base
        if resolved != base and base not in resolved.parents:
            raise ValueError(f"Provided path {resolved} is outside of the base path {base}.")
        return resolved

    @dual()
    def read_path(self, path: str) -> bytes:
        """The bytes at a path below `basepath`.

        Raises:
            ValueError: there is no such file, or the path leads elsewhere.
        """
        resolved = self._resolve_path(path)
        if not resolved.exists():
            raise ValueError(f"Path {resolved} does not exist.")
        if not resolved.is_file():
            raise ValueError(f"Path {resolved} is not a file.")
        return resolved.read_bytes()

    async def aread_path(self, path: str) -> bytes:
        """As `read_path`."""
        return await asyncio.to_thread(LocalFileSystem.read_path.sync, self, path)  # type: ignore[attr-defined]

    @dual()
    def write_path(self, path: str, content: bytes) -> str:
        """Write bytes to a path below `basepath`, making folders. Returns the whole path. Raises ValueError."""
        resolved = self._resolve_path(path)
        if resolved.exists() and not resolved.is_file():
            raise ValueError(f"Path {resolved} already exists and is not a file.")
        resolved.parent.mkdir(parents=True, exist_ok=True)
        resolved.write_bytes(content)
        return str(resolved)

    async def awrite_path(self, path: str, content: bytes) -> str:
        """As `write_path`."""
        return await asyncio.to_thread(LocalFileSystem.write_path.sync, self, path, content)  # type: ignore[attr-defined]

    @dual()
    def get_directory(self, from_path: str | None = None, local_path: str | None = None) -> None:
        """Copy a folder from here (default: `basepath`) to a local path (default: the working directory)."""
        _copy_folder(self._resolve_path(from_path or ""), Path(local_path or ".").resolve())

    async def aget_directory(self, from_path: str | None = None, local_path: str | None = None) -> None:
        """As `get_directory`."""
        await asyncio.to_thread(LocalFileSystem.get_directory.sync, self, from_path, local_path)  # type: ignore[attr-defined]

    @dual()
    def put_directory(
        self,
        local_path: str | None = None,
        to_path: str | None = None,
        ignore_file: str | None = None,  # noqa: ARG002
    ) -> None:
        """Copy a local folder (default: the working directory) to here (default: `basepath`)."""
        _copy_folder(Path(local_path or ".").resolve(), self._resolve_path(to_path or ""))

    async def aput_directory(
        self, local_path: str | None = None, to_path: str | None = None, ignore_file: str | None = None
    ) -> None:
        """As `put_directory`."""
        await asyncio.to_thread(LocalFileSystem.put_directory.sync, self, local_path, to_path, ignore_file)  # type: ignore[attr-defined]


class RemoteFileSystem(WritableFileSystem, WritableDeploymentStorage):
    """A folder on any storage that fsspec has a driver for.

    Args:
        basepath: its URL, such as "s3://bucket/folder".
        settings: options of the driver: credentials, endpoints.
    """

    _block_type_name = "Remote File System"
    _block_type_slug = "remote-file-system"

    basepath: str = Field(default=..., description="Default path for this block to write to.")
    settings: dict[str, Any] = Field(default_factory=dict, description="Additional settings to pass through to fsspec.")

    @field_validator("basepath")
    @classmethod
    def check_basepath(cls, value: str) -> str:
        """A scheme, and something after it."""
        scheme, separator, place = value.partition("://")
        if not separator or not scheme:
            raise ValueError(f"Base path must start with a scheme. Got {value!r}.")
        if not place:
            raise ValueError(f"Base path must include a location after the scheme. Got {value!r}.")
        if scheme == "file":
            raise ValueError("Base path scheme cannot be 'file'. Use `LocalFileSystem` instead for local file access.")
        return value

    @property
    def filesystem(self) -> Any:
        """The driver.

        Raises:
            RuntimeError: it, or fsspec, is not installed.
        """
        scheme = self.basepath.partition("://")[0]
        try:
            import fsspec

            return fsspec.filesystem(scheme, **plain_settings(self.settings))
        except ImportError as error:
            raise RuntimeError(
                f"File system created with scheme {scheme!r} from base path {self.basepath!r} could not be created. You "
                "are likely missing a Python module required to use the given storage protocol "
                f"(pip install 'prefect-nb[remote]' and the driver): {error}"
            ) from error

    def _resolve_path(self, path: str) -> str:
        base = self.basepath.rstrip("/")
        inner = path.removeprefix(base).strip("/")
        if ".." in inner.split("/") or "://" in inner:
            raise ValueError(f"Provided path {path} is outside of the base path {base}.")
        return f"{base}/{inner}" if inner else base

    @dual()
    def read_path(self, path: str) -> bytes:
        """The bytes at a path below `basepath`. Raises FileNotFoundError, ValueError, and what the driver raises."""
        content: bytes = self.filesystem.cat_file(self._resolve_path(path))
        return content

    async def aread_path(self, path: str) -> bytes:
        """As `read_path`."""
        return await asyncio.to_thread(RemoteFileSystem.read_path.sync, self, path)  # type: ignore[attr-defined]

    @dual()
    def write_path(self, path: str, content: bytes) -> str:
        """Write bytes to a path below `basepath`. Returns the whole path. Raises what the driver raises."""
        target, filesystem = self._resolve_path(path), self.filesystem
        filesystem.makedirs(target.rpartition("/")[0], exist_ok=True)
        filesystem.pipe_file(target, content)
        return target

    async def awrite_path(self, path: str, content: bytes) -> str:
        """As `write_path`."""
        return await asyncio.to_thread(RemoteFileSystem.write_path.sync, self, path, content)  # type: ignore[attr-defined]

    @dual()
    def get_directory(self, from_path: str | None = None, local_path: str | None = None) -> None:
        """Copy a folder from here (default: `basepath`) to a local path (default: the working directory)."""
        source = self._resolve_path(from_path or "")
        self.filesystem.get(f"{source}/", str(Path(local_path or ".").resolve()), recursive=True)

    async def aget_directory(self, from_path: str | None = None, local_path: str | None = None) -> None:
        """As `get_directory`."""
        await asyncio.to_thread(RemoteFileSystem.get_directory.sync, self, from_path, local_path)  # type: ignore[attr-defined]

    @dual()
    def put_directory(
        self,
        local_path: str | None = None,
        to_path: str | None = None,
        ignore_file: str | None = None,  # noqa: ARG002
        overwrite: bool = True,
    ) -> int:
        """Copy a local folder (default: the working directory) to here (default: `basepath`).

        Returns:
            How many files were copied.
        """
        source, target, filesystem = (
            Path(local_path or ".").resolve(),
            self._resolve_path(to_path or ""),
            self.filesystem,
        )
        copied = 0
        for path in sorted(found for found in source.rglob("*") if found.is_file()):
            remote = f"{target}/{path.relative_to(source).as_posix()}"
            if overwrite or not filesystem.exists(remote):
                filesystem.makedirs(remote.rpartition("/")[0], exist_ok=True)
                filesystem.put_file(str(path), remote)
                copied += 1
        return copied

    async def aput_directory(
        self,
        local_path: str | None = None,
        to_path: str | None = None,
        ignore_file: str | None = None,
        overwrite: bool = True,
    ) -> int:
        """As `put_directory`."""
        copied: int = await asyncio.to_thread(
            RemoteFileSystem.put_directory.sync,  # type: ignore[attr-defined]
            self,
            local_path,
            to_path,
            ignore_file,
            overwrite,
        )
        return copied


def _copy_folder(source: Path, target: Path) -> None:
    if source != target:
        shutil.copytree(source, target, dirs_exist_ok=True)


__all__ = [
    "LocalFileSystem",
    "ReadableDeploymentStorage",
    "ReadableFileSystem",
    "RemoteFileSystem",
    "WritableDeploymentStorage",
    "WritableFileSystem",
]
