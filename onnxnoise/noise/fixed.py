"""The level of noise models that have nothing to sweep: there is one."""

from __future__ import annotations

from onnxnoise.noise.base import Level

ONE = Level(
    name="level",
    title="level",
    definition="the noise as it is, with nothing to sweep",
    hint="leave out --levels",
    example="1",
    less="smaller",
    defaults=(1.0,),
    search=(1.0, 1.0),
    percent=lambda level: 100 * level,
    inverse="p / 100",
    reference="the noise as it is",
    limits="1",
    choices=(1.0,),
    measure="the level",
)
