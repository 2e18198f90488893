"""The noise models by name, and the chains of them that `--noise STEP[+STEP...]` asks for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache

import numpy as np

from onnxnoise.errors import UsageError
from onnxnoise.noise.base import Drawn, Level, NoiseModel, SharedModel, Weights
from onnxnoise.noise.normals import stream
from onnxnoise.noise.pairs import OnPairs, Pair
from onnxnoise.noise.steps import made_of, step_of, texts_of
from onnxnoise.records import Floats, NoiseSetting, NoiseStep
from onnxnoise.text import counted


@dataclass(frozen=True)
class Link:
    """One step of a chain: its model, and its level where one is written into the chain (`relative:0.05`)."""

    model: NoiseModel
    level: float | None


@dataclass(frozen=True)
class Chain:
    """Noise models one after the other: each takes the values that the one before has made.

    One of them has the level that is swept; all others have theirs written into the chain. With `compensated` what drifts is
    scaled when it is read: by the ratio of the mean |w| that was programmed to the one that is read, one factor a tensor.
    """

    links: tuple[Link, ...]
    compensated: bool = False

    @property
    def level(self) -> Level:
        """The level that is swept; of a chain in which every level is written, the last step's."""
        return (self._open or self.links[-1]).model.level

    @property
    def levels(self) -> tuple[float, ...]:
        """The levels to sweep where nothing else is asked for: the level's defaults, or the one written in the chain."""
        return self.level.defaults if self.written is None else (self.written,)

    @property
    def written(self) -> float | None:
        """The last step's level where every step has its level written, so that nothing is swept; else None."""
        return self.links[-1].level if self._open is None else None

    @property
    def _open(self) -> Link | None:
        return next((link for link in self.links if link.level is None), None)

    @cached_property
    def _sharing(self) -> SharedModel | None:
        """The model of the only step, where levels of a draw share something; asked once, since asking takes 40 us."""
        model = self.links[0].model
        return model if len(self.links) == 1 and isinstance(model, SharedModel) else None

    def draw(self, seed: int, draw: int, layer: int, role: int, shape: tuple[int, ...]) -> tuple[Drawn, ...]:
        """The random arrays of each step, for one initializer (`role` k of the layer with that index) in one draw."""
        return tuple(
            link.model.draw(stream(seed, draw, layer, role, step), shape) for step, link in enumerate(self.links, 1)
        )

    def at(self, weights: Weights, drawn: tuple[Drawn, ...], level: float) -> Floats:
        """The noisy values of one initializer at `level`, float32 in the canonical shape."""
        read = self._through(weights, drawn, tuple(level if link.level is None else link.level for link in self.links))
        if not (self.compensated and self.drifts):
            return read
        return _compensated(read, _size(self.programmed(weights, drawn, level)))

    def over(self, weights: Weights, drawn: tuple[Drawn, ...]) -> Callable[[float], Floats]:
        """A function from a level to what `at` gives, to the bit; what the levels of a draw share is computed once."""
        model, written = self._sharing, self.links[0].level
        if model is None:
            return lambda level: self.at(weights, drawn, level)
        made = model.over(weights, drawn[0])
        read = made if written is None else lambda _: made(written)
        if not (self.compensated and self.drifts):
            return read
        programmed = _size(made(0.0))
        return lambda level: _compensated(read(level), programmed)

    def shared_bytes(self, drawn: tuple[Drawn, ...], values: int) -> int:
        """The bytes that a function of `over` keeps, made of these random arrays of an initializer of so many values."""
        if self._sharing is not None:
            return self._sharing.shared_bytes(values)
        return sum(array.nbytes for arrays in drawn for array in arrays)

    @property
    def scale(self) -> str:
        """The scale to take where none is asked for: that of the first step that has one of its own."""
        return next((link.model.scale for link in self.links if link.model.scale != "tensor"), "tensor")

    @property
    def deterministic(self) -> bool:
        """Whether nothing is random, so that all draws are one chip."""
        return all(link.model.deterministic for link in self.links)

    @property
    def drifts(self) -> bool:
        """Whether one of the steps drifts, so that what was programmed is known beside what is read."""
        return any(link.model.drifts for link in self.links)

    def programmed(self, weights: Weights, drawn: tuple[Drawn, ...], level: float) -> Floats:
        """The noisy values as `at` gives them, but with each drifting step right after programming: before drift and reading."""
        now = (0.0 if link.model.drifts else level if link.level is None else link.level for link in self.links)
        return self._through(weights, drawn, tuple(now))

    def _through(self, weights: Weights, drawn: tuple[Drawn, ...], levels: tuple[float, ...]) -> Floats:
        """The values after all steps; pairs of conductances go from one device step to the next as they are."""
        if len(self.links) == 1:
            return self.links[0].model.at(weights, drawn[0], levels[0])
        pair: Pair | None = None
        for i, (link, arrays, level) in enumerate(zip(self.links, drawn, levels, strict=True)):
            model, following = link.model, [each.model for each in self.links[i + 1 : i + 2]]
            kept = any(isinstance(each, OnPairs) for each in following)
            if (pair is not None or kept) and isinstance(model, OnPairs):
                pair = model.stored(Pair.of(weights) if pair is None else pair, arrays, level)
                if kept:
                    continue
                noisy, pair = pair.weights(), None
            else:
                noisy = model.at(weights, arrays, level)
            weights = Weights(noisy, weights.sigma_w, weights.scale)
        return weights.values


