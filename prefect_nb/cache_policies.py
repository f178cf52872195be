"""Cache policies: what a task's cache key is made of.

Two runs with the same key share a result. A policy names the parts; policies are added and narrowed.

    @task(cache_policy=INPUTS + TASK_SOURCE)          # same arguments, same code
    @task(cache_policy=INPUTS - "verbose")            # one argument does not matter
    @task(cache_policy=NO_CACHE)                      # always run

`INPUTS` are the arguments by value, `TASK_SOURCE` the function with every helper, closure and global it depends on,
`FLOW_PARAMETERS` the enclosing flow's parameters, `RUN_ID` the enclosing flow run. `DEFAULT` is inputs, source and run.
"""

from prefect_nb.model.policies import (
    DEFAULT,
    FLOW_PARAMETERS,
    INPUTS,
    NO_CACHE,
    NONE,
    RUN_ID,
    TASK_SOURCE,
    CacheKeyFnPolicy,
    CachePolicy,
    CompoundCachePolicy,
    FlowParameters,
    Inputs,
    RunId,
    TaskSource,
    _None,
)

__all__ = [
    "DEFAULT",
    "FLOW_PARAMETERS",
    "INPUTS",
    "NONE",
    "NO_CACHE",
    "RUN_ID",
    "TASK_SOURCE",
    "CacheKeyFnPolicy",
    "CachePolicy",
    "CompoundCachePolicy",
    "FlowParameters",
    "Inputs",
    "RunId",
    "TaskSource",
    "_None",
]
