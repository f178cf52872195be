"""The imperative shell: ledger and feed, drivers and pump, contexts, futures, logs. It answers the engine's commands."""
