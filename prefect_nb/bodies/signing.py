"""Signing executed notebooks, so that Jupyter trusts what a run of the user's own has put into them.

Jupyter shows outputs of a notebook that was executed elsewhere only in part, until somebody trusts it. Its signature is
a digest, kept in a database of the user's.
"""

from __future__ import annotations

import logging
import threading
from functools import cache

logger = logging.getLogger(__name__)


@cache
def prepare() -> threading.Thread:
    """Begin to load what signing needs; that can take a second, in which the kernel starts."""
    thread = threading.Thread(target=_load, name="prefect_nb-signing", daemon=True)
    thread.start()
    return thread


def _load() -> None:
    import nbformat.sign  # noqa: F401


def sign(text: str) -> None:
    """Have this user's Jupyter trust a notebook with exactly this content. What cannot be signed is left unsigned."""
    prepare().join()
    try:
        import nbformat
        from nbformat.sign import NotebookNotary

        notary = NotebookNotary()  # type: ignore[no-untyped-call]
        try:
            notary.sign(nbformat.reads(text, as_version=4))  # type: ignore[no-untyped-call]
        finally:
            notary.store.close()
    except Exception as error:  # no place for the database, a damaged one, a notebook that is not quite one
        logger.debug("The executed notebook was not signed: %s", error, exc_info=error)
