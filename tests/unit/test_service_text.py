"""Words for people."""

import pytest

from prefect_nb.service.text import ago, bytes_text, did_you_mean, duration_text, nearest, one_line, plain

SECOND = 1_000_000


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (0, "just now"),
        (9, "just now"),
        (40, "40 seconds ago"),
        (60, "1 minute ago"),
        (3599, "59 minutes ago"),
        (7200, "2 hours ago"),
        (86_400 * 3, "3 days ago"),
        (-300, "in 5 minutes"),
    ],
)
def test_moments(seconds: int, expected: str):
    assert ago(1_000 * SECOND, (1_000 + seconds) * SECOND) == expected


@pytest.mark.parametrize(
    ("us", "expected"),
    [
        (10, "< 1 ms"),
        (850_000, "850 ms"),
        (1_249_000, "1.2 s"),
        (184 * SECOND, "3 m 04 s"),
        (7500 * SECOND, "2 h 05 m"),
    ],
)
def test_durations(us: int, expected: str):
    assert duration_text(us) == expected


@pytest.mark.parametrize(
    ("size", "expected"),
    [(0, "0 B"), (999, "999 B"), (1234, "1.2 kB"), (34_000_000, "34.0 MB"), (5 * 10**12, "5000.0 GB")],
)
def test_sizes(size: int, expected: str):
    assert bytes_text(size) == expected


def test_text_of_users_cannot_disturb():
    assert one_line("\x1b[31mred\x1b[0m\n\tname\x07") == "red name\N{REPLACEMENT CHARACTER}"
    assert one_line("a" * 100, 10) == "a" * 9 + "…"
    assert plain("two\r\nlines\x1b]0;title\x07\u202e") == "two\nlines\N{REPLACEMENT CHARACTER}"
    assert plain("x" * 50, 10) == "x" * 10 + "… (50 characters)"


def test_what_is_spelled_alike():
    assert nearest("FAILD", ["Failed", "Completed"]) == ["Failed"]
    assert did_you_mean("faild", ["Failed"]) == " Did you mean 'Failed'?"
    assert did_you_mean("xyz", ["Failed"]) == ""
