"""The static picture: everything escaped, small, structured, readable without colours or style."""

import itertools
import re
from html.parser import HTMLParser
from uuid import UUID

import pytest

from prefect_nb.interfaces import LogLine
from prefect_nb.model.runs import FlowRun, ResultReference, TaskRun
from prefect_nb.model.states import GLYPHS, StateType
from prefect_nb.notebook.html import LIMIT, mimebundle, placeholder, run_html, run_text
from prefect_nb.notebook.picture import COLOURS
from prefect_nb.service.text import duration_text, one_line, plain

START = 1_700_000_000_000_000
_numbers = itertools.count(1)
_VOID = {"br", "hr", "img"}
_TABLE = {"table", "caption", "thead", "tbody", "tr", "th", "td"}
_ALLOWED = _TABLE | {"div", "p", "span", "strong", "small", "code", "details", "summary", "pre", "progress"}


def flow_run(**changes):
    values = {
        "id": UUID(int=7 << 64),
        "name": "happy-otter",
        "flow_name": "etl",
        "state_type": StateType.COMPLETED,
        "state_name": "Completed",
        "start_us": START,
        "end_us": START + 3_200_000,
    }
    return FlowRun(**values | changes)


def task_run(name="clean-0", type_=StateType.COMPLETED, **changes):
    values = {
        "id": UUID(int=next(_numbers)),
        "name": name,
        "state_type": type_,
        "state_name": type_.value.capitalize(),
        "task_key": "clean-0a1b2c3d",
        "flow_run_id": UUID(int=7 << 64),
        "run_count": 1,
        "start_us": START,
        "end_us": START + 850_000,
        "running_us": 850_000,
    }
    return TaskRun(**values | changes)


class Page(HTMLParser):
    """A strict reading: balanced tags, the text, and every tag and attribute seen."""

    def __init__(self, html):
        super().__init__(convert_charrefs=True)
        self.open, self.tags, self.attributes, self.cells, self.texts = [], [], [], [], []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, *attr) for attr in attrs]
        if tag not in _VOID:
            self.open.append(tag)
        if tag in ("td", "th", "caption"):
            self.cells.append((tag, dict(attrs), []))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        data = data.replace("\N{NO-BREAK SPACE}", " ")
        self.texts.append(data)
        if self.cells and {"td", "th", "caption"} & set(self.open):
            self.cells[-1][2].append(data)

    def handle_comment(self, data):
        raise AssertionError(f"a comment got in: {data}")

    @property
    def text(self):
        return "".join(self.texts)

    def column(self, tag="td"):
        return ["".join(text) for name, _, text in self.cells if name == tag]


HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "</table></div><style>*{display:none}</style>",
    "<!-- ",
    "<svg/onload=alert(1)>",
    "&lt;already&gt; &amp; &#60;b&#62;",
    "evil\u202egnp.exe",
    "\u2066\u2067isolated\u2069",
    "zero\u200bwidth\ufeff",
    "nul\x00 bell\x07 escape\x1b[31mred\x1b[0m csi\x9b31m",
    "\x1b]0;title\x07after",
    "lone \ud800 surrogate",
    "line\nbreak\r\nand\ttab\u2028separator",
    "日本語 العربية עברית 👩‍👩‍👧",
    "x" * 100_000,
    "&" * 100_000,
    "\U0001f4a5" * 30_000,
    "",
]


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_no_text_of_a_user_can_become_markup_or_disturb_the_page(text):
    broken = task_run(text, StateType.FAILED, state_name=text or "Failed", state_message=text, result_note=text)
    html = run_html(
        flow_run(name=text, flow_name=text, state_type=StateType.FAILED, state_name=text, state_message=text),
        [broken, task_run(text, task_key=text)] * 3,
        now_us=START,
        children=[flow_run(id=UUID(int=8), name=text, flow_name=text)],
        logs=[LogLine(START, 20, text, text)] * 3,
    )
    page = Page(html)
    assert set(page.tags) <= _ALLOWED
    assert not [name for _, name, _ in page.attributes if name.startswith("on") or name in ("src", "href")]
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\u200b\ud800-\udfff]", html)
    assert len(html.encode()) <= LIMIT


def test_the_plain_text_is_clean_too():
    for text in HOSTILE:
        shown = run_text(flow_run(name=text, state_message=text), [task_run(text, state_message=text)], now_us=START)
        assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2028\ud800-\udfff]", shown)
        assert len(shown.splitlines()) == 3 + bool(one_line(text))
        assert len(shown) < 2000


