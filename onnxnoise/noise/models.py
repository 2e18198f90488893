"""The noise models by name, and the chains of them that `--noise STEP[+STEP...]` asks for."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from onnxnoise.errors import UsageError
from onnxnoise.noise import MODELS
from onnxnoise.noise.base import Drawn, Drifting, Level, NoiseModel, Weights
from onnxnoise.noise.normals import stream
from onnxnoise.noise.pairs import OnPairs, Pair
from onnxnoise.noise.times import seconds
from onnxnoise.records import Floats, NoiseSetting, NoiseStep
from onnxnoise.text import did_you_mean, quoted


def model_class(name: str) -> Callable[..., NoiseModel]:
    """The class of a noise model, made with the step's parameters by name; raises UsageError for a model that is not known."""
    if name not in MODELS:
        raise UsageError(f"--noise: {quoted(name)} is not known{did_you_mean(name, MODELS)}; use {', '.join(MODELS)}")
    found: Callable[..., NoiseModel] = import_module(f"onnxnoise.noise.{name.replace('-', '_')}").MODEL
    return found


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
    """The chain of a setting. Raises UsageError for a step that is not known or parameters that its model doesn't take."""
    links = tuple(_link(step) for step in setting.steps)
    if sum(link.level is None for link in links) > 1:
        names = [link.model.name for link in links if link.level is None]
        raise UsageError(
            f"--noise: {setting.chain} leaves the levels of {' and '.join(names)} open, but one is swept; write the others, "
            f"as {names[0]}:{links[0].model.level.defaults[0]:g}"
        )
    return Chain(links)


def level_of(setting: NoiseSetting) -> Level:
    """The swept level of a setting; raises UsageError as `chain_of` does."""
    return chain_of(setting).level


def parse_chain(text: str) -> tuple[NoiseStep, ...]:
    """The steps that `STEP[+STEP...]` names; raises UsageError for a text that isn't a chain.

    >>> parse_chain("relative:range=1")
    (NoiseStep(name='relative', level=None, parameters=(('range', 1.0),)),)
    >>> parse_chain("relative:0.05")[0].level
    0.05
    """
    steps = tuple(_step(part.strip()) for part in text.split("+"))
    chain_of(NoiseSetting(steps=steps))
    return steps


def _step(text: str) -> NoiseStep:
    name, colon, rest = text.partition(":")
    level: float | None = None
    parameters: dict[str, float] = {}
    for part in rest.split(",") if colon else ():
        key, equals, value = part.partition("=")
        time = seconds(value if equals else key)
        try:
            number = float(value if equals else key) if time is None else time
        except ValueError:
            raise UsageError(
                f"--noise: {text[:60]!r}: {part[:40]!r} is no parameter; write a level, or NAME=NUMBER"
            ) from None
        if not equals and level is not None:
            raise UsageError(f"--noise: {text[:60]!r} has two levels; write one, and other parameters as NAME=NUMBER")
        if equals:
            parameters[key.strip()] = number
        else:
            level = number
    return NoiseStep(name.strip(), level, tuple(parameters.items()))


def _drifts(model: NoiseModel) -> bool:
    return isinstance(model, Drifting) and model.drifts


def _link(step: NoiseStep) -> Link:
    model = model_class(step.name)
    known = tuple(inspect.signature(model).parameters)
    for name, _ in step.parameters:
        if name not in known:
            takes = f"it takes {', '.join(known)}" if known else "it takes none besides its level"
            raise UsageError(f"--noise: {step.name} has no parameter {name[:40]!r}; {takes}")
    made = model(**dict(step.parameters))
    return Link(made, None if step.level is None else made.level.check(step.level, "--noise"))


def headline(setting: NoiseSetting) -> str:
    """The first line of every output: the noise, the values that its sigma or scale is taken over, the batch-norm policy."""
    level = level_of(setting)
    return f"weight noise, {level.name} = {level.definition}, {terms(setting)}"


def terms(setting: NoiseSetting) -> str:
    """All that the meaning of a level depends on, in words: the `units`, and the batch-norm policy."""
    return f"{units(setting)}; batch norms: {setting.bn}"


def units(setting: NoiseSetting) -> str:
    """The unit of a level in words: `sigma per tensor`, else the noise model and its scale; then which weights bear noise."""
    white = setting.chain == "gaussian"
    noise = f"sigma per {setting.sigma_scope}" if white else f"{setting.chain}, scale per {setting.scale}"
    return f"{noise}; kernels only" if setting.analog == "kernels" else noise


def setting_of(identity: Mapping[str, Any]) -> NoiseSetting:
    """The setting that `NoiseSetting.flat` wrote, as a run file's identity keeps it.

    Raises KeyError or ValueError where the identity holds no setting.
    """
    try:
        steps = parse_chain(identity.get("noise", "gaussian"))
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
