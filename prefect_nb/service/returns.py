"""`return_`: what a notebook hands to whoever runs it; and what a run returned, in words."""

from __future__ import annotations

import sys
from typing import Any

import msgspec

from prefect_nb.execution import attachment, inputs
from prefect_nb.execution.notebook_returns import KIND
from prefect_nb.home import Home
from prefect_nb.interfaces import ArtifactQuery
from prefect_nb.model.notebook_outputs import RETURNED, Outputs, as_html, described, in_words
from prefect_nb.model.runs import FlowRun
from prefect_nb.service.text import plain

_NOTHING: Any = object()
_SHOWN = 4_000


def return_(value: Any = _NOTHING, /, **outputs: Any) -> None:
    """Say what this notebook returns when it is run as a flow: a value, or named outputs.

        return_(frame)                        # nightly(day="2026-01-01") gives the frame
        return_(score=0.93, model=model)      # ... gives Outputs: result.score, result["model"]

    Any object that can be pickled goes, as it is: data frames, models, arrays. It is kept in the results, and shown
    below the cell in a few words. The cells after it are executed all the same; if it is called again, the last call
    counts. In a notebook that nobody runs as a flow it only shows the value; in a script it does nothing.

    Args:
        value: what to return.
        outputs: what to return by name, instead.

    Raises:
        TypeError: both a value and named outputs.
        SerializationError, ResultTooLarge: the value cannot be kept.
        StorageFull, StoreUnavailable: there is no room, or no place.
    """
    if outputs and value is not _NOTHING:
        raise TypeError("return_ takes one value, or outputs by name, not both: return_(result=value, score=0.93).")
    returned = Outputs(outputs) if outputs else (None if value is _NOTHING else value)
    returned = inputs.resolve_futures_to_results(returned)
    shell = _shell()
    if shell is None:
        return
    rows = described(returned)
    bundle: dict[str, Any] = {"text/plain": f"returned {in_words(rows)}", "text/html": as_html(rows)}
    if attachment.current() is not None:
        reference = Home.current().results.put(returned)
        bundle[RETURNED] = {"reference": msgspec.to_builtins(reference), "outputs": rows}
    shell.display_pub.publish(bundle)


def rows_of(run: FlowRun) -> list[dict[str, str]]:
    """What a run returned, as rows of `name`, `type` and `value`; none if it returned nothing."""
    if run.kind != "notebook":
        return []
    made = Home.current().store.objects.artifacts(ArtifactQuery(flow_run_ids=(run.id,)))
    said = next((one for one in made if (one.metadata or {}).get("kind") == KIND), None)
    return said.data if said is not None and isinstance(said.data, list) else []


def returned_text(run: FlowRun) -> str | None:
    """What a run returned, a line for each output; None for nothing."""
    return plain(in_words(rows_of(run)), _SHOWN) or None


def _shell() -> Any:
    """The shell of the kernel this runs in; None elsewhere."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return shell if hasattr(shell, "kernel") else None
