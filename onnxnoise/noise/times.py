"""Lengths of time in seconds, and how people write them: 1s, 30m, 1h, 1d, 1y (365 days)."""

from __future__ import annotations

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "y": 31536000}
"""The units of time, in seconds."""


def seconds(text: str) -> float | None:
    """The seconds of a number with a unit of time; None for any other text.

    >>> seconds("1.5h"), seconds("1d"), seconds("5")
    (5400.0, 86400.0, None)
    """
    text = text.strip()
    if text[-1:].lower() not in UNITS:
        return None
    try:
        return float(text[:-1]) * UNITS[text[-1:].lower()]
    except ValueError:
        return None


_WORDS = {"s": "second", "m": "minute", "h": "hour", "d": "day", "y": "year"}


def time_words(level: float) -> str:
    """A time as a sentence says it, in the unit that `time_text` takes.

    >>> time_words(86400.0), time_words(276480.0)
    ('1 day', '3.2 days')
    """
    text = time_text(level)
    return f"{text[:-1]} {_WORDS[text[-1]]}{'' if text[:-1] == '1' else 's'}"


def time_text(level: float) -> str:
    """A time in the largest unit in which a few digits say it to the second or better, else rounded to three digits.

    >>> [time_text(t) for t in (0.0, 1.0, 90.0, 3601.0, 86400.0, 31536000.0, 276480.0, 1234567.8)]
    ['0s', '1s', '1.5m', '3601s', '1d', '1y', '3.2d', '14.3d']
    """
    fitting = [(unit, level / size) for unit, size in reversed(UNITS.items()) if level >= size] or [("s", level)]
    for unit, count in fitting:
        if abs(float(f"{count:.2g}") - count) <= 1e-9 * count:
            return f"{float(f'{count:.2g}'):g}{unit}"
    if level < 10000 and level == round(level):
        return f"{level:.0f}s"
    unit, count = fitting[0]
    return f"{count:.3g}{unit}"
