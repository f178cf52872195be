"""Named concurrency limits and rate limits, in `prefect_nb.concurrency.sync` and `prefect_nb.concurrency.asyncio`."""
