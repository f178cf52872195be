"""Artifacts: what a run leaves for people to see, shown under its cell and kept in the history.

Markdown, tables, links, images and progress bars, by Prefect's names; and `create_artifact(figure)` for anything that a
notebook shows as more than text. Artifacts of one key are its versions; `Artifact.get(key)` gives the newest.

    @task
    def report(frame):
        create_table_artifact([{"rows": len(frame)}], key="rows")
        create_artifact(frame.plot().figure, key="histogram")

Each `create_...` is awaited where it is called in a coroutine, and has a twin `acreate_...`.
"""

import asyncio
import html
import json
import math
import re
import warnings
from collections.abc import Coroutine
from datetime import datetime
from typing import Annotated, Any, Self
from uuid import UUID

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from prefect_nb.execution.duality import dual
from prefect_nb.interfaces import Artifact as _Kept
from prefect_nb.model.runs import to_datetime
from prefect_nb.service import artifacts as _service
from prefect_nb.service import current_run

_KEY = re.compile(r"[a-z0-9-]*")
_ROWS = 200


def _check_key(key: str | None) -> str | None:
    if key is not None and not _KEY.fullmatch(key):
        raise ValueError("Artifact key must only contain lowercase letters, numbers, and dashes.")
    return key


class ArtifactResponse(BaseModel):
    """An artifact as it is kept. A notebook shows what it holds. Times are UTC."""

    id: UUID
    created: datetime | None = Field(default=None, repr=False)
    updated: datetime | None = Field(default=None, repr=False)
    key: str | None = None
    type: str | None = None
    description: str | None = None
    data: Any = None
    metadata_: dict[str, str] | None = None
    flow_run_id: UUID | None = None
    task_run_id: UUID | None = None

    @classmethod
    def _of(cls, kept: _Kept) -> Self:
        return cls(
            id=kept.id,
            created=to_datetime(kept.created_us),
            updated=to_datetime(kept.updated_us),
            key=kept.key,
            type=kept.type,
            description=kept.description,
            data=kept.data,
            metadata_=kept.metadata,
            flow_run_id=kept.flow_run_id,
            task_run_id=kept.task_run_id,
        )

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        plain = {"text/plain": repr(self)}
        match self.type:
            case _service.RICH:
                return {**plain, **self.data}
            case "markdown":
                return {**plain, "text/markdown": self.data}
            case "table":
                return {**plain, "text/html": _table_html(self.data)}
            case "image" if _service.image_source(self.data):
                alt = html.escape(self.description or self.key or "image")
                return {**plain, "text/html": f'<img src="{html.escape(self.data)}" alt="{alt}">'}
            case "progress" if self.data is not None:
                return {**plain, "text/html": f'<progress max="100" value="{self.data:g}"></progress> {self.data:g} %'}
        return plain


