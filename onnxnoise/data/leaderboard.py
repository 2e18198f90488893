"""The table of the networks of which cards say what they keep under noise, the most robust first."""

from __future__ import annotations

from collections.abc import Iterable
from math import inf

from onnxnoise.data.cards import Card
from onnxnoise.data.measured_noise import MeasuredNoise

SNRS = (10.0, 5.0)
"""The SNRs of the table: sigma_noise of 10 and 20 percent of sigma_w."""

HEADINGS = ("network", "layers", "parameters", "clean", "batch norms", "SNR 10", "SNR 5", "margin")

LEGEND = (
    "SNR 10, SNR 5: accuracy over the clean one with noise in all layers, of 10 and 20 % of sigma_w; margin: the least SNR that "
    "keeps 95 % of the clean accuracy. Batch norms: `group` has noise on their four tensors, with one sigma for a layer (the "
    "paper's protocol); `affine` on the scale and shift that hardware holds, with a sigma for each tensor."
)


def rows(cards: Iterable[Card]) -> list[tuple[str, ...]]:
    """The table's rows, by batch-norm policy and then by accuracy at the first of SNRS; a card without figures has none."""
    found = [(card, noise) for card in cards for noise in card.measured.noise]
    found.sort(key=lambda each: (-_policy(each[1]), -(each[1].at(SNRS[0]) or (0.0,))[0]))
    return [_row(card, noise) for card, noise in found]


def markdown(cards: Iterable[Card]) -> str:
    """The table in Markdown."""
    lines = [HEADINGS, ("---",) + ("---:",) * 3 + ("---",) + ("---:",) * 3, *rows(cards)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _policy(noise: MeasuredNoise) -> int:
    return noise.bn == "affine"


def _row(card: Card, noise: MeasuredNoise) -> tuple[str, ...]:
    spans = [noise.at(snr) for snr in SNRS]
    clean = card.measured.clean
    return (
        card.path.stem,
        f"{card.structure.layers:,}" if card.structure.layers else "",
        f"{card.structure.parameters:,}" if card.structure.parameters else "",
        f"{clean:.2%}" if clean else "",
        noise.bn,
        *(f"{span[0]:.3f}" if span else "" for span in spans),
        _margin(noise),
    )


def _margin(noise: MeasuredNoise) -> str:
    if noise.margin is None:
        return ""
    level, low, _ = noise.margin
    return f"{level:.3g}" if level < inf else f"over {low:,.0f}"
