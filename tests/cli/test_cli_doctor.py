"""`prefect-nb doctor`: healthy or not, and what to do."""

import sqlite3
import time
from contextlib import closing
from pathlib import Path


def test_no_history_yet(invoke, prefect_nb_home: Path):
    result = invoke("doctor")

    assert result.exit_code == 0
    assert "There is no history yet" in result.stdout
    assert not prefect_nb_home.exists()


def test_a_healthy_home(shell):
    shell("run", "flows.py:long", "-p", "seconds=0", "--quiet")

    result = shell("doctor")

    assert result.returncode == 0, result.stdout
    assert "is healthy: 1 flow runs, 1 task runs, 1 kept results checked" in result.stdout


def test_a_truncated_database(shell, prefect_nb_home: Path):
    shell("run", "flows.py:work", "--quiet")
    database = prefect_nb_home / "prefect_nb.db"
    database.write_bytes(database.read_bytes()[:9000])

    result = shell("doctor")

    assert result.returncode == 1
    assert str(database) in result.stdout
    assert "mend:" in result.stdout
    assert "Traceback" not in result.stderr


def test_a_row_edited_by_hand_is_found_and_mended(shell, ask, prefect_nb_home: Path):
    shell("run", "flows.py:work", "--quiet", "--name", "edited")
    with closing(sqlite3.connect(prefect_nb_home / "prefect_nb.db")) as connection, connection:
        connection.execute("UPDATE flow_run SET body = replace(body, 'COMPLETED', 'FAILED')")

    found, mended, healthy = shell("doctor"), shell("doctor", "--mend"), shell("doctor")

    assert (found.returncode, mended.returncode, healthy.returncode) == (1, 0, 0)
    assert "its row is not what its events say" in found.stdout
    assert "✓ mended: its row is not what its events say" in mended.stdout
    assert ask("flow-run", "inspect", "edited")["state"]["type"] == "COMPLETED"


def test_a_dead_process_is_settled(start, shell, ask):
    process = start("run", "flows.py:long", "--name", "slow")
    deadline = time.monotonic() + 10
    while not ask("flow-run", "ls") and time.monotonic() < deadline:  # the first commit comes some milliseconds later
        time.sleep(0.01)
    process.kill()
    process.wait()

    result = shell("doctor")

    assert result.returncode == 0
    assert f"process {process.pid} ended without leaving in good order: slow is Crashed now" in result.stdout
    assert ask("doctor")["healthy"]
