"""The deployment of the enclosing flow run: id, name, version. `flow_run_id` is the run's own id."""

from typing import Any

from prefect_nb.runtime import flow_run
from prefect_nb.runtime.environment import fact

_FACTS = ("flow_run_id", "id", "name", "parameters", "version")

__all__ = list(_FACTS)  # given by __getattr__


def __getattr__(name: str) -> Any:
    return fact("deployment", name, name in _FACTS, lambda: _read(name))


def _read(name: str) -> Any:
    if name == "flow_run_id":
        return flow_run.id
    return flow_run.parameters if name == "parameters" else None


def __dir__() -> list[str]:
    return list(_FACTS)
