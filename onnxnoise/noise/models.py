"""The noise models by name, and the chains of them that `--noise STEP[+STEP...]` asks for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from onnxnoise.errors import UsageError
from onnxnoise.noise.base import Drawn, Drifting, Level, NoiseModel, Weights
from onnxnoise.noise.normals import stream
from onnxnoise.noise.pairs import OnPairs, Pair
from onnxnoise.noise.steps import made_of, step_of, texts_of
from onnxnoise.records import Floats, NoiseSetting, NoiseStep


@dataclass(frozen=True)
class Link:
    """One step of a chain: its model, and its level where one is written into the chain (`relative:0.05`)."""

    model: NoiseModel
    level: float | None


@dataclass(frozen=True)
class Chain:
    """Noise models one after the other: each takes the values that the one before has made.

    One of them has the level that is swept; all others have theirs written into the chain.
    """

    links: tuple[Link, ...]

    @property
    def level(self) -> Level:
        """The level that is swept; of a chain in which every level is written, the last step's."""
        return (self._open or self.links[-1]).model.level

    @property
    def levels(self) -> tuple[float, ...]:
        """The levels to sweep where nothing else is asked for: the level's defaults, or the one written in the chain."""
        if self._open is not None:
            return self.level.defaults
        written = self.links[-1].level
        assert written is not None
        return (written,)

    @property
    def _open(self) -> Link | None:
        return next((link for link in self.links if link.level is None), None)

    def draw(self, seed: int, draw: int, layer: int, role: int, shape: tuple[int, ...]) -> tuple[Drawn, ...]:
        """The random arrays of each step, for one initializer (`role` k of the layer with that index) in one draw."""
        return tuple(
            link.model.draw(stream(seed, draw, layer, role, step), shape) for step, link in enumerate(self.links, 1)
        )

    def at(self, weights: Weights, drawn: tuple[Drawn, ...], level: float) -> Floats:
        """The noisy values of one initializer at `level`, float32 in the canonical shape."""
        return self._through(weights, drawn, tuple(level if link.level is None else link.level for link in self.links))

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
        return any(_drifts(link.model) for link in self.links)

    def programmed(self, weights: Weights, drawn: tuple[Drawn, ...], level: float) -> Floats:
        """The noisy values as `at` gives them, but with each drifting step right after programming: before drift and reading."""
        now = (0.0 if _drifts(link.model) else level if link.level is None else link.level for link in self.links)
        return self._through(weights, drawn, tuple(now))

    def _through(self, weights: Weights, drawn: tuple[Drawn, ...], levels: tuple[float, ...]) -> Floats:
        """The values after all steps; pairs of conductances go from one device step to the next as they are."""
        pair: Pair | None = None
        for i, (link, arrays, level) in enumerate(zip(self.links, drawn, levels, strict=True)):
            model, following = link.model, [each.model for each in self.links[i + 1 : i + 2]]
            kept = any(isinstance(each, OnPairs) for each in following)
            if isinstance(model, OnPairs) and (pair is not None or kept):
                pair = model.stored(Pair.of(weights) if pair is None else pair, arrays, level)
                if kept:
                    continue
                noisy, pair = pair.weights(), None
            else:
                noisy = model.at(weights, arrays, level)
            weights = Weights(noisy, weights.sigma_w, weights.scale)
        return weights.values


def chain_of(setting: NoiseSetting) -> Chain:
    """The chain of a setting.

    Raises UsageError for a step that is not known, for parameters that its model doesn't take, for several steps without a level,
    and for steps in an order that makes no sense.
    """
    links = tuple(Link(*made_of(step)) for step in setting.steps)
    _check_open(setting, links)
    _check_order(setting, links)
    return Chain(links)


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
    return chain_of(setting).level


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


def _drifts(model: NoiseModel) -> bool:
    return isinstance(model, Drifting) and model.drifts


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
    white = setting.chain == "gaussian"
    noise = f"sigma per {setting.sigma_scope}" if white else f"{readable(setting)}, scale per {setting.scale}"
    return f"{noise}; kernels only" if setting.analog == "kernels" else noise


def readable(setting: NoiseSetting) -> str:
    """The chain as people read it, with the levels that are times written as such: `quantize:4+pcm:1d`."""
    pairs = zip(setting.steps, chain_of(setting).links, strict=True)
    return "+".join(
        step.text if step.level is None else step.written(link.model.level.number(step.level)) for step, link in pairs
    )


def setting_of(identity: Mapping[str, Any]) -> NoiseSetting:
    """The setting that `NoiseSetting.flat` wrote, as a run file's identity keeps it.

    Raises KeyError or ValueError where the identity holds no setting.
    """
    try:
        steps = parse_chain(identity.get("noise", "gaussian"), identity.get("noise_files", ()))
    except UsageError as error:
        raise ValueError(str(error)) from error
    return NoiseSetting(
        steps,
        identity["seed"],
        identity["bn"],
        identity["sigma_scope"],
        identity.get("scale", "tensor"),
        identity.get("analog", "all"),
    )
