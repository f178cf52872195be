"""`prefect-nb task-run output`."""

import json

import click

from prefect_nb.cli.output import as_json
from prefect_nb.model.runs import TaskRun
from prefect_nb.service import run_outputs
from prefect_nb.service.run_outputs import Piece
from prefect_nb.service.text import one_line


def show(run: TaskRun, follow: bool, output: str) -> None:
    """Print what a task run printed: standard error there, displays as text."""
    if output == "json" and not follow:
        as_json([_document(piece) for piece in run_outputs.pieces(run)])
        return
    nothing = True
    for piece in run_outputs.follow(run) if follow else run_outputs.pieces(run):
        nothing = False
        if output == "json":
            click.echo(json.dumps(_document(piece), ensure_ascii=False))
        else:
            _show(piece)
    if nothing and output != "json":
        click.echo(
            f"Nothing is kept of what task run {one_line(run.name)!r} printed. That is kept where somebody watches its "
            "flow run in a notebook; anywhere else it goes where prints go.",
            err=True,
        )


def _show(piece: Piece) -> None:
    text = piece.text if piece.kind != "display" or piece.text.endswith("\n") else f"{piece.text}\n"
    click.echo(text, nl=False, err=piece.kind == "stderr")


def _document(piece: Piece) -> dict[str, object]:
    return {"kind": piece.kind, "text": piece.text} | ({"data": piece.data} if piece.data else {})
