"""From a kernel's messages to the outputs of a cell, as a front end shows them."""

from __future__ import annotations

import base64
import re
from typing import Any

from prefect_nb.model.notebook_outputs import RETURNED

MAX_TEXT = 1_000_000
"""Characters of printed text kept for one cell."""
MAX_RICH = 50_000_000
"""Characters of displayed data (images, tables, HTML) kept for one cell."""
_OVERHEAD = 100
_OVERWRITTEN = re.compile(r"[^\n]*\r(?=[^\n])")
_BACKSPACE = re.compile(r"[^\n]\x08")
_WIDGET_STATE = "application/vnd.jupyter.widget-state+json"

Message = dict[str, Any]
Output = dict[str, Any]


class Displays:
    """What spans cells: outputs that can be updated by their display id, and the state of widgets."""

    def __init__(self) -> None:
        self.shown: dict[str, list[Output]] = {}
        self._widgets: dict[str, dict[str, Any]] = {}
        self._buffers: dict[str, dict[tuple[Any, ...], dict[str, Any]]] = {}

    def update(self, display_id: str, content: dict[str, Any]) -> None:
        """Show new data wherever this display id is shown."""
        for output in self.shown.get(display_id, ()):
            output["data"], output["metadata"] = content["data"], content["metadata"]

    def widget(self, message: Message) -> None:
        """Follow a widget's state."""
        content = message["content"]
        data = content.get("data") or {}
        if "state" not in data:
            return
        comm = content["comm_id"]
        self._widgets.setdefault(comm, {}).update(data["state"])
        for path, buffer in zip(data.get("buffer_paths") or (), message.get("buffers") or (), strict=False):
            encoded = {"data": base64.b64encode(buffer).decode(), "encoding": "base64", "path": path}
            self._buffers.setdefault(comm, {})[tuple(path)] = encoded

    def widget_metadata(self) -> dict[str, Any] | None:
        """The widgets' state as a notebook's metadata has it; None if there are no widgets."""
        states: dict[str, Any] = {}
        for comm, state in self._widgets.items():
            if "_model_name" not in state:
                continue
            states[comm] = {
                "model_name": state["_model_name"],
                "model_module": state.get("_model_module"),
                "model_module_version": state.get("_model_module_version"),
                "state": state,
            }
            if comm in self._buffers:
                states[comm]["buffers"] = list(self._buffers[comm].values())
        return {_WIDGET_STATE: {"version_major": 2, "version_minor": 0, "state": states}} if states else None


class CellOutputs:
    """Gathers one cell's outputs, in `cell["outputs"]`, which is valid at every moment.

    Text that is printed piece by piece is kept as a list of strings, which a notebook allows. What goes beyond
    `MAX_TEXT` and `MAX_RICH` is counted, and `close` says how much it was.
    """

    def __init__(self, cell: dict[str, Any], displays: Displays) -> None:
        self.cell = cell
        self._displays = displays
        self._outputs: list[Output] = cell["outputs"]
        self._text_size = self._rich_size = 0
        self._text_left_out = self._rich_left_out = 0
        self._clear_next = False

    def take(self, message: Message) -> None:
        """Do with the cell's outputs what a message of the kernel says."""
        kind, content = message["msg_type"], message["content"]
        match kind:
            case "stream":
                self._print(content["name"], content["text"])
            case "display_data" | "execute_result":
                self._display(kind, content)
            case "update_display_data":
                self._displays.update(content.get("transient", {}).get("display_id"), content)
            case "error":
                self._append(
                    {
                        "output_type": "error",
                        "ename": content["ename"],
                        "evalue": content["evalue"],
                        "traceback": content["traceback"],
                    }
                )
            case "execute_input":
                self.cell["execution_count"] = content.get("execution_count")
            case "clear_output":
                self._clear_next = bool(content.get("wait"))
                if not self._clear_next:
                    self._clear()
            case "comm_open" | "comm_msg":
                self._displays.widget(message)

    def left_out(self, size: int) -> bool:
        """Whether printed text of about this size has no more room; then it is counted as left out."""
        if self._text_size < MAX_TEXT:
            return False
        self._text_left_out += size
        return True

    def close(self) -> None:
        """Nothing more is expected: say what was left out."""
        if self._text_left_out:
            self._note(f"[{self._text_left_out:,} more characters of output were left out]")
        if self._rich_left_out:
            self._note(f"[{self._rich_left_out} more displayed outputs were left out: too much for one cell]")
        self._text_left_out = self._rich_left_out = 0

    def _print(self, name: str, text: str) -> None:
        if self._clear_next:
            self._clear()
        room = MAX_TEXT - self._text_size
        kept = text[: max(0, room)]
        self._text_left_out += len(text) - len(kept)
        if not kept:
            return
        last = self._outputs[-1] if self._outputs else None
        if last is None or last["output_type"] != "stream" or last["name"] != name:
            last = {"output_type": "stream", "name": name, "text": []}
            self._outputs.append(last)
            self._text_size += _OVERHEAD
        pieces: list[str] = last["text"]
        before = 0
        if pieces and not pieces[-1].endswith("\n"):
            before = len(pieces[-1])
            kept = pieces.pop() + kept
        # What a progress bar has overwritten is not kept, and does not count.
        kept = overwritten(kept)
        pieces.append(kept)
        self._text_size += len(kept) - before

    def _display(self, kind: str, content: dict[str, Any]) -> None:
        size = (
            sum(len(value) if isinstance(value, str) else _OVERHEAD for value in content["data"].values()) + _OVERHEAD
        )
        if self._rich_size + size > MAX_RICH and RETURNED not in content["data"]:
            self._rich_left_out += 1
            return
        self._rich_size += size
        output: Output = {"output_type": kind, "data": content["data"], "metadata": content["metadata"]}
        if kind == "execute_result":
            output["execution_count"] = content.get("execution_count")
        self._append(output)
        display_id = (content.get("transient") or {}).get("display_id")
        if display_id:
            self._displays.update(display_id, content)
            self._displays.shown.setdefault(display_id, []).append(output)

    def _append(self, output: Output) -> None:
        if self._clear_next:
            self._clear()
        self._outputs.append(output)

    def _clear(self) -> None:
        # What the notebook returns is no mere display.
        self._outputs[:] = [output for output in self._outputs if RETURNED in output.get("data", ())]
        self._clear_next = False
        self._text_size = self._rich_size = 0
        self._text_left_out = self._rich_left_out = 0

    def _note(self, text: str) -> None:
        self._outputs.append({"output_type": "stream", "name": "stderr", "text": [text + "\n"]})


def overwritten(text: str) -> str:
    """Text as a terminal shows it: carriage returns and backspaces carried out."""
    if "\x08" in text:
        before = ""
        while before != text:
            before, text = text, _BACKSPACE.sub("", text)
    return _OVERWRITTEN.sub("", text) if "\r" in text else text
