"""The kernel side of a notebook run: what a kernel does before its notebook's run ends.

Which run a kernel belongs to, and which cell executes now, `execution.attachment` reads from the environment and from
the request; nothing has to be loaded for it.
"""

from prefect_nb.execution import pump
from prefect_nb.home import Home


def finish() -> None:
    """Wait until every submitted task run has ended, and have everything in the history.

    Raises:
        StorageFull, StoreUnavailable: it could not be written.
    """
    home = Home.current()
    scope = home.attached_scope()
    if scope is not None:
        pump.wait_for_children(scope, grace=0)
    home.ledger.commit()