@lru_cache(maxsize=256)
def chain_of(setting: NoiseSetting) -> Chain:
    """The chain of a setting.

    Raises UsageError for a step that is not known, for parameters that its model doesn't take, for several steps without a level,
    and for steps in an order that makes no sense.
    """
    links = tuple(Link(*made_of(step)) for step in setting.steps)
    _check_open(setting, links)
    _check_order(setting, links)
    return Chain(links, setting.compensate == "drift")


def _check_open(setting: NoiseSetting, links: Sequence[Link]) -> None:
    """One level at most is swept."""
    without = [link.model for link in links if link.level is None]
    if len(without) > 1:
        names = " and ".join(model.name for model in without)
        first = without[0]
        raise UsageError(
            f"--noise: {setting.chain} leaves the levels of {names} open, but one is swept; write the others, "
            f"as {first.name}:{first.level.number(first.level.defaults[0])}"
        )


def _check_order(setting: NoiseSetting, links: Sequence[Link]) -> None:
    """Steps on weights come before those on devices, and a memory that shares no pair stands alone among these."""
    device: NoiseModel | None = None
    for number, (step, link) in enumerate(zip(setting.steps, links, strict=True), 1):
        model = link.model
        if device is not None and model.place == "weights":
            raise UsageError(
                f"--noise: step {number}, {step.text}, is on weights, but {device.name} before it has put them on devices; "
                f"write {model.name} before {device.name}"
            )
        if device is not None and model.place == "devices" and (model.alone or device.alone):
            raise UsageError(
                f"--noise: step {number}, {step.text}, can't follow {device.name}: "
                f"{(model if model.alone else device).name} shares its devices with no other step; leave out one of the two"
            )
        if model.place == "devices":
            device = model


def level_of(setting: NoiseSetting) -> Level:
    """The swept level of a setting; raises UsageError as `chain_of` does."""
    return AS_MAPPED if setting.noise_map is not None and setting.noise_map.whole else chain_of(setting).level


def parse_chain(text: str, sha256s: Sequence[str] | None = None) -> tuple[NoiseStep, ...]:
    """The steps that `STEP[+STEP...]` names.

    Files of the user's are read; with `sha256s`, the digests that a run file has kept of them, they aren't. Raises UsageError for
    a text that isn't a chain, NoiseFileError for a file that can't be used.

    >>> parse_chain("relative:range=1")
    (NoiseStep(name='relative', level=None, parameters=(('range', 1.0),), file='', sha256=''),)
    >>> parse_chain("pcm:1d")[0].level
    86400.0
    """
    steps = tuple(step_of(part, read=sha256s is None) for part in texts_of(text))
    if sha256s is not None:
        kept = iter(sha256s)
        steps = tuple(replace(step, sha256=next(kept, "")) if step.file else step for step in steps)
    chain_of(NoiseSetting(steps=steps))
    return steps


