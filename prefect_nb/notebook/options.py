"""The options of the magics: `name -r 2 --timeout 10m -p date=2026-01-01`, with help and errors that help."""

from __future__ import annotations

import argparse
import ast
import shlex
from collections.abc import Iterator
from typing import Any, NoReturn

from IPython.core.error import UsageError

from prefect_nb.model.durations import seconds_of
from prefect_nb.service.text import did_you_mean, nearest


class Reference:
    """The value of `-p df=@df`: a variable of the notebook, taken when the cell runs."""

    def __init__(self, name: str) -> None:
        self.name = name

    def look_up(self, namespace: dict[str, Any]) -> Any:
        """The variable's value.

        Raises:
            UsageError: there is no such variable.
        """
        if self.name not in namespace:
            near = did_you_mean(self.name, (name for name in namespace if not name.startswith("_")))
            raise UsageError(f"-p ...=@{self.name}: there is no variable {self.name!r} in the notebook.{near}")
        return namespace[self.name]


class HelpAsked(Exception):
    """`-h` was among the options; the text says what to show."""


class Parser(argparse.ArgumentParser):
    """A parser of a magic's line: quotes group words and are taken off, nothing else in the line is special.

    Args:
        magic: the name with its percent signs.
        usage: how it is written, after the name.
        description: what it does, one sentence or two.
        epilog: examples.
    """

    def __init__(self, magic: str, usage: str, description: str, epilog: str = "") -> None:
        super().__init__(
            prog=magic,
            usage=f"%(prog)s {usage}",
            description=description,
            epilog=epilog,
            add_help=False,
            allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        self.add_argument("-h", "--help", action="store_true", help="show this help")

    def options(self, line: str) -> argparse.Namespace | None:
        """The options of a line; where help is asked for, None after showing it.

        Raises:
            UsageError: as `parse`.
        """
        try:
            return self.parse(line)
        except HelpAsked as asked:
            print(str(asked))  # noqa: T201 - it is the magic's output
            return None

    def parse(self, line: str) -> argparse.Namespace:
        """The options of a line.

        Raises:
            HelpAsked: with the help as its text.
            UsageError: naming what is wrong, and the option that may have been meant.
        """
        words = self._words(line)
        if "-h" in words or "--help" in words:
            raise HelpAsked(self.format_help())
        options, unknown = self.parse_known_args(words)
        for word in unknown:
            if word.startswith("-"):
                self._refuse_option(word)
        if unknown:
            self.error(f"unexpected argument {unknown[0]!r}")
        return options

    def error(self, message: str) -> NoReturn:
        """Refuse the line.

        Raises:
            UsageError: always.
        """
        raise UsageError(f"{self.prog}: {message}. `{self.prog} -h` shows the options.")

    def _words(self, line: str) -> list[str]:
        lexer = shlex.shlex(line, posix=True)
        lexer.whitespace_split = True
        lexer.commenters = lexer.escape = ""
        try:
            return list(lexer)
        except ValueError:
            self.error("a quote is not closed")

    def _refuse_option(self, word: str) -> NoReturn:
        option = word.partition("=")[0]
        near = nearest(option, self._option_names(), number=1)
        hint = f"; did you mean {near[0]}?" if near else "."
        raise UsageError(f"{self.prog}: unknown option {option}{hint} `{self.prog} -h` shows the options.")

    def _option_names(self) -> Iterator[str]:
        for action in self._actions:
            yield from action.option_strings


def duration(text: str) -> float:
    """Seconds, from `30`, `30s`, `1.5h`, `250ms`."""
    try:
        return seconds_of(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def count(text: str) -> int:
    """A number of at least 0."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is no number of 0 or more")
    return int(text)


def positive(text: str) -> int:
    """A number of at least 1."""
    if count(text) < 1:
        raise argparse.ArgumentTypeError("it must be at least 1")
    return int(text)


def variable(text: str) -> str:
    """A name for a variable."""
    if not text.isidentifier():
        raise argparse.ArgumentTypeError(f"{text!r} is no name for a variable")
    return text


def parameter(text: str) -> tuple[str, Any]:
    """A name and a value, from `name=value`.

    The value is what Python reads it as (`3`, `[1, 2]`, `None`), a variable after `@`, and otherwise the text itself.
    """
    name, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form name=value")
    name = variable(name.strip())
    if value.startswith("@"):
        return name, Reference(variable(value[1:]))
    try:
        return name, ast.literal_eval(value)
    except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError):
        return name, value