class Artifact(BaseModel):
    """An artifact to be made: `Artifact(key=..., data=...).create()`. `data` is what JSON can express."""

    model_config = ConfigDict(extra="forbid")

    key: Annotated[str | None, AfterValidator(_check_key)] = None
    type: str | None = None
    description: str | None = None
    data: Any = None
    metadata_: dict[str, str] | None = None
    flow_run_id: UUID | None = None
    task_run_id: UUID | None = None

    def format(self) -> Any:
        """What is kept as the artifact's data."""
        return json.dumps(self.data)

    def aformat(self) -> Coroutine[Any, Any, Any]:
        """What is kept as the artifact's data, to be awaited."""
        return asyncio.to_thread(self.format)

    @dual()
    def create(self, client: Any = None) -> ArtifactResponse:  # noqa: ARG002 - Prefect's signature
        """Keep it, as part of the current flow and task run.

        Raises:
            ArtifactTooLarge: its data has more than 5 MiB.
        """
        return self._create()

    @classmethod
    @dual()
    def get(cls, key: str | None = None, client: Any = None) -> ArtifactResponse | None:  # noqa: ARG003
        """The newest artifact of this key, or None."""
        return _get(key)

    @classmethod
    @dual()
    def get_or_create(
        cls,
        key: str | None = None,
        description: str | None = None,
        data: Any = None,
        client: Any = None,  # noqa: ARG003 - Prefect's signature
        **kwargs: Any,
    ) -> tuple[ArtifactResponse, bool]:
        """The newest artifact of this key and False, or a new one and True."""
        return cls._get_or_create(key=key, description=description, data=data, **kwargs)

    def acreate(self, client: Any = None) -> Coroutine[Any, Any, ArtifactResponse]:  # noqa: ARG002
        """Keep it; see `create`."""
        return asyncio.to_thread(self._create)

    @classmethod
    def aget(cls, key: str | None = None, client: Any = None) -> Coroutine[Any, Any, ArtifactResponse | None]:  # noqa: ARG003
        """The newest artifact of this key, or None."""
        return asyncio.to_thread(_get, key)

    @classmethod
    def aget_or_create(
        cls,
        key: str | None = None,
        description: str | None = None,
        data: Any = None,
        client: Any = None,  # noqa: ARG003 - Prefect's signature
        **kwargs: Any,
    ) -> Coroutine[Any, Any, tuple[ArtifactResponse, bool]]:
        """The newest artifact of this key and False, or a new one and True."""
        return asyncio.to_thread(cls._get_or_create, key=key, description=description, data=data, **kwargs)

    @classmethod
    def _get_or_create(cls, key: str | None, **fields: Any) -> tuple[ArtifactResponse, bool]:
        found = _get(key)
        return (cls(key=key, **fields)._create(), True) if found is None else (found, False)

    def _create(self) -> ArtifactResponse:
        _warn_outside_runs()
        return ArtifactResponse._of(_service.create(self.type, self.format(), self.key, self.description))


class MarkdownArtifact(Artifact):
    """A text in Markdown."""

    markdown: str
    type: str | None = "markdown"

    def format(self) -> str:
        """The text."""
        return self.markdown


class LinkArtifact(Artifact):
    """A link, kept as Markdown."""

    link: str
    link_text: str | None = None
    type: str | None = "markdown"

    def format(self) -> str:
        """The link in Markdown."""
        return f"[{self.link_text or self.link}]({self.link})"


class TableArtifact(Artifact):
    """A table: columns by name, rows by column, or rows of cells. NaN is kept as null."""

    table: dict[str, list[Any]] | list[dict[str, Any]] | list[list[Any]]
    type: str | None = "table"

    def format(self) -> str:
        """The table as JSON."""
        return json.dumps(_service.without_nan(self.table))


class ProgressArtifact(Artifact):
    """How far something is, in percent."""

    progress: float
    type: str | None = "progress"

    def format(self) -> float:
        """The percentage, from 0 to 100."""
        return _percentage(self.progress)


class ImageArtifact(Artifact):
    """An image that is somewhere on the network, or a `data:image/...;base64,...` address."""

    image_url: str
    type: str | None = "image"

    def format(self) -> str:
        """The image's address."""
        return self.image_url


@dual()
def create_markdown_artifact(markdown: str, key: str | None = None, description: str | None = None) -> UUID:
    """Keep a text in Markdown as an artifact of the current run.

    Args:
        markdown: the text.
        key: lowercase letters, digits and dashes; artifacts of one key are its versions.
        description: what it is.

    Returns:
        The artifact's id.

    Raises:
        ValueError: the key has other characters.
        ArtifactTooLarge: more than 5 MiB.
    """
    return MarkdownArtifact(key=key, description=description, markdown=markdown)._create().id


@dual()
def create_table_artifact(
    table: dict[str, list[Any]] | list[dict[str, Any]] | list[list[Any]],
    key: str | None = None,
    description: str | None = None,
) -> UUID:
    """Keep a table (columns by name, rows by column, or rows of cells); see `create_markdown_artifact`."""
    return TableArtifact(key=key, description=description, table=table)._create().id


@dual()
def create_link_artifact(
    link: str,
    link_text: str | None = None,
    key: str | None = None,
    description: str | None = None,
    client: Any = None,  # noqa: ARG001 - Prefect's signature
) -> UUID:
    """Keep a link with its text; see `create_markdown_artifact`."""
    return LinkArtifact(key=key, description=description, link=link, link_text=link_text)._create().id