def _compensated(read: Floats, programmed: float) -> Floats:
    """The values that are read, scaled to the mean |w| that was programmed."""
    return (read * (programmed / _size(read))).astype(np.float32)


def _size(values: Floats) -> float:
    """The mean of |w|, at least 1e-4 as in AIHWKIT's global drift compensation."""
    return max(float(np.abs(values).mean(dtype=np.float64)), 1e-4)


def drifts(setting: NoiseSetting) -> bool:
    """Whether the devices of a setting drift, at least in some layers."""
    return any(chain.drifts for chain in _chains(setting))


def deterministic(setting: NoiseSetting) -> bool:
    """Whether nothing of a setting is random in any layer, so that all draws are one chip."""
    return all(chain.deterministic for chain in _chains(setting))


def _chains(setting: NoiseSetting) -> list[Chain]:
    """The chains of a setting: its own, unless a noise map gives every layer another, and those of the map."""
    mapped = setting.noise_map
    if mapped is None:
        return [chain_of(setting)]
    steps = [each.steps for each in mapped.entries if each.steps is not None]
    return [chain_of(NoiseSetting(each)) for each in (*([] if mapped.whole else [setting.steps]), *steps)]


class _Mapped(Level):
    """The level of a noise map that gives every layer its own: one that isn't swept, and has no number."""

    def number(self, level: float) -> str:  # noqa: ARG002
        return "as mapped"

    def percent_text(self, level: float) -> str:  # noqa: ARG002
        return "-"

    def check(self, level: float, flag: str) -> float:
        if level == 1:
            return level
        raise UsageError(f"{flag}: {level:g} is no {self.title}: {self.hint}, and the run's one level is called 1")


AS_MAPPED = _Mapped(
    name="noise",
    title="level of a noise map",
    definition="that of each layer's line in the noise map",
    hint="the map gives every layer its level",
    example="1",
    less="smaller",
    defaults=(1.0,),
    search=(1.0, 1.0),
    percent=lambda level: 100.0 * level,
    inverse="p / 100",
    reference="the noise map",
    choices=(1.0,),
)
"""The one level of a run whose noise map leaves no level to sweep."""


def headline(setting: NoiseSetting) -> str:
    """The first line of every output: the noise, the values that its sigma or scale is taken over, the batch-norm policy."""
    level = level_of(setting)
    swept = "" if level.only is not None else f", {level.name} = {level.definition}"
    return f"weight noise{swept}, {terms(setting)}"


def terms(setting: NoiseSetting) -> str:
    """All that the meaning of a level depends on, in words: the `units`, and the batch-norm policy."""
    return f"{units(setting)}; batch norms: {setting.bn}"


def units(setting: NoiseSetting) -> str:
    """The unit of a level in words: `sigma per tensor`, else the noise model and its scale; then which weights bear noise."""
    mapped = setting.noise_map
    white = setting.chain == "gaussian"
    said = [f"sigma per {setting.sigma_scope}" if white else f"{readable(setting)}, scale per {setting.scale}"]
    if mapped is not None:
        own = [] if mapped.whole else [f"elsewhere {said[0]}"]
        said = [f"noise map {mapped.sha256[:8]} ({counted(len(mapped.entries), 'pattern')})", *own]
    if setting.analog == "kernels":
        said.append("kernels only")
    if setting.compensate == "drift":
        said.append("drift compensated")
    if setting.compensate == "bn":
        said.append(f"batch norms recalibrated on {counted(setting.calibration, 'image')}")
    return "; ".join(said)


def readable(setting: NoiseSetting) -> str:
    """The chain as people read it, with the levels that are times written as such: `quantize:4+pcm:1d`."""
    pairs = zip(setting.steps, chain_of(setting).links, strict=True)
    return "+".join(
        step.text if step.level is None else step.written(link.model.level.number(step.level)) for step, link in pairs
    )
