"""Several models' run files held against each other: rankings with ties, and where the curves cross.

Every comparison is of two models at one level in one ranking: all-layer accuracy or `A_avr`, each normalized (a share of the
clean accuracy) and absolute (a fraction of 1). The difference is paired by image, and by draw too where both models have the
same table of noise layers and so met the same noise; its variance is in `contrasts.py`. Two models are **tied** where the 95 %
interval of the difference contains 0, at the confidence that Holm's method leaves it: over the comparisons of one ranking (every
pair, every level) the chance that any two equal models are told apart is 5 % at most.

That chance, measured on three equal models at two SNRs (tests/decisions/test_compare_statistics.py, 1,500 runs), is 2.4 to
4.7 % where draws vary normally and 0.9 to 3.2 % where they are skewed, from three draws on; where 3 chips in 10 collapse, it is
2.1 % at most from five draws on, but 10 % with three draws, which may all have been spared: hence the warning of few draws.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Literal

from onnxnoise.decisions.comparing.chunks import AnyRun, ChunkSide
from onnxnoise.decisions.comparing.records import (
    QUANTITIES,
    SCALES,
    ComparedModel,
    Comparison,
    Difference,
    Placing,
    Quantity,
    Scale,
    Standing,
)
from onnxnoise.decisions.comparing.ties import Found, ModelSide, Pair, crossings, judged, pairs, scaled
from onnxnoise.errors import RunFileError, UsageError
from onnxnoise.noise.models import deterministic
from onnxnoise.records import Interval, Notice
from onnxnoise.results.caveats import FEW_DRAWS
from onnxnoise.results.chance import chance_notice, chance_of
from onnxnoise.results.run_hits import same_layers
from onnxnoise.results.summary import kept_header
from onnxnoise.run.unattached import refused_by_gate
from onnxnoise.statistics.contrasts import Contrast, Side, contrast
from onnxnoise.words import Metric


@dataclass(frozen=True)
class Asked:
    """The part of the run files to compare; None stands for all that they have in common, `draws` and `images` are limits."""

    metric: Metric = "top1"
    levels: tuple[float, ...] | None = None
    quantities: tuple[Quantity, ...] | None = None
    draws: int | None = None
    images: int | None = None


def compare(paths: Sequence[Path], asked: Asked | None = None) -> Comparison:
    """Compare the run files at `paths`, on the images that all of them have.

    Raises UsageError for fewer than two of them, and RunFileError where one can't be read or where they differ in data, noise,
    choice of layers or (where their draws are paired) seed; the message says in what.
    """
    asked = asked or Asked()
    if len(paths) < 2:
        raise UsageError("compare: needs two models or run files, or more")
    with ExitStack() as stack:
        runs = [stack.enter_context(AnyRun.opened(path)) for path in paths]
        _check_alike(runs)
        images = min([run.images for run in runs] + ([asked.images] if asked.images else []))
        labels = _labels(runs)
        clean = [run.clean_hits(asked.metric, images) for run in runs]
        for run, (hits, _) in zip(runs, clean, strict=True):
            if not hits:
                raise RunFileError(
                    f"{run.path}: no image is classified correctly without noise: there is nothing to compare"
                )
        rankings = _Rankings(dict(zip(labels, runs, strict=True)), asked, images)
        placings, differences = rankings.filled()
        header = kept_header(runs[0].identity, runs[0].description, images)
        return Comparison(
            noise=header["noise"],
            metric=asked.metric,
            dataset=header["dataset"],
            models=tuple(
                ComparedModel(
                    label,
                    run.name,
                    run.sha256,
                    str(run.path),
                    run.identity["provider"],
                    run.identity["seed"],
                    len(run.selected),
                    sum(layer.parameters for layer in run.layers),
                    hits,
                    hits / count,
                    chance.of(asked.metric) if (chance := chance_of(run.store, images)) else None,
                )
                for label, run, (hits, count) in zip(labels, runs, clean, strict=True)
            ),
            figures=runs[0].noise.with_snr(placings),
            differences=runs[0].noise.with_snr(differences),
            crossings=tuple(crossings(differences, runs[0].level)),
            warnings=(
                *(
                    notice
                    for run, label, (hits, count) in zip(runs, labels, clean, strict=True)
                    for notice in chance_notice(hits, count, chance_of(run.store, images), asked.metric, label)
                ),
                *_warnings(runs, labels, placings, images),
            ),
        )


def _check_alike(runs: Sequence[AnyRun]) -> None:
    first = runs[0]
    for run in runs[1:]:
        differing = _difference(first, run)
        if differing:
            title, ours, theirs = differing
            raise RunFileError(
                f"{first.path} and {run.path} differ in {title}: {ours} and {theirs}; their accuracies say nothing "
                "about each other: bench both alike"
            )
        if first.chunked != run.chunked:
            every, own = (run, first) if first.chunked else (first, run)
            raise RunFileError(
                f"{every.path} has every draw on every image (--draws), in {own.path} each chunk of images met draws of its own: "
                "bench both with --draws, or both without"
            )
        if _whole(first) != _whole(run):
            part, whole = (run, first) if _whole(first) else (first, run)
            raise RunFileError(
                f"{part.path} has noise in {len(part.selected)} of {len(part.layers)} layers (--layers), {whole.path} in all; "
                "bench both alike"
            )
    for one, other in combinations(runs, 2):
        if one.path.resolve() == other.path.resolve():
            raise UsageError(f"compare: {one.path} is given twice; a model is no rival of its own")
        if first.chunked and (differing := _dealt(one, other)):
            title, ours, theirs = differing
            raise RunFileError(
                f"{one.path} and {other.path} differ in {title}: {ours} and {theirs}; their images lie in other chunks: bench "
                "both alike"
            )
        if same_layers(one, other) and one.identity["seed"] != other.identity["seed"]:
            raise RunFileError(
                f"{one.path} and {other.path} differ in seed: {one.identity['seed']} and {other.identity['seed']}; models with "
                "the same table of layers are compared draw by draw under the same noise: bench both with one --seed"
            )


def _difference(first: AnyRun, second: AnyRun) -> tuple[str, str, str] | None:
    """The first property in which two runs must agree and don't: its name, and both values; None where they agree."""
    if first.identity["data"] != second.identity["data"]:
        ours, theirs = (f"{run.description['dataset']!r} {run.identity['data'][:8]}" for run in (first, second))
        return "data", ours, theirs
    if first.identity.get("labels") != second.identity.get("labels"):
        ours, theirs = (
            f"{'the clean model' if run.identity.get('labels') else 'the data'}'s" for run in (first, second)
        )
        return "labels", ours, theirs
    found = first.noise.difference(second.noise)
    return found and (found[0], repr(found[1]), repr(found[2]))


