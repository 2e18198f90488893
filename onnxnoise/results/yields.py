"""The yield of a crossed run in words: the share of chips that keep the target, on the images that all of them met."""

from __future__ import annotations

from onnxnoise.noise.models import deterministic, level_of
from onnxnoise.records import Result
from onnxnoise.text import ranged


def yield_of(result: Result) -> str | None:
    """A line on the yield and the worst chip with noise in all layers, at each level; None where no cell has a yield, or every
    chip is the same since nothing is random.
    """
    if deterministic(result.noise):
        return None
    level = level_of(result.noise)
    told = [
        f"{ranged(found.target_yield.share, found.target_yield.interval, '.2f')}{worst} at {level.text(cell.level)}"
        for cell in result.cells
        if cell.sweep == "all" and (found := cell.normalized(result.told)) and found.target_yield
        for worst in [f", the worst {found.worst:.2f}," if found.worst is not None else ""]
    ]
    if not told:
        return None
    return f"yield of these images, the share of chips that keep {result.target:g} of the clean accuracy: {'; '.join(told)}"
