"""What a flow run is handed while it runs: forms that a pause waits for, and messages from run to run.

    class Approval(RunInput):
        approved: bool
        note: str = ""

    @flow
    def release():
        answer = pause_flow_run(wait_for_input=Approval)

Somebody answers with `resume_flow_run(id, {"approved": True})` or `prefect-nb flow-run resume ID --input approved=true`.
`send_input(value, flow_run_id)` sends a value to a flow run, which takes it with `for value in receive_input(str)`.
"""

from prefect_nb.input.actions import (
    acreate_flow_run_input,
    acreate_flow_run_input_from_model,
    adelete_flow_run_input,
    afilter_flow_run_input,
    aread_flow_run_input,
    create_flow_run_input,
    create_flow_run_input_from_model,
    delete_flow_run_input,
    filter_flow_run_input,
    read_flow_run_input,
)
from prefect_nb.input.run_input import (
    GetInputHandler,
    Keyset,
    RunInput,
    RunInputMetadata,
    keyset_from_base_key,
    keyset_from_paused_state,
    receive_input,
    send_input,
)

__all__ = [
    "GetInputHandler",
    "Keyset",
    "RunInput",
    "RunInputMetadata",
    "acreate_flow_run_input",
    "acreate_flow_run_input_from_model",
    "adelete_flow_run_input",
    "afilter_flow_run_input",
    "aread_flow_run_input",
    "create_flow_run_input",
    "create_flow_run_input_from_model",
    "delete_flow_run_input",
    "filter_flow_run_input",
    "keyset_from_base_key",
    "keyset_from_paused_state",
    "read_flow_run_input",
    "receive_input",
    "send_input",
]
