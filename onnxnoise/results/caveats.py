"""Warnings that a reader must see together with a result's figures."""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence

from onnxnoise.noise.base import Level
from onnxnoise.noise.models import deterministic, level_of
from onnxnoise.records import Cell, CleanHits, NoiseSetting, Notice
from onnxnoise.statistics.stopping import half_width
from onnxnoise.text import counted
from onnxnoise.words import Metric

FEW_DRAWS, MANY_DRAWS = 10, 40
"""Draws below which intervals are rough, and below which a crossed run may have missed chips that collapse."""

_NAMED = 5
"""The number of cells that a message names; it counts the rest."""


def notices(
    setting: NoiseSetting,
    clean: CleanHits,
    cells: Sequence[Cell],
    *,
    metric: Metric,
    draws: int,
    precision: float | None,
    chunked: bool,
    probed: Container[float] = (),
) -> Iterator[Notice]:
    """The warnings about a result's `cells`; `draws` is the number asked for, in a chunked run the most that a cell may have.

    The levels `probed` were tried by a search, which asks for no precision there.
    """
    if clean.top1_hits == 0:
        yield Notice(
            "no_clean_hits",
            f"none of {clean.images} images is classified correctly without noise, so there is nothing to normalize by; "
            "the model is untrained, or the card's [input] or the labels are wrong",
        )
    if deterministic(setting):
        yield Notice(
            "deterministic", f"nothing of {setting.chain} is random: one draw is every chip, and has no interval"
        )
    else:
        yield from _few_chunked(cells) if chunked else _few(draws)
    if setting.bn == "group" and setting.analog == "all" and not chunked and 1 < draws < MANY_DRAWS:
        yield from _rare_collapses(cells, draws)
    if precision is not None:
        asked = [cell for cell in cells if cell.level not in probed]
        yield from _imprecise(asked, metric, precision, draws, clean.images, level_of(setting))
    if tried := dict.fromkeys(cell.level for cell in cells if cell.level in probed):
        named = [level_of(setting).text(level) for level in tried]
        yield Notice(
            "probed",
            f"{len(tried)} levels, from {named[0]} to {named[-1]}, were tried by `margin` in its search for the "
            "target; no command asked for them by themselves",
        )
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


def _rare_collapses(cells: Sequence[Cell], draws: int) -> Iterator[Notice]:
    """The warning that so many draws may have been spared by a collapse: a share q of chips hides with (1 - q)^draws = 5 %."""
    found = [each.mean for cell in cells if cell.sweep == "all" and (each := cell.normalized_top1)]
    share = 1.0 - 0.05 ** (1.0 / draws)
    cost = f", which would cost up to {share * max(found):.2f} of accuracy / clean" if found else ""
    yield Notice(
        "rare_collapses",
        f"{draws} draws may have missed chips that collapse, as some do under --bn group: up to {share:.0%} of all chips could "
        f"(at 95 % confidence){cost}; use --draws {MANY_DRAWS} or more, or leave out --draws",
    )


def _imprecise(
    cells: Sequence[Cell], metric: Metric, precision: float, draws: int, images: int, level: Level
) -> Iterator[Notice]:
    """The warnings about cells that got all draws allowed and are less precise than asked for: what binds, what to raise."""
    wide = [
        (cell, half)
        for cell in cells
        if cell.precise is False and len(cell.draws) >= draws and (half := _half(cell, metric))
    ]
    by_images = [(cell, half) for cell, half in wide if cell.floor is not None and cell.floor >= precision]
    by_draws = [each for each in wide if each not in by_images]
    if by_images:
        floor, half = max((cell.floor or 0.0, half) for cell, half in by_images)
        yield Notice(
            "not_precise",
            f"{_share(by_images, cells)} not known to +-{precision:g}: {_named(by_images, level)}; the images "
            f"are the limit: on these {images:,}, draws without end would leave +-{floor:.2g}: measure on about "
            f"{_rounded(images * (half / precision) ** 2)} images (a larger --limit, or other --data)",
        )
    if by_draws:
        needed = max(_draws_needed(cell, half, precision) for cell, half in by_draws)
        yield Notice(
            "not_precise",
            f"{_share(by_draws, cells)} not known to +-{precision:g} after {draws} draws: "
            f"{_named(by_draws, level)}; the draws are the limit: --max-draws {_rounded(needed)} should do",
        )


def _share(some: Sequence[object], cells: Sequence[Cell]) -> str:
    return f"{len(some)} of {counted(len(cells), 'cell')} {'is' if len(some) == 1 else 'are'}"


def _named(wide: Sequence[tuple[Cell, float]], level: Level) -> str:
    named = ", ".join(
        f"{'all layers' if cell.layer is None else f'layer {cell.layer}'} at {level.text(cell.level)}"
        + (" (cumulative)" if cell.sweep == "cumulative" else "")
        + f" (+-{half:.2g})"
        for cell, half in wide[:_NAMED]
    )
    return named + (f" and {len(wide) - _NAMED} more" if len(wide) > _NAMED else "")


def _draws_needed(cell: Cell, half: float, precision: float) -> float:
    """The number of draws at which the half-width would be `precision`, its images' part staying as it is."""
    stays = (cell.floor or 0.0) ** 2
    return len(cell.draws) * (half**2 - stays) / (precision**2 - stays)


def _half(cell: Cell, metric: Metric) -> float:
    """The half-width of the cell's `sampled` interval; 0 without one."""
    shown = cell.normalized(metric) or cell.normalized_top1
    return half_width(shown) if shown and shown.sampled else 0.0


def _rounded(count: float) -> str:
    """A number to two digits, rounded up."""
    digit = 10 ** max(len(str(int(count))) - 2, 0)
    return str(int(-(-count // digit) * digit))


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