def _dealt(one: AnyRun, other: AnyRun) -> tuple[str, str, str] | None:
    """The first property by which images are dealt to chunks in which two chunked runs differ, and both values."""
    for title, name in (("order of the images", "order"), ("number of images", "images"), ("seed", "seed")):
        if one.identity.get(name) != other.identity.get(name):
            return (
                title,
                str(one.identity.get(name, "that of the data")),
                str(other.identity.get(name, "that of the data")),
            )
    return None


def _whole(run: AnyRun) -> bool:
    return len(run.selected) == len(run.layers)


def _labels(runs: Sequence[AnyRun]) -> list[str]:
    """A label for each run that tells it from the others: its model's name, else with the digest, else with the run file."""

    def distinct(labels: list[str]) -> list[str] | None:
        return labels if len(set(labels)) == len(labels) else None

    names = [run.name for run in runs]
    digests = [f"{run.name} ({run.sha256[:8]})" for run in runs]
    return distinct(names) or distinct(digests) or [f"{run.name} ({run.path})" for run in runs]


class _Rankings:
    """Computes placings and differences, one quantity and level at a time, so that only these hits are in memory."""

    def __init__(self, runs: Mapping[str, AnyRun], asked: Asked, images: int) -> None:
        self.runs, self.asked, self.images = runs, asked, images
        quantities = [each for each in QUANTITIES if asked.quantities is None or each in asked.quantities]
        self.places = [(quantity, level) for quantity in quantities for level in self._levels(quantity)]
        for level in asked.levels or [None]:
            for some in [[each] for each in quantities] if asked.quantities else [quantities]:
                if not any(kind in some and level in (None, there) for kind, there in self.places):
                    raise RunFileError(self._lack(some, level))

    def _levels(self, quantity: Quantity) -> list[float]:
        """The levels that are asked for and of which every run file has a part, the least noise first."""
        runs, sweep = list(self.runs.values()), _sweep(quantity)
        return [
            level
            for level in runs[0].levels(sweep)
            if (self.asked.levels is None or level in self.asked.levels)
            and all(run.has(sweep, _cells(run, quantity), level) for run in runs)
        ]

    def _lack(self, quantities: Sequence[Quantity], level: float | None) -> str:
        """The message where run files have too little in common: the part they don't share, and the parts that each has."""
        sweeps = " or ".join(map(_sweep, quantities))
        there = "; ".join(f"{run.path}: {_there(run)}" for run in self.runs.values())
        swept = next(iter(self.runs.values())).level
        what = f"no {swept.name} in common" if level is None else f"not all of them {swept.text(level)}"
        return (
            f"the run files have {what} in the sweep {sweeps} ({there}); bench them with the same --sweep and "
            f"{swept.flag}"
        )

    def filled(self) -> tuple[list[Placing], list[Difference]]:
        """All placings and differences. Raises RunFileError where a cell has no complete draw."""
        raw: dict[tuple[Quantity, float], dict[Scale, dict[Pair, Found]]] = {}
        own: dict[tuple[Quantity, float], dict[str, tuple[ModelSide, dict[Scale, tuple[float, Contrast | None]]]]] = {}
        for quantity, level in self.places:
            sides = {label: self._side(run, quantity, level) for label, run in self.runs.items()}
            own[quantity, level] = {label: (each, _own(each.side)) for label, each in sides.items()}
            raw[quantity, level] = {scale: pairs(sides, scale) for scale in SCALES}
        differences = list(judged(raw))
        return [
            _placing(label, quantity, level, each, estimates, differences, list(self.runs))
            for (quantity, level), models in own.items()
            for label, (each, estimates) in models.items()
        ], differences

    def _side(self, run: AnyRun, quantity: Quantity, level: float) -> ModelSide:
        sweep, cells, metric = _sweep(quantity), _cells(run, quantity), self.asked.metric
        if run.chunked and (chunks := run.chunks(sweep, cells, level, metric, self.asked.draws)):
            return ModelSide(run, chunks.draws, chunks, chunks.clean)
        found = None if run.chunked else run.side(sweep, cells, level, metric, self.images)
        if found is None:
            raise RunFileError(
                f"{run.path}: no draw of the sweep {_sweep(quantity)} at {run.level.text(level)} is complete on "
                f"{self.images:,} images; run its `onnxnoise bench` again to go on with it"
            )
        draws, side = found
        most = self.asked.draws or len(draws)
        return ModelSide(run, draws[:most], side.first(most), float(side.clean.mean()))


