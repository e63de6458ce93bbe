"""What the page says of a desk: what is still needed, and how marks were understood."""

from fss.demo.desk import Desk, Photo

_MEND = {
    "paint": "paint more, or rub out (eraser)",
    "scribble": "draw red on more of it, blue (palette) on what is not",
    "box": "draw the line anew",
    "file": "drop another file",
}


def needed(desk: Desk) -> str:
    """What to do before pressing Segment, or that all is there."""
    marked = sum(photo.support is not None for photo in desk.supports)
    left = len(desk.supports) - marked
    if not desk.supports:
        return "Drop a photo of the thing, and mark it."
    if not marked:
        return "Mark the thing in the photo, and press Use it."
    more = f"Mark the thing in {_count(left, 'more photo')}, or go on" if left else ""
    if not desk.queries:
        return f"{more}: drop photos to search in." if more else "Drop photos to search in."
    ready = f"Ready: {_count(marked, 'example')}, {_count(len(desk.queries), 'photo')}."
    return f"{ready} {more}." if more else ready


def understood(photo: Photo) -> str:
    """What became of the marks on a photo, and how to mend it; empty where it is not marked yet."""
    if photo.support is None or photo.mask is None:
        return ""
    part = 100 * float(photo.mask.mean())
    share = f"{part:.1f}" if part < 10 else f"{part:.0f}"
    return (
        f"{photo.path.name}, understood as {photo.support.name}: {share}% of the photo. "
        f"To mend it, {_MEND[photo.way or 'paint']}, and press Use it again."
    )


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
