"""Phase-change memory against its formulas in loops, one device at a time, and against AIHWKIT's own results."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from support.normals import unit_normals

from onnxnoise.noise.base import Weights
from onnxnoise.noise.models import chain_of, parse_chain
from onnxnoise.records import CleanHits, NoiseSetting
from onnxnoise.reports.tables import level_heading
from onnxnoise.results.caveats import notices
from onnxnoise.words import Compensation

AIHWKIT = {
    "weights": [-1.0, 0.1],
    # in AIHWKIT's order: +, exponent, read, then the same of -
    "normals": [[0.18905339, -0.32542282], [0.97756743, 0.54528874], [0.841465, 2.0567029],
                [0.84145892, -0.1697605], [0.24293885, -0.23500551], [1.0348669, 2.374887]],
    "results": {1.0: [-1.0681057, 0.1268812], 3600.0: [-0.82660127, 0.09043936], 86400.0: [-0.70551056, 0.07322872]},
}  # fmt: skip
"""Two of the weights that AIHWKIT 1.1.0 with torch 2.13 made noisy: PCMLikeNoiseModel(g_max=25).apply_noise(w, t)."""


def device(g: float, z: list[float], t: float) -> float:
    """The conductance, of 25 microsiemens, of a device programmed to `g`: the formulas of Nandakumar et al. as AIHWKIT has them."""
    r = g / 25
    programmed = max(g + (0.26348 + 1.9650 * r - 1.1731 * r**2) * z[0], 0)
    if t == 0:
        return programmed
    log = math.log(max(r, 1e-7))
    mu = min(max(-0.0155 * log + 0.0244, 0.049), 0.1)
    s = min(max(-0.0125 * log - 0.0059, 0.008), 0.045)
    drifted = programmed * ((t + 20) / 20) ** -abs(mu + s * z[1])
    q = min(0.0088 / max((programmed / 25) ** 0.65, 1e-3), 0.2)
    return max(drifted + drifted * q * math.sqrt(math.log((t + 20 + 250e-9) / (2 * 250e-9))) * z[2], 0)


def weight(w: float, a: float, z: list[float], t: float) -> float:
    plus, minus = device(max(w, 0) * 25 / a, z[::2], t), device(max(-w, 0) * 25 / a, z[1::2], t)
    return (plus - minus) * a / 25


@pytest.mark.parametrize("t", [0.0, 1.0, 3600.0, 86400.0])
@pytest.mark.parametrize(("shape", "scale"), [((6, 3, 5), "tensor"), ((4, 9), "channel"), ((3, 11), "tile:4")])
def test_the_pairs_of_the_formulas(shape: tuple[int, ...], scale: str, t: float) -> None:
    w = np.random.default_rng(1).normal(0, 0.2, shape).astype(np.float32)
    w.flat[3] = 0
    chain = chain_of(NoiseSetting(steps=parse_chain("pcm")))
    drawn = chain.draw(40, 2, 7, 0, shape)
    random = np.random.Generator(np.random.Philox(np.random.SeedSequence(entropy=40, spawn_key=(2, 7, 0))))
    normals = [random.standard_normal(shape, dtype=np.float32) for _ in range(6)]
    np.testing.assert_array_equal(normals[0], unit_normals(40, 2, 7, 0, shape))
    noisy = chain.at(Weights(w, 1.0, scale), drawn, t)
    assert (noisy.dtype, noisy.shape) == (np.float32, shape)
    rows = w.reshape(len(w), -1)
    for i in range(w.size):
        row, column = divmod(i, rows.shape[1])
        a = np.abs(w).max()
        if scale == "channel":
            a = np.abs(rows[row]).max()
        if scale == "tile:4":
            a = np.abs(rows[row][:4] if column < 4 else rows[row][4:8] if column < 8 else rows[row][8:]).max()
        expected = weight(float(w.flat[i]), float(a), [float(z.flat[i]) for z in normals], t)
        assert noisy.flat[i] == pytest.approx(expected, rel=2e-7, abs=1e-9)


@pytest.mark.parametrize("chain", ["pcm", "pcm:gmax=40"])
@pytest.mark.parametrize("t", [1.0, 3600.0, 86400.0])
def test_aihwkit_makes_the_same_of_the_same_normals(chain: str, t: float) -> None:
    w, z = (np.array(AIHWKIT[name], np.float32) for name in ("weights", "normals"))
    drawn = tuple(z[i] for i in (0, 3, 1, 4, 2, 5))
    noisy = chain_of(NoiseSetting(steps=parse_chain(chain))).at(Weights(w, 1.0), (drawn,), t)
    results: Any = AIHWKIT["results"]
    np.testing.assert_allclose(noisy, results[t], atol=3e-7)


def test_a_pair_stays_a_pair_from_step_to_step() -> None:
    """The second step treats what the first one left on both devices, not a new pair of their difference."""
    w = np.random.default_rng(2).normal(0, 0.2, (5, 7)).astype(np.float32)
    chain = chain_of(NoiseSetting(steps=parse_chain("pcm:1h+pcm")))
    drawn = chain.draw(40, 0, 1, 0, w.shape)
    noisy = chain.at(Weights(w, 1.0), drawn, 86400.0)
    a = float(np.abs(w).max())
    for i in range(w.size):
        first, second = ([float(z.flat[i]) for z in arrays] for arrays in drawn)
        pair = [max(float(w.flat[i]), 0) * 25 / a, max(-float(w.flat[i]), 0) * 25 / a]
        pair = [device(g, first[k::2], 3600.0) for k, g in enumerate(pair)]
        pair = [device(g, second[k::2], 86400.0) for k, g in enumerate(pair)]
        assert noisy.flat[i] == pytest.approx((pair[0] - pair[1]) * a / 25, rel=1e-6, abs=1e-8)


@pytest.mark.parametrize("text", ["pcm", "hermes", "hermes:devices=1", "pcm:1h", "relative:0.1+pcm", "reram-cmo"])
@pytest.mark.parametrize("compensate", ["none", "drift"])
def test_levels_of_a_draw_share_what_they_have_in_common(
    text: str, compensate: Compensation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every level of one function is, to the bit, what it is alone: after any other, in any order, in several blocks."""
    monkeypatch.setattr("onnxnoise.noise.blocks._BLOCK", 16)
    w = np.random.default_rng(2).normal(0, 0.2, (5, 7)).astype(np.float32)
    w[2] = 0
    chain = chain_of(NoiseSetting(steps=parse_chain(text), compensate=compensate))
    for scale in ("tensor", "channel", "tile:3"):
        for order in (np.ascontiguousarray, np.asfortranarray):
            weights = Weights(order(w), 1.0, scale)
            drawn = chain.draw(40, 0, 1, 0, w.shape)
            over = chain.over(weights, drawn)
            for t in (86400.0, 0.0, 1.0, 86400.0):
                np.testing.assert_array_equal(over(t), chain.at(weights, drawn, t))


