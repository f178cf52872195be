"""A flow that waits for somebody: `approvals.py start pause|suspend|twice`, `approvals.py resume ID NUMBER`."""

import os
import signal
import sys
from uuid import UUID

from notes import note, say

from prefect_nb import flow, pause_flow_run, suspend_flow_run, task
from prefect_nb.exceptions import Fenced, NotResumable, Pause


@task
def prepare() -> int:
    note("prepare")
    return 40


@task
def finish(base: int, answer: int) -> int:
    note("finish")
    return base + answer


@flow(durable=True)
def approval(kind: str) -> int:
    base = prepare()
    if kind == "twice":
        first = pause_flow_run(wait_for_input=int, key="first")
        return finish(base, first) + pause_flow_run(wait_for_input=int, key="second")
    wait = pause_flow_run if kind == "pause" else suspend_flow_run
    return finish(base, wait(wait_for_input=int))


if __name__ == "__main__":
    try:
        if sys.argv[1] == "start":
            say(approval(sys.argv[2]))
        else:
            say(approval.resume(UUID(sys.argv[2]), run_input={"value": int(sys.argv[3])}))
    except Pause as pause:
        if "HOLD" in os.environ:
            signal.pause()
        say(pause.state.name)
    except (Fenced, NotResumable) as lost:
        say(type(lost).__name__)
