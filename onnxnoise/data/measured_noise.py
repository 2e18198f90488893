"""Reads what a card says was measured under noise: `[[measured.noise]]`, one table for each batch-norm policy."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

from onnxnoise.data.toml import Table, as_number, as_table
from onnxnoise.words import POLICIES, SIGMA_SCOPES, Policy, SigmaScope

KEYS = ("bn", "sigma_scope", "images", "all_layers", "margin")
TARGET = 0.95
"""The share of the clean accuracy that a margin keeps."""

Span = tuple[float, float, float]
"""(the figure itself, the low end of its 95 % interval for other chips and images like these, the high end)."""


@dataclass(frozen=True)
class MeasuredNoise:
    """The accuracy that a network keeps with gaussian noise in all layers, under one policy and sigma scope, on so many `images`.

    `all_layers` has (SNR, accuracy over the clean one), largest SNR first. `margin` is the least SNR at which the network keeps
    TARGET of its clean accuracy; infinite where it keeps less at every SNR tried, with the largest of them as its low end.
    """

    bn: Policy
    sigma_scope: SigmaScope
    images: int
    all_layers: tuple[tuple[float, Span], ...]
    margin: Span | None

    def at(self, snr: float) -> Span | None:
        """The figure at an SNR; None where it wasn't measured."""
        return dict(self.all_layers).get(snr)


def read_noise(measured: Table) -> tuple[MeasuredNoise, ...]:
    """The tables `[[measured.noise]]` of a card's `[measured]`; raises the table's error for what can't be."""
    tables = measured.values.get("noise", [])
    if not isinstance(tables, list):
        raise measured.error("noise", "tables, each under [[measured.noise]]")
    found = tuple(_read(as_table(measured.file, "[measured.noise]", values, measured.refusal)) for values in tables)
    asked = [(each.bn, each.sigma_scope) for each in found]
    if len(set(asked)) < len(asked):
        raise measured.refused("has two [[measured.noise]] of one bn and sigma_scope")
    return found


def as_toml(noise: MeasuredNoise) -> str:
    """The table as a card writes it."""
    rows = ", ".join(f'"{snr:g}" = {_text(span, 4)}' for snr, span in noise.all_layers)
    margin = "" if noise.margin is None else f"margin = {_text(noise.margin, 3)}\n"
    return (
        f'[[measured.noise]]\nbn = "{noise.bn}"\nsigma_scope = "{noise.sigma_scope}"\nimages = {noise.images}\n'
        f"all_layers = {{{rows}}}\n{margin}"
    )


def _text(span: Span, digits: int) -> str:
    return f"[{', '.join(f'{number:.{digits}g}' for number in span)}]"


def _read(table: Table) -> MeasuredNoise:
    table.check_keys(KEYS, "[[measured.noise]]")
    bn, scope = table.choice("bn", POLICIES), table.choice("sigma_scope", SIGMA_SCOPES)
    images = table.integer("images", 1, 10**9)
    if bn is None or scope is None or images is None:
        raise table.refused("needs bn, sigma_scope and images")
    form = 'a table of SNR to [figure, low, high], like {"10" = [0.965, 0.95, 0.975]}'
    values = table.values.get("all_layers", {})
    if not isinstance(values, dict):
        raise table.error("all_layers", form)
    rows = []
    for key, value in values.items():
        try:
            snr = as_number(float(key))
        except ValueError:
            snr = None
        if snr is None or snr <= 0:
            raise table.error("all_layers", form)
        rows.append((snr, _span(table, "all_layers", value, form)))
    margin, span = table.values.get("margin"), "[SNR, low, high], like [11.2, 10.4, 12.9]"
    return MeasuredNoise(
        bn=bn,
        sigma_scope=scope,
        images=images,
        all_layers=tuple(sorted(rows, reverse=True)),
        margin=None if margin is None else _span(table, "margin", margin, span, endless=True),
    )


def _span(table: Table, key: str, value: object, allowed: str, *, endless: bool = False) -> Span:
    numbers = [inf if endless and each == inf else as_number(each) for each in value] if isinstance(value, list) else []
    told = [number for number in numbers if number is not None and number >= 0]
    if len(told) != 3 or len(numbers) != 3 or not told[1] <= told[0] <= told[2] or told[1] == inf:
        raise table.error(key, allowed)
    return told[0], told[1], told[2]
