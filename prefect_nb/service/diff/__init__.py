"""Two runs of one notebook or flow, compared: in values, in words, as a page."""

from prefect_nb.service.diff.comparing import Change, RunDiff, Side, Timing, diff_runs

__all__ = ["Change", "RunDiff", "Side", "Timing", "diff_runs"]