def test_scripts_of_the_world_and_emoji_pass_unharmed():
    text = "日本語 العربية नमस्ते 👩‍👩‍👧"
    assert one_line(text) == text
    assert text in Page(run_html(flow_run(name=text), [], now_us=START)).text


def test_what_a_small_run_says():
    source = UUID("018f3a2b-1c4d-7abc-8def-000000000000")
    tasks = [
        task_run("load-0", run_count=3),
        task_run("train-0", state_name="Cached", run_count=0, start_us=None, result=_reference(source)),
        task_run("plot-0", result_note="disk full"),
        task_run("wait-0", StateType.RUNNING, end_us=None),
    ]
    page = Page(run_html(flow_run(), tasks, now_us=START + 184_000_000))
    assert "✓ Completed · flow etl · run happy-otter · 3.2 s" in page.text
    assert "4 task runs: ▶ 1 Running · ✓ 2 Completed · ✓ 1 Cached" in page.text
    assert page.column("caption") == ["Task runs"]
    heads = [(attrs["scope"], "".join(text)) for tag, attrs, text in page.cells if tag == "th"]
    assert heads[:5] == [("col", name) for name in ("State", "Task run", "Attempts", "Duration", "Note")]
    assert heads[5:] == [("row", name) for name in ("load-0", "train-0", "plot-0", "wait-0")]
    assert page.column("td") == [
        *("✓ Completed", "3", "850 ms", ""),
        *("✓ Cached", "", "", "cached: the result of a run of 2024-05-02 16:37:34 UTC"),
        *("✓ Completed", "1", "850 ms", "result not kept: disk full"),
        *("▶ Running", "1", "3 m 04 s", ""),
    ]
    assert "Started 2023-11-14 22:13:20 UTC" in page.text


def _reference(source):
    return ResultReference(sha256="0" * 64, size=1, serializer="pickle", source=source)


def test_the_first_failure_is_told_with_its_message_and_the_long_part_is_folded():
    long = "Task run encountered an exception ValueError: bad row\n" + "detail " * 100
    late = task_run("late-0", StateType.FAILED, state_message="ValueError: late", end_us=START + 2_000_000)
    early = task_run("early-0", StateType.FAILED, state_message=long, end_us=START + 1_000_000)
    run = flow_run(state_type=StateType.FAILED, state_name="Failed", state_message="1 failed")
    html = run_html(run, [late, early], now_us=START)
    page = Page(html)
    assert page.text.index("early-0") < page.text.index("late-0")
    assert "✗ Failed: early-0 ValueError: bad row detail" in page.text
    assert page.tags.count("details") == 1
    assert "<summary>Whole message</summary>" in html


def test_five_thousand_tasks_are_grouped_with_the_failed_ones_first():
    tasks = [task_run(f"map-{n}", task_key="map_rows-0123abcd") for n in range(4990)]
    tasks[17:17] = [task_run(f"bad-{n}", StateType.FAILED, state_message=f"boom {n}") for n in range(10)]
    html = run_html(flow_run(), tasks, now_us=START, logs=[LogLine(START, 20, "x", "y" * 500)] * 500)
    assert 10_000 < len(html.encode()) <= LIMIT
    page = Page(html)
    assert "5,000 task runs: ✗ 10 Failed · ✓ 4,990 Completed" in page.text
    assert "… and 7 more that failed" in page.text
    rows = [text for text in page.column("th") if "-" in text]
    assert rows[:10] == [f"bad-{n}" for n in range(10)]
    assert rows[10] == "map-4989"
    shown = len(rows)
    assert page.column("caption") == ["Tasks", f"Task runs ({shown} of 5,000)"]
    assert {"clean", "map_rows"} <= set(page.column("th"))
    text = run_text(flow_run(), tasks, now_us=START)
    assert len(text.splitlines()) < 60
    assert "… 4,960 more task runs" in text


@pytest.mark.parametrize("count", [1, 20, 21, 200, 1000])
def test_never_more_than_twenty_kilobytes_however_long_every_part_is(count):
    nasty = '"\U0001f4a5' * 50_000
    tasks = [
        task_run(f"{n}{nasty}", type_, state_name=f"{n}{nasty}", state_message=nasty, task_key=f"{n}{nasty}")
        for n, type_ in zip(range(count), itertools.cycle(StateType), strict=False)
    ]
    html = run_html(
        flow_run(name=nasty, flow_name=nasty, state_name=nasty, state_message=nasty),
        tasks,
        now_us=START,
        children=[flow_run(id=UUID(int=n), name=nasty, flow_name=nasty, state_name=nasty) for n in range(100)],
        logs=[LogLine(START, 40, nasty, nasty)] * 1000,
    )
    assert len(html.encode()) <= LIMIT
    Page(html)


