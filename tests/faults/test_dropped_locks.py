"""Another library opens and closes the owner's lock file, which drops the lock: it is taken again, or the run is given up."""

import subprocess
import sys
import time
from pathlib import Path

import pytest
from audit import audit
from harness import only_flow_run, states, task_runs, wait_until

from prefect_nb import flow, task
from prefect_nb import home as homes
from prefect_nb.exceptions import Fenced
from prefect_nb.home import Home
from prefect_nb.model.states import StateType

LOOK = """
import sys
from pathlib import Path
from prefect_nb.home import Home
from prefect_nb.store.owners import is_alive
here = Home(Path(sys.argv[1]))
if sys.argv[2] == "reap":
    print(len(here.reap()))
else:
    print([is_alive(owner) for owner in here.store.owners()])
"""


def seen_from_outside(home: Path, what: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", LOOK, str(home), what], capture_output=True, text=True, check=True, timeout=60
    )
    return done.stdout.strip()


def drop_the_lock(home: Path) -> None:
    (path,) = (home / "owners").glob("*.lock")
    path.read_text()


@task
def step(n: int) -> int:
    return n


def test_the_lock_is_taken_again_and_the_run_goes_on(prefect_nb_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(homes, "_LOCK_CHECK_SECONDS", 0.1)

    @flow
    def careless() -> int:
        done = step(1)
        drop_the_lock(prefect_nb_home)
        wait_until(lambda: _is_held(Home.current()), "taken again", 10)
        assert seen_from_outside(prefect_nb_home, "look") == "[True]"
        assert seen_from_outside(prefect_nb_home, "reap") == "0"
        return done + step(2)

    assert careless() == 3
    here = Home.current()
    assert only_flow_run(here).state_type is StateType.COMPLETED
    here.close()
    audit(prefect_nb_home)


def _is_held(here: Home) -> bool:
    from prefect_nb.store import record_locks

    return record_locks.still_ours(here._owner_lock._descriptor)


def test_who_was_taken_for_dead_meanwhile_writes_nothing_more(
    prefect_nb_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(homes, "_LOCK_CHECK_SECONDS", 3600.0)

    @flow
    def careless() -> int:
        done = step(1)
        Home.current().ledger.commit()
        drop_the_lock(prefect_nb_home)
        assert int(seen_from_outside(prefect_nb_home, "reap")) >= 1
        wait_until(lambda: not Home.current().live or Home.current().ledger.fenced, "it has heard of it", 10)
        time.sleep(0.01)
        return done + step(2)

    with pytest.raises(Fenced, match="taken over"):
        careless()
    here = Home.current()
    assert only_flow_run(here).state_type is StateType.CRASHED
    assert states(task_runs(here)) == {"Completed": 1}
    here.close()
    audit(prefect_nb_home)
