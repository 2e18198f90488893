"""The level of device models: the time since the devices were programmed."""

from __future__ import annotations

from onnxnoise.noise.base import Level
from onnxnoise.noise.times import UNITS, time_text

HOUR, DAY, YEAR = (float(UNITS[unit]) for unit in "hdy")


def age(
    least: float = 0.0,
    most: float = 1000 * YEAR,
    *,
    also: float | None = None,
    choices: tuple[float, ...] = (),
    defaults: tuple[float, ...] = (1.0, HOUR, DAY, YEAR),
    limits: str = "a time from 0s, right after programming, to 1000y",
) -> Level:
    """The time in seconds since programming, between `least` and `most`, or `also`; or one of `choices`."""
    return Level(
        name="t",
        title="time since programming",
        definition="the time since programming",
        hint="1d is a day" if choices else "1h is an hour, 1y are 365 days; 0s is before drift and reading",
        example=",".join(map(time_text, defaults)),
        less="smaller",
        defaults=defaults,
        search=(max(defaults), min(defaults)),
        percent=lambda t: t,
        inverse="p",
        reference="the time since programming",
        limits=limits,
        least=least,
        most=most,
        choices=choices,
        also=also,
        time=True,
    )
