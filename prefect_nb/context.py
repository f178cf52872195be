"""Which run this code runs in.

`FlowRunContext.get()` and `TaskRunContext.get()` give the enclosing run with its flow or task and parameters, or None;
`get_run_context()` gives the innermost of them. `tags(...)` adds tags to every run that starts inside its block.

    with tags("nightly"):
        my_flow()
"""

from prefect_nb.execution.context import FlowRunContext, TaskRunContext, get_run_context, tags

__all__ = ["FlowRunContext", "TaskRunContext", "get_run_context", "tags"]
