"""The engine: generators that yield commands and are answered, and the rules of moving between states.

Nothing here does I/O, reads a clock, knows threads or an event loop. `execution` drives it.
"""
