"""Which outside names a function only writes to: a counter it raises, a list it appends to.

What a function writes and never reads cannot change its result, so it is no part of its cache key. Read from the bytecode
by following the height of the stack; whatever is not plainly a write counts as a read.
"""

import dis
import functools
from types import CodeType

from prefect_nb.model.code_source import nested_code

_LOADS = frozenset({"LOAD_GLOBAL", "LOAD_NAME", "LOAD_DEREF"})
_STORES = frozenset({"STORE_GLOBAL", "STORE_NAME", "STORE_DEREF"})
_ATTRIBUTES = frozenset({"LOAD_ATTR", "LOAD_METHOD"})
_SILENT = frozenset({"CACHE", "EXTENDED_ARG", "PUSH_NULL", "RESUME", "NOP"})
_MUTATORS = frozenset(
    {"add", "append", "appendleft", "clear", "discard", "extend", "extendleft", "insert", "put", "remove", "update"}
)
_CONTAINER_HEIGHT = {"STORE_SUBSCR": 2, "DELETE_SUBSCR": 2, "STORE_ATTR": 1, "DELETE_ATTR": 1}
"""How high the stack is, the container included, where the operation acts on it. After `+=`, which swaps the new value
below the container, it is one higher."""


@functools.lru_cache(maxsize=4096)
def written_only(code: CodeType) -> frozenset[str]:
    """Return the outside names that a code object and those within it write to and never read."""
    written: set[str] = set()
    read: set[str] = set()
    for inner in nested_code(code):
        steps = [step for step in dis.get_instructions(inner) if step.opname not in _SILENT]
        for place, step in enumerate(steps):
            if step.opname in _LOADS:
                (written if _is_write(steps, place) else read).add(step.argval)
    return frozenset(written - read)


def _is_write(steps: list[dis.Instruction], place: int) -> bool:
    name = steps[place].argval
    following = steps[place + 1] if place + 1 < len(steps) else None
    mutates = following is not None and following.opname in _ATTRIBUTES and following.argval in _MUTATORS
    height = 1
    for at in range(place + 1, len(steps)):
        step, before = steps[at], steps[at - 1].opname
        if step.opcode in dis.hasjrel or step.opcode in dis.hasjabs:
            return False
        if step.opname in _CONTAINER_HEIGHT and height == _CONTAINER_HEIGHT[step.opname] + (before == "SWAP"):
            return True
        height += dis.stack_effect(step.opcode, step.arg, jump=False)
        if height <= 0:
            if step.opname == "POP_TOP":
                return mutates and before.startswith("CALL")
            return step.opname in _STORES and step.argval == name and before == "BINARY_OP"
    return False
