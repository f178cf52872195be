"""Runs and states under the addresses where code written for Prefect imports them from."""
