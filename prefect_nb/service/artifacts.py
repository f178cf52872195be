"""Artifacts: making them, finding them, and what they look like to people and programs."""

import base64
import csv
import io
import json
import math
import re
from collections.abc import Callable, Sequence
from typing import Any
from uuid import UUID

import msgspec

from prefect_nb.exceptions import ArtifactTooLarge, ConfigurationError, ObjectNotFound
from prefect_nb.execution.clock import now_us
from prefect_nb.execution.ids import new_id
from prefect_nb.home import Home
from prefect_nb.interfaces import Artifact, ArtifactQuery
from prefect_nb.model.redaction import redact, redact_texts
from prefect_nb.service import current_run
from prefect_nb.service.documents import Document, iso
from prefect_nb.service.text import bytes_text, did_you_mean, one_line, plural

LIMIT = 5 * 1024 * 1024
"""Bytes an artifact's data may have."""

RICH = "rich"
"""The type of an artifact that is a bundle of representations by MIME type."""

_OVERVIEW = 64 * 1024

Table = tuple[list[str], list[list[Any]]]

_REPRESENTATIONS = {
    "_repr_html_": "text/html",
    "_repr_markdown_": "text/markdown",
    "_repr_svg_": "image/svg+xml",
    "_repr_png_": "image/png",
    "_repr_jpeg_": "image/jpeg",
    "_repr_latex_": "text/latex",
    "_repr_json_": "application/json",
}
# What a spreadsheet takes for a formula.
_FORMULA = re.compile(r"[=+\-@\t\r\n]")
_NUMBER = re.compile(r"[+-]?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?")
_IMAGE = re.compile(r"(?:https?://|data:image/(?:png|jpeg|gif|webp);base64,)\S+", re.IGNORECASE)


def create(type_: str | None, data: Any, key: str | None, description: str | None) -> Artifact:
    """Keep an artifact of the current run; it is durable when this returns.

    Raises:
        ArtifactTooLarge: its data has more than 5 MiB.
    """
    _check_size(data)
    flow_run_id, task_run_id = current_run.ids()
    now = now_us()
    artifact = Artifact(
        id=new_id(),
        key=key,
        type=type_,
        description=description and redact(description),
        data=redact_texts(data),
        flow_run_id=flow_run_id,
        task_run_id=task_run_id,
        created_us=now,
        updated_us=now,
    )
    Home.current().store.objects.add_artifact(artifact)
    return artifact


def update(id: UUID, data: Any = None, description: str | None = None) -> None:
    """Replace an artifact's data or description (None: leave it).

    Raises:
        ObjectNotFound: there is no such artifact.
        ArtifactTooLarge: its data has more than 5 MiB.
    """
    _check_size(data)
    if not Home.current().store.objects.update_artifact(
        id, now_us(), redact_texts(data), description and redact(description)
    ):
        raise ObjectNotFound(f"There is no artifact {id}. `prefect-nb artifact ls` lists them.")


def latest(key: str) -> Artifact | None:
    """The newest version of the artifact of this key."""
    found = Home.current().store.objects.artifacts(ArtifactQuery(key=key, limit=1))
    return found[0] if found else None


def listing(every_version: bool = False, limit: int = 100) -> list[Artifact]:
    """The newest version of each key, or every artifact, newest first."""
    return Home.current().store.objects.artifacts(ArtifactQuery(latest=not every_version, limit=limit))


def versions(key: str, limit: int = 10) -> list[Artifact]:
    """The artifact of this key in its versions, newest first.

    Raises:
        ObjectNotFound: there is none; the message names keys spelled alike.
    """
    objects = Home.current().store.objects
    found = objects.artifacts(ArtifactQuery(key=key, limit=limit))
    if not found:
        keys = (item.key for item in objects.artifacts(ArtifactQuery(latest=True)) if item.key)
        near = did_you_mean(key, keys)
        raise ObjectNotFound(
            f"There is no artifact with the key {one_line(key)!r}.{near} `prefect-nb artifact ls` lists them."
        )
    return found


def of_runs(flow_run_ids: Sequence[UUID], limit: int = 200) -> list[Artifact]:
    """What these flow runs and their task runs made last, oldest first; of each key the newest version.

    For an overview: large data (`ArtifactQuery.largest`) is not read.
    """
    query = ArtifactQuery(flow_run_ids=tuple(flow_run_ids), limit=limit, largest=_OVERVIEW)
    found: dict[str | UUID, Artifact] = {}
    for artifact in Home.current().store.objects.artifacts(query):
        found.setdefault(artifact.key or artifact.id, artifact)
    return list(reversed(found.values()))


def delete(id: UUID | None = None, key: str | None = None) -> int:
    """Drop the artifact of this id, or every version of this key; how many there were."""
    return Home.current().store.objects.delete_artifacts(id, key)


def bundle_of(value: Any) -> dict[str, Any]:
    """The representations of an object by MIME type, as a notebook would show it; images as base64.

    Raises:
        TypeError: it has none but its `repr`.
    """
    bundle: dict[str, Any] = {}
    for method, kind in _REPRESENTATIONS.items():
        shown = _shown(getattr(value, method, None))
        if shown is not None:
            bundle[kind] = _portable(shown[0] if isinstance(shown, tuple) else shown)
    several = _shown(getattr(value, "_repr_mimebundle_", None))
    if several is not None:
        data = several[0] if isinstance(several, tuple) else several
        bundle |= {kind: _portable(shown) for kind, shown in data.items()}
    if not bundle and hasattr(value, "savefig"):
        picture = io.BytesIO()
        value.savefig(picture, format="png", bbox_inches="tight")
        bundle["image/png"] = _portable(picture.getvalue())
    if set(bundle) <= {"text/plain"}:
        raise TypeError(
            f"A {type(value).__name__} has no rich representation (_repr_html_, _repr_png_, _repr_mimebundle_, ...). "
            "For text there is create_markdown_artifact, for rows create_table_artifact."
        )
    return {"text/plain": repr(value), **bundle}


