"""Hostile texts on their way through what the view sends to the page and what it leaves in the notebook."""

import json
import re
from html.parser import HTMLParser
from uuid import UUID

import pytest
from hostile_texts import hostile_texts

from prefect_nb.interfaces import Artifact, LogLine
from prefect_nb.model.runs import FlowRun, TaskRun
from prefect_nb.model.states import StateType
from prefect_nb.notebook.html import LIMIT, mimebundle_of
from prefect_nb.notebook.view_board import Board
from prefect_nb.notebook.view_details import place_of
from prefect_nb.notebook.view_payload import payload

START = 1_700_000_000_000_000
ROOT = UUID(int=1)
TAGS = {
    *("table", "caption", "thead", "tbody", "tr", "th", "td", "div", "p", "span", "strong", "small", "code"),
    *("details", "summary", "pre", "progress", "img", "br"),
}
INVISIBLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


class Page(HTMLParser):
    """Every tag and attribute there is."""

    def __init__(self, html):
        super().__init__(convert_charrefs=True)
        self.tags, self.attributes = set(), []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes += attrs


def picture(text):
    """A run of which everything that somebody can name is called by the text."""
    board = Board(ROOT)
    common = {"flow_run_id": ROOT, "tags": (text,)}
    source = {"input_type": "task_run", "id": str(UUID(int=10))}
    board.put(
        [
            FlowRun(id=ROOT, name=text, flow_name=text, state_name=text, state_message=text, tags=(text,)),
            TaskRun(id=UUID(int=10), name=text, task_key=text, **common),
            *(
                TaskRun(
                    id=UUID(int=11 + n),
                    name=text,
                    task_key=f"{text}-0123abcd",
                    state_type=StateType.FAILED,
                    state_name=text,
                    state_message=text,
                    result_note=text,
                    task_inputs={text: [source]},
                    **common,
                )
                for n in range(3)
            ),
            FlowRun(id=UUID(int=2), name=text, flow_name=text, parent_flow_run_id=ROOT),
        ]
    )
    board.put_artifacts([Artifact(id=UUID(int=9), key=text, type=text, data=text, description=text)])
    return board.picture(START)


@pytest.mark.parametrize("text", hostile_texts())
def test_no_text_becomes_markup(text):
    shown = picture(text)
    lines = [LogLine(START, 20, text, text)] * 3
    bundle = mimebundle_of(shown, lines)
    page = Page(bundle["text/html"])
    assert page.tags <= TAGS
    names = {name for name, _ in page.attributes}
    assert not {name for name in names if name.startswith("on")}
    assert not names & {"href", "srcdoc", "action", "data"}
    links = [value for name, value in page.attributes if name == "src"]
    assert links
    assert all(link.startswith("data:image/svg+xml;base64,") for link in links)
    assert len(bundle["text/html"].encode()) <= LIMIT
    for kind in bundle.values():
        assert not INVISIBLE.search(kind)
    sent = payload(shown).decode()
    assert not INVISIBLE.search(sent)
    assert not INVISIBLE.search("".join(_texts(json.loads(sent))))


def _texts(value):
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)


def test_a_place_is_clean_too():
    found = place_of(
        'Traceback (most recent call last):\n  File "x<b>\x1b[31m.py", line 3, in f\n    \x1b]52;c;x\x07go()\n'
    )
    assert str(found) == "x<b>.py, line 3, in f: go()"
