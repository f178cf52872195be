"""What has to hold after every fault, whatever it was."""

import stat
from pathlib import Path

import harness

from prefect_nb.home import Home
from prefect_nb.model.runs import Run
from prefect_nb.model.states import TERMINAL_STATES, StateType

CANARY = b"CANARY-"


def audit(home: Path) -> None:
    """Recover as anybody does who opens the home, then look at everything in it."""
    with harness.opened(home) as here:
        here.reap()
        assert here.store.check() == []
        runs: list[Run] = [*harness.flow_runs(here), *harness.task_runs(here)]
        assert [run for run in runs if _is_left_open(here, run)] == []
        assert [run.id for run in runs if _ended_twice(here, run)] == []
        assert [run.name for run in runs if _has_broken_result(here, run)] == []
        assert _slots_in_excess(here) == []
    assert _unfinished_files(home) == []
    assert _open_to_others(home) == []
    assert _with_canaries(home) == []


def _is_left_open(home: Home, run: Run) -> bool:
    """Whether a run has neither ended nor anybody who could end it."""
    if run.is_final or (run.state_type, run.state_name) == (StateType.PENDING, "NotReady"):
        return False
    alive = {owner.id for owner in home.store.owners()}
    flow_run_id = getattr(run, "flow_run_id", None)
    flow_run = home.store.flow_run(flow_run_id) if flow_run_id is not None else None
    owner_id = run.owner_id or (flow_run.owner_id if flow_run is not None else None)
    return owner_id not in alive or (flow_run is not None and flow_run.is_final)


def _ended_twice(home: Home, run: Run) -> bool:
    """Whether a run left a final state although nobody had claimed it, or its flow run, in between."""
    claims = _claims(home, run)
    final_at: int | None = None
    for event in home.store.events(run.id):
        type_ = getattr(event, "type", None)
        if type_ is None:
            continue
        if final_at is not None and not any(final_at <= at <= event.at_us for at in claims):
            return True
        final_at = event.at_us if type_ in TERMINAL_STATES else None
    return False


def _claims(home: Home, run: Run) -> list[int]:
    from prefect_nb.model.events import Claimed

    flow_run_id = getattr(run, "flow_run_id", None) or run.id
    return [event.at_us for event in home.store.events(flow_run_id) if isinstance(event, Claimed)]


def _has_broken_result(home: Home, run: Run) -> bool:
    if run.state_type is not StateType.COMPLETED or run.result is None:
        return False
    home.results.get(run.result)
    return not home.results.check(run.result)


def _slots_in_excess(home: Home) -> list[str]:
    """Limits of which more is held than there is, and slots that nobody living holds."""
    alive = {owner.id for owner in home.store.owners()}
    slots, limits = home.store.limits.slots(), home.store.limits.all()
    excess = [
        limit.name for limit in limits if sum(slot.count for slot in slots if slot.limit_id == limit.id) > limit.limit
    ]
    return excess + [f"of the dead owner {slot.owner_id}" for slot in slots if slot.owner_id not in alive]


def _with_canaries(home: Path) -> list[Path]:
    """Files that hold a text which a test declared secret by its beginning, in any spelling that the bytes keep."""
    return [path for path in home.rglob("*") if path.is_file() and CANARY in path.read_bytes()]


def _unfinished_files(home: Path) -> list[Path]:
    """What a killed process was writing: recovery sweeps it up. Locks are those of the living."""
    temporary = [path for path in home.rglob("*") if path.suffix == ".tmp" or ".new" in path.name]
    return temporary + list((home / "owners").glob("*.lock"))


def _open_to_others(home: Path) -> list[tuple[str, str]]:
    everything = [home, *home.rglob("*")]
    modes = [(path, path.stat().st_mode) for path in everything if not path.is_symlink()]
    return [
        (str(path), stat.filemode(mode))
        for path, mode in modes
        if stat.S_IMODE(mode) != (0o700 if stat.S_ISDIR(mode) else 0o600)
    ]
