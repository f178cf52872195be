"""Where a live view is drawn: a notebook's output area (as a widget or as HTML), or a terminal.

A screen is drawn on by one thread at a time; the view sees to that.
"""

import functools
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import msgspec

from prefect_nb.model.runs import TaskRun
from prefect_nb.model.states import GLYPHS, StateType
from prefect_nb.notebook.charts import HEIGHT, WIDTH, Chart, artifact_rows, charts
from prefect_nb.notebook.html import mimebundle
from prefect_nb.notebook.picture import BROKEN, COLOURS, Picture, finished, note
from prefect_nb.service.text import elapsed, one_line

logger = logging.getLogger("prefect_nb.notebook")

WIDGET = "application/vnd.jupyter.widget-view+json"
_STATIC = Path(__file__).parent / "static"
_PALETTE = {type_.value: (GLYPHS[type_], COLOURS[type_]) for type_ in StateType}

_CHARTS, _LINES, _POINTS = 12, 8, 2_000
"""Charts, lines a chart and points in all that the widget gets."""

_ARTIFACTS = 20

Bundle = dict[str, Any]


class Handle(Protocol):
    """One output that can be replaced."""

    def update(self, bundle: Bundle, *, raw: bool) -> object:
        """Show this instead."""
        ...


class Panel(Protocol):
    """The kernel's half of the widget."""

    data: bytes
    model_id: str

    def close(self) -> None:
        """Close its comm; front ends drop their half."""
        ...


class Screen(Protocol):
    """What a live view draws on."""

    period: float
    """Seconds between two drawings, at least."""

    def begin(self, bundle: Bundle) -> None:
        """Take the place where everything will be drawn."""
        ...

    def prepare(self) -> None:
        """Do slow work ahead of the first `draw` (imports); may be called from another thread."""
        ...

    def draw(self, picture: Picture) -> None:
        """Show the run as it is now."""
        ...

    def end(self, bundle: Bundle) -> None:
        """Leave this behind for good, and nothing else."""
        ...


class TerminalScreen:
    """IPython in a terminal: one block of text at the end."""

    period = 60.0

    def begin(self, bundle: Bundle) -> None:
        """Nothing."""

    def prepare(self) -> None:
        """Nothing."""

    def draw(self, picture: Picture) -> None:
        """Nothing."""

    def end(self, bundle: Bundle) -> None:
        """Print the text."""
        sys.stdout.write(bundle["text/plain"] + "\n")


class NotebookScreen:
    """One output of a cell, replaced under one display id.

    Args:
        widgets: whether somebody sits at a front end that may understand widgets. Otherwise, or when the widget
            cannot be made or fed, HTML is replaced every two seconds.
        show: displays a bundle and gives its handle; by default IPython's `display`.
        open_panel: makes the widget with its first data.
    """

    def __init__(
        self,
        widgets: bool,
        show: Callable[[Bundle], Handle] | None = None,
        open_panel: Callable[[bytes], Panel] | None = None,
    ) -> None:
        self.period = 0.1 if widgets else 2.0
        self._widgets = widgets
        self._show = show or _display
        self._open_panel = open_panel or make_panel
        self._handle: Handle | None = None
        self._panel: Panel | None = None

    def begin(self, bundle: Bundle) -> None:
        """Display the bundle; everything later replaces it."""
        self._handle = self._show(bundle)

    def prepare(self) -> None:
        """Import the widget machinery."""
        if self._widgets:
            try:
                panel_class()
            except Exception as error:
                self._give_up_widgets(error)

    def draw(self, picture: Picture) -> None:
        """Feed the widget, or replace the HTML."""
        if self._widgets:
            try:
                self._feed(picture)
                return
            except Exception as error:
                self._give_up_widgets(error)
        self._replace(bundle_of(picture))

    def end(self, bundle: Bundle) -> None:
        """Replace whatever is there by this bundle, then close the widget: a saved widget would be a dead one."""
        try:
            self._replace(bundle)
        finally:
            self._close_panel()

    def _feed(self, picture: Picture) -> None:
        if self._panel is not None:
            self._panel.data = payload(picture)
            return
        self._panel = self._open_panel(payload(picture))
        view = {"version_major": 2, "version_minor": 1, "model_id": self._panel.model_id}
        self._replace({**bundle_of(picture), WIDGET: view})

    def _replace(self, bundle: Bundle) -> None:
        if self._handle is None:
            self._handle = self._show(bundle)
        else:
            self._handle.update(bundle, raw=True)

    def _give_up_widgets(self, error: Exception) -> None:
        logger.debug("The live view goes on as HTML: %s", error, exc_info=error)
        self._widgets = False
        self.period = 2.0
        self._close_panel()

    def _close_panel(self) -> None:
        panel, self._panel = self._panel, None
        if panel is not None:
            try:
                panel.close()
            except Exception as error:
                logger.debug("The live view's widget could not be closed: %s", error, exc_info=error)


