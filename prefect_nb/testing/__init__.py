"""Help for testing flows: `prefect_nb.testing.utilities.prefect_test_harness` gives tests a home of their own."""

from prefect_nb.testing.utilities import prefect_test_harness

__all__ = ["prefect_test_harness"]