@dual()
def create_image_artifact(image_url: str, key: str | None = None, description: str | None = None) -> UUID:
    """Keep an image's address; see `create_markdown_artifact`. For a figure there is `create_artifact`."""
    return ImageArtifact(key=key, description=description, image_url=image_url)._create().id


@dual()
def create_progress_artifact(progress: float, key: str | None = None, description: str | None = None) -> UUID:
    """Keep how far something is, in percent (0 to 100); move it with `update_progress_artifact`."""
    return ProgressArtifact(key=key, description=description, progress=progress)._create().id


@dual()
def update_progress_artifact(
    artifact_id: UUID,
    progress: float,
    description: str | None = None,
    client: Any = None,  # noqa: ARG001 - Prefect's signature
) -> UUID:
    """Move a progress bar to this percentage (0 to 100).

    Raises:
        ObjectNotFound: there is no such artifact.
    """
    _service.update(artifact_id, _percentage(progress), description)
    return artifact_id


@dual()
def create_artifact(obj: Any, key: str | None = None, description: str | None = None) -> UUID:
    """Keep an object as a notebook shows it - a figure, a data frame - as an artifact of the current run.

    What is kept are its representations (HTML, image, ...), not the object: `display(Artifact.get(key))` shows them.

    Raises:
        TypeError: it has no representation but plain text.
        ValueError: the key has other characters than lowercase letters, digits and dashes.
        ArtifactTooLarge: more than 5 MiB.
    """
    _check_key(key)
    _warn_outside_runs(4)
    return _service.create(_service.RICH, _service.bundle_of(obj), key, description).id


# What coroutines call by name; see each function's own description.
acreate_markdown_artifact = create_markdown_artifact.aio  # type: ignore[attr-defined]
acreate_table_artifact = create_table_artifact.aio  # type: ignore[attr-defined]
acreate_link_artifact = create_link_artifact.aio  # type: ignore[attr-defined]
acreate_image_artifact = create_image_artifact.aio  # type: ignore[attr-defined]
acreate_progress_artifact = create_progress_artifact.aio  # type: ignore[attr-defined]
aupdate_progress_artifact = update_progress_artifact.aio  # type: ignore[attr-defined]
acreate_artifact = create_artifact.aio  # type: ignore[attr-defined]


def _get(key: str | None) -> ArtifactResponse | None:
    kept = None if key is None else _service.latest(key)
    return None if kept is None else ArtifactResponse._of(kept)


def _percentage(progress: float) -> float:
    return progress if math.isnan(progress) else min(max(float(progress), 0.0), 100.0)


def _warn_outside_runs(above: int = 5) -> None:
    if current_run.ids() == (None, None):
        warnings.warn(
            "Artifact creation outside of a flow or task run is deprecated and will be removed in a later version.",
            FutureWarning,
            stacklevel=above,
        )


def _table_html(data: Any) -> str:
    columns, rows = _service.table_of(data)
    head = "".join(f"<th>{html.escape(name)}</th>" for name in columns)
    cells = [["" if cell is None else html.escape(str(cell)) for cell in row] for row in rows[:_ROWS]]
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in cells)
    more = f"<p>{len(rows):,} rows, {_ROWS} shown</p>" if len(rows) > _ROWS else ""
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{more}"


__all__ = [
    "Artifact",
    "ArtifactResponse",
    "ImageArtifact",
    "LinkArtifact",
    "MarkdownArtifact",
    "ProgressArtifact",
    "TableArtifact",
    "acreate_artifact",
    "acreate_image_artifact",
    "acreate_link_artifact",
    "acreate_markdown_artifact",
    "acreate_progress_artifact",
    "acreate_table_artifact",
    "aupdate_progress_artifact",
    "create_artifact",
    "create_image_artifact",
    "create_link_artifact",
    "create_markdown_artifact",
    "create_progress_artifact",
    "create_table_artifact",
    "update_progress_artifact",
]