def _sweep(quantity: Quantity) -> Literal["all", "single"]:
    return "all" if quantity == "all" else "single"


def _cells(run: AnyRun, quantity: Quantity) -> tuple[int | None, ...]:
    return (None,) if quantity == "all" else run.selected


def _there(run: AnyRun) -> str:
    return (
        ", ".join(
            f"{kind} at {run.level.name} {'/'.join(map(run.level.number, run.levels(kind)))}"
            for kind in ("all", "single")
            if run.levels(kind)
        )
        or "nothing"
    )


def _own(side: Side | ChunkSide) -> dict[Scale, tuple[float, Contrast | None]]:
    found: dict[Scale, tuple[float, Contrast | None]] = {}
    if isinstance(side, ChunkSide):
        return {scale: side.own(scale) for scale in SCALES}
    for scale in SCALES:
        value, draws, images, decisions = scaled(side, scale)
        found[scale] = (value, contrast(value, [draws], images, decisions))
    return found


def _placing(
    label: str,
    quantity: Quantity,
    level: float,
    model: ModelSide,
    estimates: Mapping[Scale, tuple[float, Contrast | None]],
    differences: Sequence[Difference],
    labels: Sequence[str],
) -> Placing:
    standings = {}
    for scale, (mean, law) in estimates.items():
        better, tied = 0, []
        for each in differences:
            if (each.quantity, each.scale, each.level) != (quantity, scale, level) or label not in (
                each.first,
                each.second,
            ):
                continue
            if each.tied:
                tied.append(each.second if each.first == label else each.first)
            elif (each.mean < 0.0) if each.first == label else (each.mean > 0.0):
                better += 1
        top = 1.0 / model.clean if scale == "normalized" else 1.0
        standings[scale] = Standing(
            mean,
            None if law is None or model.run.chunked else _within(law.interval(fixed=True), top),
            None if law is None else _within(law.interval(), top),
            better + 1,
            tuple(sorted(tied, key=labels.index)),
        )
    return Placing(
        label,
        quantity,
        level,
        len(model.run.selected),
        len(model.draws),
        standings["normalized"],
        standings["absolute"],
    )


