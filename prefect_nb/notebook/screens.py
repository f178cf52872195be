"""Where a live view is drawn: a notebook's output area (as a widget or as HTML), or a terminal.

A screen is drawn on by one thread at a time; the view sees to that.
"""

import functools
import logging
import sys
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol
from uuid import uuid4

from prefect_nb.interfaces import LogLine
from prefect_nb.notebook.commands import honour_subshell
from prefect_nb.notebook.html import mimebundle_of
from prefect_nb.notebook.picture import Picture
from prefect_nb.notebook.view_messages import Handler, answer
from prefect_nb.notebook.view_payload import PayloadWriter

logger = logging.getLogger("prefect_nb.notebook")

WIDGET = "application/vnd.jupyter.widget-view+json"
_STATIC = Path(__file__).parent / "static"
_PARTS = ("dom.js", "table.js", "details.js", "graph.js", "reports.js", "panel.js")
"""The panel's script, a file a part of it: front ends take it as one text."""

KEPT = 8
"""Panels of runs that have ended which stay open."""

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
    handlers: Mapping[str, Handler]
    """The commands of this panel, by name."""

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

    def listen(self, handlers: Mapping[str, Handler]) -> None:
        """Have these answer what a person asks of the screen."""
        ...

    def prepare(self) -> None:
        """Do slow work ahead of the first `draw` (imports); may be called from another thread."""
        ...

    def draw(self, picture: Picture) -> None:
        """Show the run as it is now."""
        ...

    def end(self, bundle: Bundle, picture: Picture) -> None:
        """Leave this bundle behind for good; the picture is the same for who can show it otherwise."""
        ...


class TerminalScreen:
    """IPython in a terminal: one block of text at the end."""

    period = 60.0

    def begin(self, bundle: Bundle) -> None:
        """Nothing."""

    def listen(self, handlers: Mapping[str, Handler]) -> None:
        """Nothing."""

    def prepare(self) -> None:
        """Nothing."""

    def draw(self, picture: Picture) -> None:
        """Nothing."""

    def end(self, bundle: Bundle, picture: Picture) -> None:  # noqa: ARG002
        """Print the text."""
        sys.stdout.write(bundle["text/plain"] + "\n")


class NotebookScreen:
    """One output of a cell, replaced under one display id.

    What is displayed, and so what may get saved at any moment, is HTML that needs nothing. The live panel moves into it
    in the page. A saved widget would be a dead one: a notebook whose kernel is gone would show an error in its place.

    Args:
        widgets: whether somebody sits at a front end that may understand widgets. Otherwise, or when the widget
            cannot be made or fed, HTML is replaced every two seconds.
        show: displays a bundle and gives its handle; by default IPython's `display`.
        open_panel: makes the widget with its first data, for a place in the page.
        viewed: display the widget as such, for front ends that know of no widget that they do not display (VS Code).
    """

    def __init__(
        self,
        widgets: bool,
        show: Callable[[Bundle], Handle] | None = None,
        open_panel: Callable[[bytes, str], Panel] | None = None,
        viewed: bool = False,
    ) -> None:
        self.period = 0.1 if widgets else 2.0
        self._widgets = widgets
        self._viewed = viewed
        self._place = uuid4().hex if widgets and not viewed else ""
        self._show = show or _display
        self._open_panel = open_panel or make_panel
        self._handle: Handle | None = None
        self._panel: Panel | None = None
        self._writer = PayloadWriter()
        self._handlers: Mapping[str, Handler] = {}

    @property
    def has_widgets(self) -> bool:
        """Whether it draws as a widget."""
        return self._widgets

    def listen(self, handlers: Mapping[str, Handler]) -> None:
        """Have these answer the panel."""
        self._handlers = handlers

    def begin(self, bundle: Bundle) -> None:
        """Display the bundle; everything later replaces it."""
        if self._place:
            html = f'<div data-pnb-place="{self._place}">{bundle["text/html"]}</div>'
            bundle = {**bundle, "text/html": html}
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

    def end(self, bundle: Bundle, picture: Picture) -> None:
        """Replace whatever is there by this bundle.

        The panel stays for a while, for a page that was loaded again and knows nothing of the replacement.
        """
        try:
            self._replace(bundle)
        finally:
            panel, self._panel = self._panel, None
            if panel is not None:
                if picture.flow_run is not None:
                    panel.data = self._writer.write(picture)
                _kept.append(panel)
                while len(_kept) > KEPT:
                    _close(_kept.popleft())

    def _feed(self, picture: Picture) -> None:
        if self._panel is not None:
            self._panel.data = self._writer.write(picture)
            return
        self._panel = self._open_panel(self._writer.write(picture), self._place)
        self._panel.handlers = self._handlers
        if not self._viewed:
            return
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
            _close(panel)


_kept: deque[Panel] = deque()


def _close(panel: Panel) -> None:
    try:
        panel.close()
    except Exception as error:
        logger.debug("The live view's widget could not be closed: %s", error, exc_info=error)


def bundle_of(picture: Picture, logs: Sequence[LogLine] = ()) -> Bundle:
    """The picture as static HTML and text; it must know its flow run."""
    assert picture.flow_run is not None
    return {**mimebundle_of(picture, logs)}


def make_panel(data: bytes, place: str = "") -> Panel:
    """The widget, open, with its first data, for a place in the page.

    Raises:
        ImportError: anywidget is not installed.
    """
    panel: Panel = panel_class()(data=data, place=place)
    honour_subshell(getattr(panel, "comm", None))
    return panel


def script() -> str:
    """The panel's ES module."""
    return "\n".join((_STATIC / part).read_text(encoding="utf-8") for part in _PARTS)


@functools.cache
def panel_class() -> Any:
    """The widget's class; made on first use, because importing anywidget takes a while."""
    import anywidget
    import traitlets

    class RunPanel(anywidget.AnyWidget):
        """A flow run, live. One trait holds the whole picture, so a second or late view is right by construction."""

        _esm = script()
        _css = (_STATIC / "view.css").read_text(encoding="utf-8")
        data = traitlets.Bytes().tag(sync=True)
        place = traitlets.Unicode().tag(sync=True)

        def __init__(self, **traits: Any) -> None:
            super().__init__(**traits)
            self.handlers: Mapping[str, Handler] = {}
            self.on_msg(self._asked)

        def _asked(self, _panel: Any, content: Any, _buffers: Any) -> None:
            answered = answer(content, self.handlers)
            if answered is not None:
                self.send(answered)

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
