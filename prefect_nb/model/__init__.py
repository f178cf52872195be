"""Pure values: states, runs, events, policies, parameters, fingerprints. No I/O, no clock, no threads."""