def test_large_tensors_share_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their levels would keep gigabytes; they are the same."""
    w = np.random.default_rng(2).normal(0, 0.2, (5, 7)).astype(np.float32)
    weights, chain = Weights(w, 1.0), chain_of(NoiseSetting(steps=parse_chain("pcm")))
    drawn = chain.draw(40, 0, 1, 0, w.shape)
    assert chain.shared_bytes(drawn, w.size) == 64 * w.size
    shared = chain.over(weights, drawn)(3600.0)
    monkeypatch.setattr("onnxnoise.noise.phase_change._MOST_SHARED", 34)
    assert chain.shared_bytes(drawn, w.size) == sum(z.nbytes for z in drawn[0])
    np.testing.assert_array_equal(chain.over(weights, drawn)(3600.0), shared)


def test_programmed_is_before_drift_and_reading() -> None:
    w = np.random.default_rng(2).normal(0, 0.2, (5, 7)).astype(np.float32)
    chain = chain_of(NoiseSetting(steps=parse_chain("relative:0.1+pcm")))
    drawn = chain.draw(40, 0, 1, 0, w.shape)
    weights = Weights(w, 1.0)
    assert chain.drifts
    for t in (1.0, 86400.0):
        assert chain.programmed(weights, drawn, t).tobytes() == chain.at(weights, drawn, 0.0).tobytes()
        assert chain.programmed(weights, drawn, t).tobytes() != chain.at(weights, drawn, t).tobytes()
    assert not chain_of(NoiseSetting(steps=parse_chain("relative"))).drifts


def test_memory_order_does_not_matter() -> None:
    w = np.random.default_rng(2).normal(0, 0.2, (5, 7)).astype(np.float32)
    chain = chain_of(NoiseSetting(steps=parse_chain("pcm")))
    drawn = chain.draw(40, 0, 1, 0, w.shape)
    turned = tuple(tuple(np.asfortranarray(z) for z in arrays) for arrays in drawn)
    for scale in ("tensor", "channel"):
        noisy = chain.at(Weights(w, 1.0, scale), drawn, 3600.0)
        np.testing.assert_array_equal(chain.at(Weights(np.asfortranarray(w), 1.0, scale), turned, 3600.0), noisy)


def test_where_nothing_is_stored_nothing_comes_back() -> None:
    w = np.zeros((3, 4), np.float32)
    w[1] = 0.5
    chain = chain_of(NoiseSetting(steps=parse_chain("pcm")))
    noisy = chain.at(Weights(w, 0.0, "channel"), chain.draw(40, 0, 1, 0, w.shape), 86400.0)
    assert not noisy[[0, 2]].any()
    assert noisy[1].all()


@pytest.mark.parametrize("chain", ["pcm:1h", "hermes:0", "reram-wan:1s", "pcm-joshi"])
def test_a_zero_of_either_sign_is_on_the_same_devices(chain: str) -> None:
    made = chain_of(NoiseSetting(steps=parse_chain(chain)))
    drawn = made.draw(40, 0, 1, 0, (5, 4))
    w = np.linspace(-1, 1, 20, dtype=np.float32).reshape(5, 4)
    w[1:3] = 0
    negative = np.where(w == 0, np.float32(-0.0), w)
    assert np.signbit(negative[1]).all()
    level = made.levels[0]
    np.testing.assert_array_equal(
        made.at(Weights(negative, 1.0), drawn, level), made.at(Weights(w, 1.0), drawn, level), strict=True
    )


def test_a_time_has_no_size_to_show_beside_it() -> None:
    for text, level, heading in (("pcm", 3600.0, "t 1h"), ("relative", 0.05, "eta 0.05<small>5 %</small>")):
        assert level_heading(chain_of(NoiseSetting(parse_chain(text))).level, level) == heading


def test_noise_on_kernels_alone_makes_no_batch_norm_s_chip_collapse() -> None:
    """With noise in variances, few draws may hide chips that collapse; kernels have none."""
    for analog, told in (("all", True), ("kernels", False)):
        setting = NoiseSetting(parse_chain("relative"), analog=analog)
        clean = CleanHits(10, 9, None, 0)
        made = notices(setting, clean, (), metric="top1", draws=5, precision=None, chunked=False)
        found = {each.code for each in made}
        assert ("rare_collapses" in found) == told
