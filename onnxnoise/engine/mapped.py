"""The noise that each layer has: the run's own, or that of the layer's line in a noise map."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from onnxnoise.errors import UsageError
from onnxnoise.noise.models import chain_of, level_of
from onnxnoise.records import MapEntry, NoiseLayer, NoiseSetting
from onnxnoise.selection import matches, select_layers


def setting_in(setting: NoiseSetting, layer: NoiseLayer) -> NoiseSetting:
    """The setting of a layer that bears noise: the run's own, or one with the chain, and the scale, of the layer's line."""
    entry = _entry(setting, layer)
    if entry is None or entry.steps is None:
        return setting
    own = replace(setting, steps=entry.steps, noise_map=None)
    return replace(own, scale=chain_of(own).scale) if setting.scale == "tensor" else own


def analog_layers(
    setting: NoiseSetting, every: Sequence[NoiseLayer], chosen: Sequence[NoiseLayer]
) -> tuple[NoiseLayer, ...]:
    """The layers among `chosen` that the noise map doesn't make digital; `every` has all layers of the network.

    Raises UsageError for a pattern that matches no layer, where all layers are digital, and where a level is swept that no layer
    has.
    """
    noise_map = setting.noise_map
    if noise_map is None:
        return tuple(chosen)
    for each in noise_map.entries:
        if each.pattern.strip() != "*":
            select_layers(every, each.pattern, "--noise-map")
    analog = [layer for layer in chosen if (entry := _entry(setting, layer)) is None or entry.steps is not None]
    if not analog:
        raise UsageError("--noise-map: all layers are digital, so there is no noise; give one a chain or a level")
    entries = [_entry(setting, layer) for layer in analog]
    if not noise_map.whole and all(
        each and all(step.level is not None for step in each.steps or ()) for each in entries
    ):
        raise UsageError(
            f"--noise-map: every layer has its level written there, so no {level_of(setting).name} is left to sweep; write the "
            'last pattern as "*"'
        )
    return tuple(analog)


def _entry(setting: NoiseSetting, layer: NoiseLayer) -> MapEntry | None:
    """The first line of the noise map that names a layer; None where none does."""
    entries = setting.noise_map.entries if setting.noise_map else ()
    return next((each for each in entries if matches(layer, each.pattern)), None)
