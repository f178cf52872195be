"""`Block`, the base of every type of block; see `prefect_nb.blocks`."""

import prefect_nb.home  # noqa: F401 - says where blocks are saved
from prefect_nb.execution.blocks import (
    Block,
    BlockNotSavedError,
    InvalidBlockRegistration,
    UnknownBlockType,
    load_by_slug,
)

__all__ = ["Block", "BlockNotSavedError", "InvalidBlockRegistration", "UnknownBlockType", "load_by_slug"]
