"""Runs and states. See `prefect_nb.states`."""

from prefect_nb.model.runs import FlowRun, TaskRun
from prefect_nb.model.states import State, StateDetails, StateType

__all__ = ["FlowRun", "State", "StateDetails", "StateType", "TaskRun"]