def _within(interval: Interval, top: float) -> Interval:
    """The interval cut off at 0 and at `top`, as `estimates.estimate` does."""
    return max(interval[0], 0.0), min(interval[1], top)


def _warnings(
    runs: Sequence[AnyRun], labels: Sequence[str], placings: Sequence[Placing], images: int
) -> Iterator[Notice]:
    fewest = min(placing.draws for placing in placings)
    if deterministic(runs[0].noise):
        yield Notice(
            "deterministic",
            f"nothing of {runs[0].noise.chain} is random: one draw is every chip, and the ranking, by the means on these images, "
            "has no ties",
        )
    elif fewest == 1:
        yield Notice(
            "one_draw",
            "one draw: ties can't be told, since nothing shows how much chips differ; use --draws 10 or more",
        )
    elif fewest < FEW_DRAWS:
        yield Notice(
            "few_draws",
            f"few draws ({fewest}): differences have to be large to be told; use --draws {FEW_DRAWS} or more",
        )
    for run, label in zip(runs, labels, strict=True):
        without = refused_by_gate(run.description)
        if without:
            yield Notice(
                "unattached", f"{label}: measured without noise on {without}: its accuracy is another network's"
            )
        if run.images > images and not run.chunked:
            yield Notice(
                "fewer_images",
                f"{label}: only the first {images:,} of its {run.images:,} images, which all have, are used",
            )
        told = {(placing.quantity, placing.level) for placing in placings if placing.model == label}
        broken = {
            level: count
            for quantity, level in sorted(told, key=lambda place: run.level.order(place[1]))
            if (count := run.nonfinite(_sweep(quantity), _cells(run, quantity), level))
        }
        if broken:
            listed = ", ".join(f"{count:,} at {run.level.text(level)}" for level, count in broken.items())
            yield Notice("nonfinite", f"{label}: noisy outputs that were not finite, each a miss: {listed}")
    if not _whole(runs[0]):
        yield Notice(
            "some_layers", "the run files have noise in chosen layers only (--layers); `all` means these together"
        )
    providers = dict.fromkeys(run.identity["provider"] for run in runs)
    if len(providers) > 1:
        yield Notice(
            "providers", f"measured by different execution providers ({', '.join(providers)}): a few hits may differ"
        )
