"""The deployment of the enclosing flow run: id, name, version. `flow_run_id` is the run's own id."""

from typing import Any

from prefect_nb.runtime import flow_run

_FACTS = ("flow_run_id", "id", "name", "parameters", "version")

__all__ = list(_FACTS)  # given by __getattr__


def __getattr__(name: str) -> Any:
    if name not in _FACTS:
        raise AttributeError(f"{__name__} has no attribute {name!r}")
    if name == "flow_run_id":
        return flow_run.id
    return {} if name == "parameters" else None


def __dir__() -> list[str]:
    return list(_FACTS)
