"""Writes as many transactions as it is told, and says how long the slowest took: `contending.py EACH NUMBER`."""

import json
import os
import sys
import time
from pathlib import Path
from uuid import uuid4

from notes import say

from prefect_nb.interfaces import Entry
from prefect_nb.model.events import StateRecorded, TaskRunCreated, apply
from prefect_nb.model.runs import TaskRun
from prefect_nb.model.states import StateType
from prefect_nb.store.sqlite import SqliteStore

each = int(sys.argv[1])
home = Path(os.environ["PREFECT_NB_HOME"])
store = SqliteStore.open(home)
go = home.with_name("go")
while not go.exists():
    time.sleep(0.001)
waits: list[float] = []
errors: list[str] = []
for n in range(each):
    now = time.time_ns() // 1000
    created = TaskRunCreated(TaskRun(id=uuid4(), name=f"task-{n}", state_id=uuid4(), created_us=now, events=1))
    run = apply(None, created)
    running = StateRecorded(run.id, StateType.RUNNING, "Running", now + 1, uuid4())
    began = time.perf_counter()
    try:
        store.write([Entry(run, created, None), Entry(apply(run, running), running, None)], {})
    except Exception as error:
        errors.append(repr(error))
    waits.append(time.perf_counter() - began)
store.close()
say(json.dumps({"errors": errors, "slowest": sorted(waits)[-max(1, each // 100) :]}))
