"""No file may grow beyond 400 kB, as on a full disk."""

import resource
import signal
import sys

from notes import say

from prefect_nb import flow, task

LIMIT = 400_000


@task(persist_result=True)
def big(n: int) -> bytes:
    return bytes([n]) * 1_000_000


@task
def step(text: str) -> str:
    return text


@flow
def big_results() -> str:
    sizes = [len(big(n)) for n in range(3)]
    return f"Completed {len(sizes)}"


@flow(durable=True)
def big_durable_results() -> str:
    return str([len(big(n)) for n in range(3)])


@flow
def many_rows() -> str:
    return str(sum(len(step(str(n))) for n in range(5_000)))


signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT, LIMIT))
say(globals()[sys.argv[1]]())
