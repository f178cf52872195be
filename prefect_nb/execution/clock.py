"""The time of this process: wall-clock microseconds that never run backwards.

Anchored once to the wall clock and advanced by the monotonic one, so that a stepped clock cannot make a duration
negative. `synchronize` takes the wall clock's word again; a root flow run does so when it starts.
"""

import time

_offset_ns = time.time_ns() - time.monotonic_ns()


def now_us() -> int:
    """Microseconds since 1970-01-01 UTC."""
    return (_offset_ns + time.monotonic_ns()) // 1000


def synchronize() -> None:
    """Anchor to the wall clock again."""
    global _offset_ns
    _offset_ns = time.time_ns() - time.monotonic_ns()
