"""Small tools under Prefect's names."""
