"""What the import contracts cannot see: reading the clock, drawing ids and opening files in `model` and `engine`."""

import ast
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).parents[2] / "prefect_nb"

IMPURE_CALLS = {"open", "print", "input", "breakpoint"}
IMPURE_METHODS = {"now", "utcnow", "today", "uuid1", "uuid4", "uuid6", "uuid7", "getenv", "urandom"}


def impurities(source: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        match node.func:
            case ast.Name(id=name) if name in IMPURE_CALLS | IMPURE_METHODS:
                yield f"line {node.lineno}: {name}()"
            case ast.Attribute(attr=name) if name in IMPURE_METHODS:
                yield f"line {node.lineno}: .{name}()"


def test_model_and_engine_are_pure():
    found = [
        f"{file.relative_to(PACKAGE)} {impurity}"
        for floor in ("model", "engine")
        for file in sorted((PACKAGE / floor).rglob("*.py"))
        for impurity in impurities(file.read_text())
    ]

    assert found == []


def test_impurities_are_seen():
    source = "from datetime import UTC, datetime\nfrom uuid import uuid4\ndatetime.now(UTC)\nuuid4()\nopen('x')\n"

    assert len(list(impurities(source))) == 3