def bundle_of(picture: Picture) -> Bundle:
    """The picture as static HTML and text; it must know its flow run."""
    assert picture.flow_run is not None
    return {
        **mimebundle(
            picture.flow_run,
            picture.task_runs,
            now_us=picture.now_us,
            children=picture.children,
            metrics=picture.metrics,
            artifacts=picture.artifacts,
        )
    }


def payload(picture: Picture) -> bytes:
    """The picture as the compact JSON the widget draws: texts ready to be shown, cleaned."""
    flow_run = picture.flow_run
    assert flow_run is not None
    total = len(picture.task_runs)
    done = finished(picture.counts)
    broken = sum(number for type_, _, number in picture.counts if type_ in BROKEN)
    counted = f"{done:,} of {total:,} task runs done" + (f", {broken:,} failed" if broken else "")
    return msgspec.json.encode(
        {
            "palette": _PALETTE,
            "state": (flow_run.state_type.value, one_line(flow_run.state_name, 40)),
            "flow": one_line(flow_run.flow_name),
            "run": one_line(flow_run.name),
            "took": elapsed(flow_run, picture.now_us),
            "message": one_line(flow_run.state_message or "", 500),
            "done": done,
            "total": total,
            "counted": counted,
            "counts": [
                (type_.value, f"{number:,} {one_line(word, 40)}") for type_, word, number in picture.counts[:12]
            ],
            "caption": counted if len(picture.rows) == total else f"{counted}; {len(picture.rows):,} shown",
            "rows": [_row(run, picture.now_us) for run in picture.rows],
            "metrics": _metrics(picture),
            "chart": (WIDTH, HEIGHT),
            "artifacts": artifact_rows(picture.artifacts, _ARTIFACTS),
        }
    )


def _metrics(picture: Picture) -> list[Chart]:
    if not picture.metrics:
        return []
    flow_run = picture.flow_run
    runs = (*picture.task_runs, *picture.children, *([flow_run] if flow_run is not None else []))
    names = {run.id: run.name for run in runs}
    return charts(picture.metrics, names, _CHARTS, _LINES, _POINTS)


def _row(run: TaskRun, now_us: int) -> tuple[str, ...]:
    attempts = str(run.run_count) if run.run_count else ""
    return (
        run.id.hex,
        run.state_type.value,
        one_line(run.state_name, 40),
        one_line(run.name),
        attempts,
        elapsed(run, now_us),
        one_line(note(run), 200),
    )


def make_panel(data: bytes) -> Panel:
    """The widget, open, with its first data.

    Raises:
        ImportError: anywidget is not installed.
    """
    panel: Panel = panel_class()(data=data)
    return panel


@functools.cache
def panel_class() -> Any:
    """The widget's class; made on first use, because importing anywidget takes a while."""
    import anywidget
    import traitlets

    class RunPanel(anywidget.AnyWidget):
        """A flow run, live. One trait holds the whole picture, so a second or late view is right by construction."""

        _esm = _STATIC / "view.js"
        _css = _STATIC / "view.css"
        data = traitlets.Bytes().tag(sync=True)

        def close(self) -> None:
            """Close the comms of the panel and of the layout that came with it."""
            layout = self.layout
            super().close()
            layout.close()

    return RunPanel


def _display(bundle: Bundle) -> Handle:
    from IPython.display import display

    handle: Handle = display(bundle, raw=True, display_id=True)  # type: ignore[no-untyped-call]
    return handle
