"""Two pictures compared by their pixels, where Pillow is installed."""

import base64
import io
from typing import Any

from prefect_nb.model.notebook_diff import ImageChange

_MOST_PIXELS = 20_000_000


def compare_images(media_type: str, before: str, after: str) -> ImageChange | None:
    """What differs between two pictures in base64; None: no pixel does. Without Pillow, only that they differ."""
    try:
        from PIL import Image, ImageChops
    except ImportError:
        return ImageChange(media_type, before, after)
    try:
        one, other = (_decoded(Image, text) for text in (before, after))
    except Exception:  # whatever a damaged picture makes Pillow raise
        return ImageChange(media_type, before, after)
    sizes = (f"{one.width}x{one.height}", f"{other.width}x{other.height}")
    if one.size != other.size or one.width * one.height > _MOST_PIXELS:
        return ImageChange(media_type, before, after, sizes)
    difference = ImageChops.difference(one, other)
    bands = difference.split()
    greatest = bands[0]
    for band in bands[1:]:
        greatest = ImageChops.lighter(greatest, band)
    same = greatest.histogram()[0]
    total = one.width * one.height
    return None if same == total else ImageChange(media_type, before, after, sizes, (total - same) / total)


def _decoded(pillow: Any, text: str) -> Any:
    return pillow.open(io.BytesIO(base64.b64decode(text))).convert("RGBA")
