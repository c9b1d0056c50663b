"""Where findings lie, seen from the value that they ought to cover."""

from privacy.pii.detector import Detector


def found_over(detector: Detector, frame: str, value: str) -> list[tuple[int, int, str]]:
    """(start, end, entity) of what touches ``value`` in ``frame``, counted from where it starts."""
    text = frame.format(value)
    start = text.index(value)
    return [
        (span.start - start, span.end - start, span.entity)
        for span in detector.detect(text)
        if span.start < start + len(value) and span.end > start
    ]
