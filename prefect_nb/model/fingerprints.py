"""Tagged, stable digests of values, and the parts of a cache key made from them.

Two values have one digest when they are of one type and equal in content: across processes, kernels, PYTHONHASHSEED and the
order of dicts and sets. Values of different types never share one: `1`, `1.0`, `True` and `numpy.int64(1)` all differ, as do
`0.0` and `-0.0`; NaNs are equal when their bits are. A path counts as its text, not as the content of the file. An object of a
class the user wrote counts as the class's code and the object's state. What cannot be hashed so is refused with `Unhashable`:
open files, locks, connections, generators and the like never get a weaker digest.
"""

from prefect_nb.model.code_fingerprints import CodeDigester, too_deep, with_reached
from prefect_nb.model.fingerprint_parts import Part, Unhashable, combine, explain

__all__ = ["Part", "Unhashable", "combine", "explain", "hash_value", "value_part"]


def hash_value(value: object) -> str:
    """Return the hex digest of a value.

    Raises Unhashable, naming the type and the path to it, when the value or anything in it has no stable digest.
    """
    digester = CodeDigester()
    try:
        return with_reached(digester, digester.digest(value)).hex()
    except RecursionError:
        raise too_deep(value) from None


def value_part(kind: str, name: str, value: object) -> Part:
    """Return the part of a cache key for one value, such as an input, with details that explain a later difference.

    Raises Unhashable as `hash_value` does, the path beginning with the kind and name.
    """
    digester = CodeDigester()
    part = digester.part(kind, name, value)
    digest = with_reached(digester, bytes.fromhex(part.digest)).hex()
    return Part(kind, name, digest, part.detail)