def image_source(text: Any) -> str | None:
    """An image's address if it is one that may be shown: http, https, or the image itself as base64."""
    return text if isinstance(text, str) and _IMAGE.fullmatch(text) else None


def table_of(data: Any) -> Table:
    """A table artifact's data as names of columns and rows of cells.

    Raises:
        ConfigurationError: it is no table.
    """
    if isinstance(data, str):
        data = json.loads(data)
    if isinstance(data, dict) and all(isinstance(column, list) for column in data.values()):
        columns = [str(name) for name in data]
        lengths = [len(column) for column in data.values()]
        return columns, [
            [column[row] if row < len(column) else None for column in data.values()]
            for row in range(max(lengths, default=0))
        ]
    if isinstance(data, list) and all(isinstance(row, dict) for row in data):
        names = list(dict.fromkeys(name for row in data for name in row))
        return names, [[row.get(name) for name in names] for row in data]
    if isinstance(data, list) and all(isinstance(row, list) for row in data):
        width = max(map(len, data), default=0)
        return [str(number) for number in range(width)], [[*row, *[None] * (width - len(row))] for row in data]
    raise ConfigurationError("Only an artifact that is a table can be exported.")


def as_csv(artifact: Artifact) -> str:
    """A table artifact as CSV in which no cell is a formula.

    Raises:
        ConfigurationError: it is no table.
    """
    columns, rows = _table(artifact)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([[harmless(cell) for cell in row] for row in ([*columns], *rows)])
    return text.getvalue()


def as_records(artifact: Artifact) -> list[dict[str, Any]]:
    """A table artifact as a list of rows by column, for export: no text in it is a formula; raises as `as_csv`."""
    columns, rows = _table(artifact)
    names = [harmless(name) for name in columns]
    return [dict(zip(names, map(harmless, row), strict=True)) for row in rows]


def harmless(cell: Any) -> Any:
    """A cell that a spreadsheet does not take for a formula: such a text gets an apostrophe before it."""
    if isinstance(cell, dict | list):
        cell = json.dumps(cell, ensure_ascii=False)
    if isinstance(cell, str) and _FORMULA.match(cell.lstrip(" ")) and not _NUMBER.fullmatch(cell):
        return f"'{cell}"
    return cell


def summary(artifact: Artifact, limit: int = 120) -> str:
    """What an artifact is, in a line."""
    data = artifact.data
    if data is None:
        return "unknown" if artifact.type == "progress" else ""
    match artifact.type:
        case "progress":
            return f"{data:g} %"
        case "table":
            try:
                columns, rows = table_of(data)
            except (ConfigurationError, ValueError):
                return "not a table"
            return f"{plural(len(rows), 'row')} of {plural(len(columns), 'column')}"
        case "image" if isinstance(data, str) and data.startswith("data:"):
            return f"{one_line(data.partition(';')[0][5:], 40)}, {bytes_text(len(data))}"
        case "rich" if isinstance(data, dict):
            kinds = [kind for kind in data if kind != "text/plain"]
            return one_line(", ".join(kinds), limit)
    return one_line(data if isinstance(data, str) else json.dumps(data, ensure_ascii=False), limit)


def document(artifact: Artifact) -> Document:
    """An artifact for programs: `id`, `created`, `updated`, `key`, `type`, `description`, `data`, `metadata_`, ..."""
    return {
        "id": str(artifact.id),
        "created": iso(artifact.created_us),
        "updated": iso(artifact.updated_us),
        "key": artifact.key,
        "type": artifact.type,
        "description": artifact.description,
        "data": artifact.data,
        "metadata_": artifact.metadata,
        "flow_run_id": None if artifact.flow_run_id is None else str(artifact.flow_run_id),
        "task_run_id": None if artifact.task_run_id is None else str(artifact.task_run_id),
    }


def without_nan(value: Any) -> Any:
    """The value with None for every NaN in its lists and dicts."""
    if isinstance(value, list):
        return [without_nan(item) for item in value]
    if isinstance(value, dict):
        return {key: without_nan(item) for key, item in value.items()}
    return None if isinstance(value, float) and math.isnan(value) else value


def _table(artifact: Artifact) -> Table:
    if artifact.type != "table":
        raise ConfigurationError(f"This artifact is no table but {artifact.type or 'of no type'}; only tables export.")
    return table_of(artifact.data)


def _check_size(data: Any) -> None:
    size = len(data.encode("utf-8", "surrogatepass")) if isinstance(data, str) else len(msgspec.json.encode(data))
    if size > LIMIT:
        raise ArtifactTooLarge(
            f"The artifact's data has {bytes_text(size)}, more than {bytes_text(LIMIT)}. Keep it as a file or as a "
            "task's result, and link to it."
        )


def _shown(method: Callable[..., Any] | None) -> Any:
    if not callable(method):
        return None
    try:
        return method()
    except NotImplementedError:  # how a class says that this one of its kind cannot be shown so
        return None


def _portable(shown: Any) -> Any:
    return base64.b64encode(shown).decode() if isinstance(shown, bytes | bytearray) else shown
