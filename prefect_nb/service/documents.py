"""Runs as documents for programs: what `--output json` prints. Keys are only ever added.

Every run: `id`, `name`, `kind`, `state` (`type`, `name`, `message`, `timestamp`), `tags`, `created`, `start_time`,
`end_time` (ISO 8601, UTC; null where there is none), `total_run_time` (seconds in RUNNING), `run_count`, `retries`,
`result` (`serializer`, `size` in bytes, `sha256`, or null) and `result_note`.

Flow runs: `flow_id`, `flow_name`, `flow_version`, `parameters`, `parent_task_run_id`, `parent_flow_run_id`,
`entrypoint`, `input_path`, `output_path`, `durable`, `recoveries`, and of a flow cell `execution_count` and
`cell_source`. Task runs: `flow_run_id`, `parent_id`, `task_key`, `dynamic_key`, `cache_key`, `cell_index`.
"""

from typing import Any
from uuid import UUID

from prefect_nb.interfaces import LogLine
from prefect_nb.model.runs import FlowRun, Run, TaskRun, to_datetime

Document = dict[str, Any]


def run_document(run: Run) -> Document:
    """A flow run or task run."""
    common: Document = {
        "id": str(run.id),
        "name": run.name,
        "kind": run.kind,
        "state": {
            "type": run.state_type.value,
            "name": run.state_name,
            "message": run.state_message,
            "timestamp": iso(run.state_us),
        },
        "tags": list(run.tags),
        "created": iso(run.created_us),
        "start_time": iso(run.start_us),
        "end_time": iso(run.end_us),
        "total_run_time": run.running_us / 1_000_000,
        "run_count": run.run_count,
        "retries": run.retries,
        "result": None
        if run.result is None
        else {"serializer": run.result.serializer, "size": run.result.size, "sha256": run.result.sha256},
        "result_note": run.result_note,
    }
    return {**common, **(_of_flow_run(run) if isinstance(run, FlowRun) else _of_task_run(run))}


def log_document(line: LogLine) -> Document:
    """A line of a log: `timestamp`, `level` (as in `logging`), `name`, `message`, `flow_run_id`, `task_run_id`."""
    return {
        "timestamp": iso(line.at_us),
        "level": line.level,
        "name": line.name,
        "message": line.message,
        "flow_run_id": _text(line.flow_run_id),
        "task_run_id": _text(line.task_run_id),
    }


def iso(us: int | None) -> str | None:
    """A moment (microseconds since the epoch) as ISO 8601 in UTC."""
    time = to_datetime(us)
    return None if time is None else time.isoformat(timespec="microseconds")


def _of_flow_run(run: FlowRun) -> Document:
    return {
        "flow_id": _text(run.flow_id),
        "flow_name": run.flow_name,
        "flow_version": run.flow_version,
        "parameters": run.parameters,
        "parent_task_run_id": _text(run.parent_task_run_id),
        "parent_flow_run_id": _text(run.parent_flow_run_id),
        "entrypoint": run.entrypoint,
        "input_path": run.input_path,
        "output_path": run.output_path,
        "durable": run.durable,
        "recoveries": run.recoveries,
        "execution_count": run.execution_count,
        "cell_source": run.cell_source,
    }


def _of_task_run(run: TaskRun) -> Document:
    return {
        "flow_run_id": _text(run.flow_run_id),
        "parent_id": _text(run.parent_id),
        "task_key": run.task_key,
        "dynamic_key": run.dynamic_key,
        "cache_key": run.cache_key,
        "cell_index": run.cell_index,
    }


def _text(id: UUID | None) -> str | None:
    return None if id is None else str(id)
