"""Warnings that a reader must see together with a result's figures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from onnxnoise.noise.base import Level
from onnxnoise.noise.models import chain_of, level_of
from onnxnoise.records import Cell, CleanHits, NoiseSetting, Notice

FEW_DRAWS = 10
_NAMED = 5
"""The number of cells that a message names; it counts the rest."""


def notices(
    setting: NoiseSetting,
    clean: CleanHits,
    cells: Sequence[Cell],
    *,
    draws: int,
    precision: float | None,
    chunked: bool,
) -> Iterator[Notice]:
    """The warnings about a result's `cells`; `draws` is the number asked for, in a chunked run the most that a cell may have."""
    if clean.top1_hits == 0:
        yield Notice(
            "no_clean_hits",
            f"none of {clean.images} images is classified correctly without noise, so there is nothing to normalize by; "
            "the model is untrained, or the card's [input] or the labels are wrong",
        )
    if chain_of(setting).deterministic:
        yield Notice(
            "deterministic", f"nothing of {setting.chain} is random: one draw is every chip, and has no interval"
        )
    else:
        yield from _few_chunked(cells) if chunked else _few(draws)
    if precision is not None:
        yield from _imprecise(cells, precision, draws, level_of(setting))
    yield from _negative_variances(setting.bn, cells)
    nonfinite = sum(draw.nonfinite for cell in cells for draw in cell.draws)
    if nonfinite:
        yield Notice("nonfinite", f"{nonfinite:,} noisy outputs were not finite; each counts as a miss")


def _few(draws: int) -> Iterator[Notice]:
    if draws == 1:
        yield Notice(
            "one_draw", "one draw: no intervals, since nothing shows how much chips differ; use --draws 10 or more"
        )
    elif draws < FEW_DRAWS:
        yield Notice("few_draws", f"few draws ({draws}): the intervals are rough; use --draws {FEW_DRAWS} or more")


def _few_chunked(cells: Sequence[Cell]) -> Iterator[Notice]:
    few = [cell for cell in cells if len(cell.draws) < FEW_DRAWS]
    if few:
        yield Notice(
            "few_draws",
            f"few draws in {len(few)} of {len(cells)} cells (fewer than {FEW_DRAWS}): their intervals are rough; "
            "go on with the same command, or allow more with --max-draws",
        )


def _imprecise(cells: Sequence[Cell], precision: float, draws: int, level: Level) -> Iterator[Notice]:
    """The warning about cells that got all draws allowed and are still less precise than asked for."""
    wide = [cell for cell in cells if cell.precise is False and len(cell.draws) >= draws]
    if wide:
        named = ", ".join(
            f"{'all layers' if cell.layer is None else f'layer {cell.layer}'} at {level.text(cell.level)}"
            + (" (cumulative)" if cell.sweep == "cumulative" else "")
            for cell in wide[:_NAMED]
        )
        more = f" and {len(wide) - _NAMED} more" if len(wide) > _NAMED else ""
        yield Notice(
            "not_precise",
            f"{len(wide)} of {len(cells)} cells are not known to +-{precision:g} after {draws} draws: {named}{more}; "
            "their draws differ too much: read their intervals, or allow more with --max-draws",
        )


def _negative_variances(bn: str, cells: Sequence[Cell]) -> Iterator[Notice]:
    """The warning about variances below 0: the numbers of layers and draws, by the single sweep if there is one."""
    sweep = next((name for name in ("single", "all") if any(cell.sweep == name for cell in cells)), "cumulative")
    told = [(cell, draw) for cell in cells if cell.sweep == sweep for draw in cell.draws]
    seen = [(cell, draw) for cell, draw in told if draw.negative_variances]
    if not seen:
        return
    layers = {cell.layer for cell, _ in seen} if sweep == "single" else ()
    draws = {draw.draw for _, draw in seen}
    channels = max(draw.negative_variances for _, draw in seen)
    wide = "all" if sweep == "all" else "several"
    where = f"in {len(layers)} layer{'s' if len(layers) > 1 else ''}" if layers else f"with noise in {wide} layers"
    done = "kept: its outputs are NaN and every image is a miss" if bn == "raw" else "stored as 0"
    yield Notice(
        "negative_variances",
        f"noise made batch-norm variances negative {where}, in {len(draws)} of {len({draw.draw for _, draw in told})} draws, "
        f"in up to {channels} channel{'s' if channels > 1 else ''} at once; such a variance is {done} (--bn {bn}). "
        "--bn affine puts the noise on scale and shift instead",
    )
