"""Chance: the accuracy of a classifier that gives every image the same answer, and whether a clean one can be told from it."""

from __future__ import annotations

from collections.abc import Sequence

from onnxnoise.data.datasets import KNOWN
from onnxnoise.records import Chance, Notice
from onnxnoise.results.run_file.store import RunStore
from onnxnoise.statistics.distributions import at_least
from onnxnoise.words import Metric

SURE = 0.001
"""The largest probability with which a classifier at chance may have as many hits as one that is told from chance."""

CAUSES = (
    "Likely causes: the images are prepared wrongly (the card's mean, std, scale, color or layout missing, or in other units), "
    "the labels count the classes in another order, or the model is untrained"
)

ONE_LABEL = (
    "Likely cause: nearly all of these images have one label (under --labels clean the model gives nearly all one class, as it "
    "may where they are prepared wrongly); take more images, or such of more classes"
)


def largest_classes(labels: Sequence[int]) -> list[int]:
    """The numbers of images of the five most frequent classes, the largest first."""
    counts: dict[int, int] = {}
    for label in labels:
        counts[label] = counts.get(label, 0) + 1
    return sorted(counts.values(), reverse=True)[:5]


def classes_of(store: RunStore) -> int | None:
    """The number of the data's classes: as the file says, or, if it was made before files said it, that of its data set."""
    told = store.description.get("classes")
    known = KNOWN.get(store.identity.get("preprocessing", {}).get("dataset"))
    return int(told) if told else known.classes if known else None


def chance_of(store: RunStore, images: int) -> Chance | None:
    """Chance on the first `images` images of a run file, None where it tells neither labels nor classes.

    It is the share of the largest class of these labels (of the five largest for top-5), by the run record that counted the
    labels of the number of images nearest to `images`. A file of before labels were counted has the number of classes only.
    """
    counted = [run["labels"] for run in store.runs() if run.get("labels")]
    if counted:
        nearest = min(counted, key=lambda each: abs(each["images"] - images))
        largest, total = nearest["largest"], nearest["images"]
        return Chance(largest[0] / total, sum(largest) / total)
    classes = classes_of(store)
    return None if classes is None else Chance(1 / classes, min(5, classes) / classes)


def is_at_chance(hits: int, images: int, chance: float) -> bool:
    """Whether `hits` of `images` can't be told from chance: one-sided exact binomial test at `SURE`."""
    return at_least(hits, images, chance) > SURE


def at_chance(hits: int, images: int, chance: Chance | None, metric: Metric) -> str | None:
    """The sentence that a clean accuracy can't be told from chance, with the likely causes; None where it can."""
    share = None if chance is None else chance.of(metric)
    if share is None or not is_at_chance(hits, images, share):
        return None
    title = {"top1": "top-1", "top5": "top-5"}[metric]
    return (
        f"the {title} accuracy without noise, {hits / images:.1%} of {images:,} images, can't be told from chance "
        f"({share:.1%} by always naming the most frequent class): noise has nothing to take away, so no figure here "
        f"says how robust the model is. {CAUSES if hits < images else ONE_LABEL}"
    )


def chance_notice(hits: int, images: int, chance: Chance | None, metric: Metric, name: str = "") -> list[Notice]:
    """The warning that a clean accuracy can't be told from chance, where that is so; `name` is the model it is about."""
    said = at_chance(hits, images, chance, metric)
    return [] if said is None else [Notice("chance", f"{name}: {said}" if name else said)]
