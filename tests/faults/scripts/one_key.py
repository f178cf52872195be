"""Wants one cache key, whose value takes a while to compute; says what it got."""

import os
import sys
import time
from pathlib import Path

from prefect_nb import flow, task
from prefect_nb.cache_policies import INPUTS, TASK_SOURCE

seconds, how = float(sys.argv[1]), sys.argv[2]


def note(what):
    with Path(os.environ["EXECUTIONS"]).open("a") as log:
        log.write(f"{os.getpid()} {what} {time.time()}\n")


@task(cache_policy=INPUTS + TASK_SOURCE)
def compute(what):
    from one_key import note, seconds

    note("begins")
    time.sleep(seconds)
    note("ends")
    return os.urandom(8).hex()


@flow
def wants():
    if how == "submit":
        return compute.submit("it").result()
    return compute("it")


if __name__ == "__main__":
    sys.modules["one_key"] = sys.modules["__main__"]
    print(wants())  # noqa: T201
