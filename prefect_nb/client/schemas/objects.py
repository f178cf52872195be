"""Runs and states. See `prefect_nb.states`."""

from prefect_nb.model.runs import FlowRun, TaskRun
from prefect_nb.model.states import TERMINAL_STATES, State, StateDetails, StateType

__all__ = ["TERMINAL_STATES", "FlowRun", "State", "StateDetails", "StateType", "TaskRun"]
