"""Writing the executed notebook: whole or not at all, as seldom as can be, never over its source."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import time
from pathlib import Path
from typing import Any

from prefect_nb.bodies import signing
from prefect_nb.bodies.document import Document, Notebook, is_url
from prefect_nb.exceptions import NotebookError
from prefect_nb.model.redaction import redact, redact_texts

AFTER_CELL_SECONDS = 1.0
"""After a cell the notebook is written if that was last done so long ago."""
WITHIN_CELL_SECONDS = 10.0
"""While a cell runs it is written this often."""
_SHARE = 20
"""Writing takes at most one part in so many of the time."""
FOLDER = "runs"


def default_output(document: Document, run_name: str) -> str:
    """Where a run's notebook goes unless told otherwise: `runs/<notebook>-<run name>.ipynb` beside the source.

    There the file browser in which the source was opened shows it, and its relative links still nearly hold. For a
    source that is no local file, or lies where nothing can be written: the same under the current folder. The file is
    there, empty, when this returns: no other run that begins at the same moment, in whatever process, gets its name.

    Raises:
        NotebookError: nothing can be written there.
    """
    folder = document.folder
    if not os.access(folder, os.W_OK) and not (folder / FOLDER).is_dir():
        folder = Path.cwd()
    safe = "".join(letter if letter.isalnum() or letter in " ._-" else "-" for letter in run_name)
    base = folder / FOLDER / f"{_cut(document.stem, 140)}-{_cut(safe, 80)}.ipynb"
    path, number = base, 1
    try:
        base.parent.mkdir(parents=True, exist_ok=True)
        while not _claimed(path):
            number += 1
            path = base.with_stem(f"{base.stem}-{number}")
    except OSError as error:
        raise NotebookError(f"The executed notebook cannot be written to {path}: {error}") from None
    return str(path)


def _claimed(path: Path) -> bool:
    try:
        path.open("xb").close()
    except FileExistsError:
        return False
    return True


def _cut(name: str, size: int) -> str:
    """At most so many bytes of a name, as file systems count them."""
    return os.fsencode(name)[:size].decode(errors="ignore")


def check_output(document: Document, output: str) -> str:
    """The output path made absolute, its folder there.

    Raises:
        NotebookError: it is the source, a folder, or nothing can be written there.
    """
    if is_url(output):
        if output == document.path:
            raise NotebookError(f"The executed notebook would replace its source {output}; choose another output_path.")
        return output
    path = Path(output).expanduser().absolute()
    with contextlib.suppress(OSError):
        if path.samefile(document.path):
            raise NotebookError(f"The executed notebook would replace its source {path}; choose another output_path.")
    if path.is_dir():
        raise NotebookError(f"The executed notebook cannot be written to {path}: that is a folder. Name a file in it.")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise NotebookError(f"The executed notebook cannot be written to {path}: {error}") from None
    if not os.access(path.parent, os.W_OK):
        raise NotebookError(f"The executed notebook cannot be written to {path}: no permission in that folder.")
    return str(path)


class Saver:
    """Writes a notebook to its output, not too often.

    Args:
        notebook: what to write, as it is at each moment.
        output: a local path, a URL papermill writes to, or None for nowhere.
    """

    def __init__(self, notebook: Notebook, output: str | None) -> None:
        self._notebook = notebook
        self._output = output
        self._saved = time.monotonic()
        self._took = 0.0
        self._is_local = output is not None and not is_url(output)
        if self._is_local:
            signing.prepare()

    def finish(self) -> None:
        """Write it for the last time, and have this user's Jupyter trust it.

        Raises:
            NotebookError: it cannot be written.
        """
        text = self.save()
        if text is not None and self._is_local:
            signing.sign(text.decode())

    def save(self) -> bytes | None:
        """Write it now; returns what was written.

        Raises:
            NotebookError: it cannot be written.
        """
        if self._output is None:
            return None
        started = time.monotonic()
        text = encoded(self._notebook)
        try:
            if is_url(self._output):
                from papermill.iorw import papermill_io

                papermill_io.write(text.decode(), self._output)
            else:
                write_atomically(Path(self._output), text)
        except Exception as error:  # a storage handler may raise anything
            raise NotebookError(f"The executed notebook could not be written to {self._output}: {error}") from error
        finally:
            self._saved = time.monotonic()
            self._took = self._saved - started
        return text

    def tick(self, *, within_cell: bool) -> None:
        """Write it if it is time to; a failure is left to the next time."""
        if self._output is None or is_url(self._output):
            return
        pause = WITHIN_CELL_SECONDS if within_cell else AFTER_CELL_SECONDS
        if time.monotonic() - self._saved >= max(pause, _SHARE * self._took):
            with contextlib.suppress(NotebookError):
                self.save()


def write_atomically(path: Path, data: bytes) -> None:
    """Put a file in place, whole; its mode is what the user's umask leaves of 0666, or the old file's."""
    temporary = path.with_name(f".{path.name[:200]}.{secrets.token_hex(4)}.tmp")
    try:
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(OSError):
            temporary.chmod(path.stat().st_mode & 0o777)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def encoded(notebook: Notebook) -> bytes:
    """A notebook as the bytes of a file, without secrets, long text split into lines as Jupyter does."""
    import msgspec

    cells = [_split_cell(cell) for cell in notebook["cells"]]
    lines = {**notebook, "cells": cells, "metadata": redact_texts(notebook["metadata"])}
    try:
        return msgspec.json.format(msgspec.json.encode(lines), indent=1) + b"\n"
    except (UnicodeEncodeError, TypeError, OverflowError):
        # Lone surrogates, which some outputs hold, and what else only the standard library lets pass.
        return json.dumps(lines, indent=1, default=str).encode() + b"\n"


def _split_cell(cell: dict[str, Any]) -> dict[str, Any]:
    split = {**cell, "source": redact(cell["source"]).splitlines(keepends=True)}
    if "outputs" in cell:
        split["outputs"] = [_split_output(output) for output in cell["outputs"]]
    return split


def _split_output(output: dict[str, Any]) -> dict[str, Any]:
    if output["output_type"] == "stream":
        return {**output, "text": redact("".join(output["text"])).splitlines(keepends=True)}
    if output["output_type"] == "error":
        return {**output, "evalue": redact(output["evalue"]), "traceback": redact_texts(output["traceback"])}
    if "data" in output:
        return {**output, "data": {kind: _split_data(kind, value) for kind, value in output["data"].items()}}
    return output


def _split_data(kind: str, value: Any) -> Any:
    is_text = kind.startswith("text/") or kind in ("image/svg+xml", "application/javascript")
    if isinstance(value, str) and is_text:
        return redact(value).splitlines(keepends=True)
    return value if kind.startswith("image/") else redact_texts(value)
