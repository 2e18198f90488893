"""Each noise model against its definition in loops, one weight at a time."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from onnxnoise.noise.base import Weights
from onnxnoise.noise.models import chain_of, parse_chain
from onnxnoise.records import NoiseSetting

SHAPE = (5, 3, 4)
Oracle = Callable[[float, float, list[float], float], float]
"""(weight, a, the weight's random numbers, level) to the noisy weight."""


def poly(x: float, *coefficients: float) -> float:
    return sum(c * x**i for i, c in enumerate(coefficients))


def clip(x: float, low: float, high: float) -> float:
    return min(max(x, low), high)


def on_pair(device: Callable[[float, list[float], float], float], full: float, idle: float = 0.0) -> Oracle:
    """The oracle of a device that holds conductances from `idle` to `full`."""

    def oracle(w: float, a: float, z: list[float], level: float) -> float:
        plus, minus = (max(side, 0) / a * (full - idle) + idle for side in (w, -w))
        return (device(plus, z[::2], level) - device(minus, z[1::2], level)) * a / (full - idle)

    return oracle


def hermes(devices: int) -> Oracle:
    full, t0 = ((20.7, 300), (10.35, 200))[2 - devices]

    def device(g: float, z: list[float], t: float) -> float:
        r = max(g / full, 1e-7)
        if devices == 2:
            sigma = 0.16603222 + 4.71806468 * (g / full) - 8.48101252 * (g / full) ** 2 + 4.68961419 * (g / full) ** 3
            s = clip(-0.0117 * math.log(r) - 0.0057, 0.0091, 0.04) if r < 0.3055 else poly(r, 0.0073, 0.0093, -0.0118)
        else:
            sigma = 0.15781817 + 2.32443916 * (g / full) - 2.16310839 * (g / full) ** 2 + 0.68841818 * (g / full) ** 3
            s = clip(-0.0120 * math.log(r) - 0.0023, 0.0124, 0.04) if r < 0.3039 else poly(r, 0.0104, 0.0116, -0.0165)
        programmed = max(g + sigma * z[0], 0)
        if t == 0:
            return programmed
        mu = clip(-0.0387 * math.log(r) - 0.0182, 0.0720, 0.13) if r < 0.0945 else poly(r, 0.0736, -0.0126, -0.0436)
        q = max(programmed / full, 1e-7)
        if devices == 2:
            size = (
                clip(-0.0117 * math.log(q) - 0.0069, 0.015, 0.04)
                if q < 0.16
                else poly(q, 0.0123, 0.0211, -0.028, 0.0069)
            )
        else:
            small = clip(-0.0078 * math.log(q) + 0.0038, 0.0179, 0.04)
            size = small if q < 0.1591 else poly(q, 0.0088, 0.0768, -0.1352, 0.0664)
        drifted = programmed * ((t + t0) / t0) ** -abs(mu + s * z[1])
        return max(drifted + drifted * size * math.sqrt(math.log((t + t0 + 512e-9) / (2 * 512e-9))) * z[2], 0)

    return on_pair(device, full)


def wan(g: float, z: list[float], t: float) -> float:
    sigma = {
        1.0: (0.348, 16.030, -43.853, 45.393, -16.815),
        86400.0: (0.701, 22.086, -50.773, 47.095, -16.458),
        172800.0: (0.782, 20.274, -43.507, 37.062, -11.934),
    }[t]
    return max(g + poly(g / 25, *sigma) * 25 / 40 * z[0], 0)


def joshi(g: float, z: list[float], _: float) -> float:
    return max(g + max(-0.00178767 * g * g + 0.07585724 * g + 0.28638599, 0) * z[0], 0)


def afm(w: float, a: float, z: list[float], _: float) -> float:
    v = w * 180 / a
    if abs(v) > 52.5:
        sigma = poly(abs(v), 2.110295720240385, 0.2453487119885723, -0.003054993405157235, 1.2329755395573392e-05)
        return (v + sigma * z[1]) * a / 180
    sigma = poly(abs(v), 2.5797410660159494, 0.22419685954327148, -0.00371581208142707, 2.939751381126213e-05)
    noisy = v + sigma * z[0]
    return 0 if abs(noisy) < 0.6 else noisy * a / 180


def quantize(w: float, a: float, _: list[float], bits: float) -> float:
    n = 2 ** (int(bits) - 1) - 1
    return round(w / a * n) * a / n  # Python rounds ties to even


def flipped(bits: int) -> Oracle:
    def oracle(w: float, a: float, u: list[float], p: float) -> float:
        n = 2 ** (bits - 1) - 1
        code = round(w / a * n) % 2**bits
        for i in range(bits):
            code ^= (u[i] < p) << i
        return (code - 2**bits if code >= 2 ** (bits - 1) else code) * a / n

    return oracle


def stuck(high: float) -> Oracle:
    def oracle(w: float, a: float, u: list[float], p: float) -> float:
        if u[0] < p * (1 - high):
            return 0
        return (a if w >= 0 else -a) if u[0] < p else w

    return oracle


ORACLES: dict[str, tuple[Oracle, int | str, tuple[float, ...]]] = {
    "proportional": (lambda w, _, z, eta: w * (1 + eta * z[0]), 1, (0.1, 0.5)),
    "lognormal": (lambda w, _, z, s: w * math.exp(s * z[0]), 1, (0.1, 0.5)),
    "quantize": (quantize, 0, (2, 4, 7, 16)),
    "bitflip": (flipped(8), "8", (0.01, 0.3)),
    "bitflip:bits=4": (flipped(4), "4", (0.01, 0.3)),
    "bitflip:bits=13": (flipped(13), "13", (0.3, 1.0)),
    "stuck": (stuck(0), "", (0.1, 0.5)),
    "stuck:high=0.3": (stuck(0.3), "", (0.1, 0.5, 1.0)),
    "afm": (afm, 2, (1.0,)),
    "hermes": (hermes(2), 6, (0.0, 1.0, 86400.0)),
    "hermes:devices=1": (hermes(1), 6, (0.0, 1.0, 86400.0)),
    "reram-wan": (on_pair(wan, 25), 2, (1.0, 86400.0, 172800.0)),
    "pcm-joshi": (on_pair(joshi, 25, 0.25), 2, (1.0,)),
}
"""Each model's oracle, its random arrays (so many normals, or uniform numbers: one array with so many at its end), and levels."""


def random_numbers(kind: int | str, shape: tuple[int, ...]) -> list[Any]:
    """The random numbers of draw 2 of layer 7's weight: one array of the shape of `shape` for each number that a weight needs."""
    random = np.random.Generator(np.random.Philox(np.random.SeedSequence(entropy=40, spawn_key=(2, 7, 0))))
    if isinstance(kind, int):
        return [random.standard_normal(shape, dtype=np.float32) for _ in range(kind)]
    u = random.random((*shape, int(kind)) if kind else shape, dtype=np.float32)
    return [u[..., i] for i in range(int(kind))] if kind else [u]


def sized(w: Any, scale: str, place: tuple[int, ...]) -> float:
    """The size a for the weight at a place: max |w| of the tensor, or of its row."""
    return float(np.abs(w if scale == "tensor" else w[place[0]]).max())


@pytest.mark.parametrize("scale", ["tensor", "channel"])
@pytest.mark.parametrize("text", ORACLES)
def test_the_noise_of_the_definition(text: str, scale: str) -> None:
    oracle, kind, levels = ORACLES[text]
    w = np.random.default_rng(3).normal(0, 0.2, SHAPE).astype(np.float32)
    w[2, 1, 1] = 0
    chain = chain_of(NoiseSetting(steps=parse_chain(text)))
    drawn = chain.draw(40, 2, 7, 0, SHAPE)
    numbers = random_numbers(kind, SHAPE)
    assert len(chain.level.defaults) == 1 or all(chain.level.check(level, "") == level for level in levels)
    for level in levels:
        noisy = chain.at(Weights(w, 1.0, scale), drawn, level)
        assert (noisy.dtype, noisy.shape) == (np.float32, SHAPE)
        for place in np.ndindex(SHAPE):
            expected = oracle(float(w[place]), sized(w, scale, place), [float(each[place]) for each in numbers], level)
            assert noisy[place] == pytest.approx(expected, rel=3e-7, abs=1e-9), (place, level)


@pytest.mark.parametrize("accept", ["", ":accept=0.2"])
def test_one_device_a_weight(accept: str) -> None:
    c0, c1 = (0.00081107, 0.00106879) if accept else (0.0112185391, 0.01129027418)
    w = np.random.default_rng(3).normal(0, 0.2, SHAPE).astype(np.float32)
    chain = chain_of(NoiseSetting(steps=parse_chain(f"reram-cmo{accept}")))
    drawn = chain.draw(40, 2, 7, 0, SHAPE)
    numbers = random_numbers(3, SHAPE)
    unit = (float(w.max()) - float(w.min())) / (88.199997 - 9)
    for t in (0.0, 1.0, 3600.0):
        noisy = chain.at(Weights(w, 1.0), drawn, t)
        for place in np.ndindex(SHAPE):
            z = [float(each[place]) for each in numbers]
            g = (float(w[place]) - float(w.min())) / unit + 9
            g += (c0 + c1 * g) * z[0]
            if t:
                g += -0.08900206 * math.log(t) + (0.04201137 * math.log(t) + 0.41183342) * z[1]
                g += 0.0277316483 * math.log10(g) * math.sqrt(math.log((t + 1e-6) / 2e-6)) * z[2]
                g = clip(g, 9, 88.199997)
            assert noisy[place] == pytest.approx((g - 9) * unit + float(w.min()), rel=1e-6, abs=1e-8)


def test_flipped_bits_of_float32() -> None:
    w = np.random.default_rng(3).normal(0, 0.2, (4, 6)).astype(np.float32)
    chain = chain_of(NoiseSetting(steps=parse_chain("bitflip:bits=32")))
    drawn = chain.draw(40, 2, 7, 0, w.shape)
    numbers = random_numbers("32", w.shape)
    noisy = chain.at(Weights(w, 1.0), drawn, 0.02)
    changed = 0
    for place in np.ndindex(w.shape):
        word = int(w[place].view(np.uint32))
        mask = sum((float(u[place]) < 0.02) << i for i, u in enumerate(numbers))
        changed += bool(mask)
        assert int(noisy[place].view(np.uint32)) == word ^ mask
    assert changed


@pytest.mark.parametrize("text", [*ORACLES, "reram-cmo", "bitflip:bits=32"])
def test_nothing_stored_is_nothing_read(text: str) -> None:
    """A channel that is all zeros stays so, and warns of nothing; flipped bits of float32 zeros are other numbers."""
    w = np.zeros((3, 8), np.float32)
    w[1] = np.linspace(-1, 1, 8)
    chain = chain_of(NoiseSetting(steps=parse_chain(text)))
    level = chain.level.defaults[0]
    noisy = chain.at(Weights(w, 1.0, "channel"), chain.draw(40, 0, 1, 0, w.shape), level)
    if text != "bitflip:bits=32":
        assert not noisy[[0, 2]].any()
    assert np.isfinite(noisy[1]).all() or text == "bitflip:bits=32"


@pytest.mark.parametrize("text", [*ORACLES, "reram-cmo", "relative", "gaussian"])
def test_transposed_weights_meet_the_same_noise(text: str) -> None:
    """Weights and random arrays that lie in memory as the graph stores a dense layer give the same noisy weights."""
    w = np.random.default_rng(2).normal(0, 0.2, (5, 7)).astype(np.float32)
    chain = chain_of(NoiseSetting(steps=parse_chain(text)))
    drawn = chain.draw(40, 0, 1, 0, w.shape)
    turned = tuple(tuple(np.asfortranarray(z) if z.shape == w.shape else z for z in arrays) for arrays in drawn)
    level = chain.level.defaults[-1]
    for scale in ("tensor", "channel", "tile:3"):
        noisy = chain.at(Weights(w, 1.0, scale), drawn, level)
        np.testing.assert_array_equal(chain.at(Weights(np.asfortranarray(w), 1.0, scale), turned, level), noisy)


def test_a_quiet_level_leaves_the_weights() -> None:
    w = np.random.default_rng(2).normal(0, 0.2, (5, 7)).astype(np.float32)
    for text in ("proportional", "lognormal", "quantize", "stuck", "bitflip:bits=32"):
        chain = chain_of(NoiseSetting(steps=parse_chain(text)))
        noisy = chain.at(Weights(w, 1.0), chain.draw(40, 0, 1, 0, w.shape), chain.level.silent)
        assert noisy.tobytes() == w.tobytes(), text


def test_a_device_that_decays_to_nothing_is_read_as_the_smallest() -> None:
    chain = chain_of(NoiseSetting(steps=parse_chain("reram-cmo")))
    w = np.array([[0, 1]], np.float32)
    drawn = (tuple(np.full(w.shape, z, np.float32) for z in (0, -9, 1)),)
    np.testing.assert_array_equal(chain.at(Weights(w, 1.0), drawn, 31536000.0)[0, 0], 0)
