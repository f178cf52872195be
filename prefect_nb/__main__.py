"""`python -m prefect_nb`: the same as `prefect-nb`."""

from prefect_nb.cli import main

if __name__ == "__main__":
    main(prog_name="prefect-nb")
