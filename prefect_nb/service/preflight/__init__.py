"""Would Restart & Run All of a notebook pass? Told in seconds, with nothing of it executed."""

from prefect_nb.service.preflight.checking import preflight
from prefect_nb.service.preflight.findings import Finding, Report
from prefect_nb.service.preflight.names import Live

__all__ = ["Finding", "Live", "Report", "preflight"]