def test_every_state_has_glyph_and_word_and_nothing_relies_on_styles():
    for type_ in StateType:
        html = run_html(flow_run(state_type=type_, state_name=""), [task_run(type_=type_)], now_us=START)
        bare = Page(re.sub(r' (style|dir)="[^"]*"', "", html)).text
        assert f"{GLYPHS[type_]} {type_.value.capitalize()}" in bare
        assert not re.search("<(script|style|svg|link|iframe)", html)


def _luminance(color):
    channels = [int(color[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    red, green, blue = (c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in channels)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_glyph_colours_are_visible_on_light_and_dark_where_the_variables_are_missing():
    for color in COLOURS.values():
        fallback = re.fullmatch(r"var\(--jp-[a-z0-9-]+,(#[0-9a-f]{6})\)", color)[1]
        for ground in ("#ffffff", "#111111", "#212121"):
            light, dark = sorted((_luminance(fallback), _luminance(ground)), reverse=True)
            assert (light + 0.05) / (dark + 0.05) >= 3, (color, ground)


def test_words_keep_the_hosts_text_colour():
    html = run_html(flow_run(), [task_run()], now_us=START)
    colored = re.findall(r"<(\w+) style=\"[^\"]*(?<!-)color:[^\"]*\">([^<]*)", html)
    assert colored
    assert {(tag, text) for tag, text in colored} <= {("span", glyph) for glyph in GLYPHS.values()}


def test_tasks_of_child_flow_runs_name_their_flow_run():
    child = flow_run(id=UUID(int=9), name="brave-fox", flow_name="inner")
    tasks = [task_run("outer-0"), task_run("inner-0", flow_run_id=child.id)]
    page = Page(run_html(flow_run(), tasks, now_us=START, children=[child]))
    assert page.column("caption") == ["Child flow runs", "Task runs"]
    assert "brave-fox / inner-0" in page.column("th")
    assert "✓ Completed  brave-fox / inner-0  850 ms" in run_text(flow_run(), tasks, now_us=START, children=[child])


def test_the_text_is_a_tree():
    tasks = [task_run("load-0"), task_run("train-0", StateType.FAILED, run_count=2, state_message="ValueError: no")]
    run = flow_run(state_type=StateType.FAILED, state_name="Failed", state_message="1 task run failed")
    assert run_text(run, tasks, now_us=START).splitlines() == [
        "✗ Failed  flow 'etl', run 'happy-otter'  3.2 s",
        "  1 task run failed",
        "  2 task runs: ✗ 1 Failed, ✓ 1 Completed",
        "  ├─ ✓ Completed  load-0  850 ms",
        "  └─ ✗ Failed  train-0  850 ms  2 attempts  ValueError: no",
    ]


def test_an_unfinished_run_says_so():
    run = flow_run(state_type=StateType.RUNNING, state_name="Running", end_us=None)
    tasks = [task_run(), task_run(type_=StateType.RUNNING)]
    page = Page(run_html(run, tasks, now_us=START + 1))
    assert "A picture of an unfinished run" in page.text
    progress = {name: value for tag, name, value in page.attributes if tag == "progress"}
    assert (progress["value"], progress["max"]) == ("1", "2")
    ended = Page(run_html(flow_run(), tasks, now_us=START))
    assert "unfinished" not in ended.text
    assert "progress" not in ended.tags


def test_bundles_hold_html_and_text_only():
    assert set(mimebundle(flow_run(), [], now_us=START)) == {"text/html", "text/plain"}
    assert set(placeholder(UUID(int=1))) == {"text/html", "text/plain"}


@pytest.mark.parametrize(
    ("microseconds", "text"),
    [
        (0, "< 1 ms"),
        (499, "< 1 ms"),
        (501, "1 ms"),
        (850_000, "850 ms"),
        (999_400, "999 ms"),
        (999_600, "1.0 s"),
        (1_240_000, "1.2 s"),
        (59_940_000, "59.9 s"),
        (59_960_000, "1 m 00 s"),
        (184_000_000, "3 m 04 s"),
        (3_599_700_000, "1 h 00 m"),
        (7_500_000_000, "2 h 05 m"),
        (273_600_000_000, "3 d 04 h"),
    ],
)
def test_durations_are_for_people(microseconds, text):
    assert duration_text(microseconds) == text


def test_long_texts_are_cut_and_say_how_long_they_were():
    assert plain("x" * 100_000, 10) == "x" * 10 + "… (100,000 characters)"
    assert one_line("a\n  b\tc", 80) == "a b c"
    assert one_line("x" * 81) == "x" * 79 + "…"
