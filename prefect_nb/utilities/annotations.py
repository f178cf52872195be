"""Marks on arguments: `unmapped(x)`, `allow_failure(future)`, `quote(x)`, `opaque(x)`.

`unmapped` is given whole to every child of a map; `allow_failure` lets a task run although an upstream run failed;
`quote` is not searched for futures; of `opaque` only the outer future is resolved.
"""

from prefect_nb.model.annotations import Annotation, allow_failure, opaque, quote, unmapped

BaseAnnotation = Annotation
Quote = quote


class NotSet:
    """Stands for an argument that was not given, where None means something."""


__all__ = ["BaseAnnotation", "NotSet", "Quote", "allow_failure", "opaque", "quote", "unmapped"]
