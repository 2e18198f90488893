"""Chooses layers to keep digital, so that the rest of a network, all of it noisy, still meets a target."""

from __future__ import annotations

import hashlib
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from onnxnoise.errors import Interrupted, RunFileError, UsageError
from onnxnoise.noise.maps import DIGITAL, map_text
from onnxnoise.records import Estimate, LayerInfo, MeasuredAt, MeasuredModel, NoiseLayer, Notice
from onnxnoise.results.as_json import measured_json
from onnxnoise.results.summary import summarize
from onnxnoise.run.experiment import Experiment
from onnxnoise.run.forecast import Forecast, forecast
from onnxnoise.run.loading import layer_info
from onnxnoise.run.naming import run_path
from onnxnoise.run.runner import measured_run
from onnxnoise.selection import index_ranges
from onnxnoise.spec import BenchSpec, only_level
from onnxnoise.text import counted, safe, shortened
from onnxnoise.words import Metric

SCHEMA = "onnxnoise/plan/1"
DRAWS, FRESH_DRAWS = 5, 10
"""The draws that a plan is chosen on, and those that it is verified on: every one of them meets every image."""

FOLDER = ".plan"
"""The ending of the folder with the run files of a plan's evaluations, one for each set of noisy layers and seed."""

_HARDER = (2.0, 4.0)
"""Layers are rated with these multiples of the plan's noise: with more of it, more layers show what they cost."""

_OF_THE_RUN = ("chance", "card_without_numbers", "clean_labels")
"""Codes of the warnings of single evaluations that hold for the whole plan."""

_RANKINGS = 2
"""The rankings of layers, each of which gives a set to choose from."""

_ROUNDS = 3
"""The most verifications on fresh draws; after these, the plan that came closest is returned."""


@dataclass(frozen=True)
class Plan(MeasuredModel, MeasuredAt):
    """Layers to keep digital (noise-free), and the accuracy over the clean one with noise in all `noisy` layers.

    `share` is the digital layers' share of the parameters of all noise layers, a fraction of 1. `without` is the normalized
    accuracy with nothing kept digital, `verified` that with the plan on `fresh_draws` draws of seed `fresh_seed`, which had no
    part in the choice: `bench --sweep all --seed FRESH_SEED --draws FRESH_DRAWS --layers NOISY` measures the same. `met` says
    whether the mean of `verified` reaches the target. `chance` is the accuracy of always giving the same answer over the clean
    one; None where it isn't known.
    """

    target: float
    metric: Metric
    draws: int
    fresh_seed: int
    fresh_draws: int
    digital: tuple[LayerInfo, ...]
    noisy: tuple[int, ...]
    share: float
    without: Estimate
    verified: Estimate
    met: bool
    warnings: tuple[Notice, ...]
    chance: float | None = None


def plan(
    spec: BenchSpec,
    *,
    snr: float | None = None,
    level: float | None = None,
    max_share: float = 1.0,
    fresh_draws: int = FRESH_DRAWS,
    tell: Callable[[str], None] = lambda _: None,
) -> Plan:
    """Choose layers to keep digital so that the others, noisy together at one level, keep `spec.target` of the clean accuracy.

    The level is `snr` for gaussian noise, `level` for any.

    Greedy: layers are ranked by the accuracy that noise in them alone costs (also per parameter), the shortest beginning of a
    ranking that meets the target is kept digital, then what turns out not to be needed is given back, largest first. The choice
    is made on `spec.draws` draws, by default 5, and verified on fresh ones; where those miss the target, it aims higher.
    No smaller set is ruled out. `max_share` is the largest share of parameters to keep digital; `spec.layers` are the layers that
    bear noise at all; `tell` is told of each evaluation. What is measured goes to the run file, and to a folder beside it that
    ends in `.plan`; the same plan takes it from there.

    >>> made = plan(BenchSpec("resnet20-cifar10", draws=2, limit=40, out="run.sqlite"), snr=1000, fresh_draws=2)
    >>> made.digital, made.share, made.met
    ((), 0.0, True)

    Raises UsageError for values out of range, and what `runner.bench` raises.
    """
    spec, stored, fresh_draws = _checked(spec, snr, level, max_share, fresh_draws)
    draws = spec.most_draws(1)
    experiment = Experiment.opened(replace(spec, sweeps=("all",)))
    choice = _Choice(experiment, stored, max_share, draws, tell)
    with choice.kept():
        without = choice.accuracy(experiment.subject.layers, spec.seed, draws)
        goal = spec.target
        best: tuple[tuple[NoiseLayer, ...], Estimate, int] | None = None
        for attempt in range(1, _ROUNDS + 1):
            digital = choice.chosen(goal)
            fresh_seed = spec.seed + attempt
            verified = choice.accuracy(choice.others(digital), fresh_seed, fresh_draws)
            if best is None or verified.mean > best[1].mean:
                best = (digital, verified, fresh_seed)
            if verified.mean >= spec.target or not choice.others(digital):
                break
            goal += (1 - goal) / 2  # as much again between the target and the clean accuracy
    assert best is not None
    digital, verified, fresh_seed = best
    classifier = experiment.subject.network
    return Plan(
        **experiment.header,
        level=stored,
        target=spec.target,
        metric=choice.metric,
        draws=draws,
        fresh_seed=fresh_seed,
        fresh_draws=fresh_draws,
        digital=tuple(layer_info(layer) for layer in digital),
        noisy=tuple(layer.index for layer in choice.others(digital)),
        share=choice.share(digital),
        without=without,
        verified=verified,
        met=verified.mean >= spec.target,
        chance=choice.chance,
        warnings=(*classifier.notices, *choice.notices, *_notices(spec, digital, experiment.subject.layers)),
    )


def _checked(
    spec: BenchSpec, snr: float | None, level: float | None, max_share: float, fresh_draws: int
) -> tuple[BenchSpec, float, int]:
    """(the spec of a plan's runs, the level, the fresh draws: 1 where nothing is random); raises UsageError for values out of
    range.
    """
    if snr is not None or level is not None:
        spec = replace(spec, snrs=None if snr is None else (snr,), levels=None if level is None else (level,))
    stored = only_level(spec)
    if stored == spec.level.silent:
        raise UsageError(f"{spec.level.flag}: {stored:g} is no noise to plan for; name a level with noise")
    draws = 1 if spec.deterministic else spec.draws or DRAWS
    if not 0 <= max_share <= 1:
        raise UsageError(f"--max-share: {max_share:g} is no share of the parameters; give a number from 0 to 1")
    if fresh_draws < 2:
        raise UsageError("--fresh-draws: an interval needs at least 2; 10 or more for one to rely on")
    spec = replace(spec, draws=draws, precision=None, budget=None, max_draws=None)
    return spec, stored, 1 if spec.deterministic else fresh_draws


def plan_forecast(
    spec: BenchSpec,
    *,
    snr: float | None = None,
    level: float | None = None,
    max_share: float = 1.0,
    fresh_draws: int = FRESH_DRAWS,
) -> Forecast:
    """The work that `plan` would do, at the least and at the most; `cells` are the most sets of noisy layers, and the ratings.

    At the least all layers may be noisy. At the most each search halves a ranking, and gives back each layer, in vain. Raises
    what `plan` raises before it measures.
    """
    spec, stored, fresh_draws = _checked(spec, snr, level, max_share, fresh_draws)
    with tempfile.TemporaryDirectory(prefix="onnxnoise-") as folder:
        one = forecast(replace(spec, sweeps=("all",), out=str(Path(folder) / "one.sqlite")))
    levels = tuple(_harder(spec, stored))
    rated = forecast(replace(spec.at(*levels), sweeps=("single",)))
    searched = _RANKINGS * (one.layers.bit_length() + one.layers)
    fresh = fresh_draws / one.draws
    return replace(
        rated,
        cells=1 + _ROUNDS * (searched + 1) + rated.cells,
        least=one.most.times(1 + fresh),
        most=one.most.times(1 + _ROUNDS * (searched + fresh)).plus(rated.most),
    )


def to_json(made: Plan) -> str:
    """The plan as one JSON document, schema `onnxnoise/plan/1`."""
    return measured_json(SCHEMA, made)


def as_map(made: Plan) -> str:
    """The plan as the text of a noise map: the noisy layers with the plan's noise at its level, all others digital.

    Raises UsageError for a plan that was made with a noise map itself.
    """
    if made.noise.noise_map is not None:
        raise UsageError(
            "--map-out: the plan's layers have the noise of a noise map already; add the digital layers there"
        )
    chain = "+".join(
        replace(step, level=made.level if step.level is None else step.level).located for step in made.noise.steps
    )
    digital = ", ".join(safe(layer.name) for layer in made.digital) or "none"
    kept = f"accuracy / clean {made.verified.mean:.3f} on {made.fresh_draws} fresh draws"
    about = f"{safe(made.model['name'])}: digital are {digital}\n{kept}"
    noisy = [(index_ranges(made.noisy), chain)] if made.noisy else []
    return map_text([*noisy, ("*", DIGITAL)], about)


class _Choice:
    """The choice of digital layers, by small runs of its own; layers are rated in the run file, for later plans too.

    Whatever is measured is kept, in the run file and in a folder beside it, so the same plan goes on where it was stopped.
    """

    def __init__(
        self, experiment: Experiment, level: float, max_share: float, draws: int, tell: Callable[[str], None]
    ) -> None:
        self.experiment, self.level, self.max_share, self.draws, self.tell = experiment, level, max_share, draws, tell
        self.metric: Metric = experiment.metric
        self._parameters = sum(layer.parameters for layer in experiment.subject.layers)
        self._rankings: list[list[NoiseLayer]] | None = None
        self._known: dict[tuple[tuple[int, ...], int], Estimate] = {}
        self.chance: float | None = None
        self.notices: tuple[Notice, ...] = ()

    def others(self, digital: Sequence[NoiseLayer]) -> tuple[NoiseLayer, ...]:
        """The layers that stay noisy, in canonical order."""
        kept = {layer.index for layer in digital}
        return tuple(layer for layer in self.experiment.subject.layers if layer.index not in kept)

    def share(self, digital: Sequence[NoiseLayer]) -> float:
        return sum(layer.parameters for layer in digital) / self._parameters

    def accuracy(self, noisy: Sequence[NoiseLayer], seed: int, draws: int) -> Estimate:
        """Normalized accuracy with noise in all of `noisy`; exactly 1 where there are none."""
        if not noisy:
            return Estimate(1.0, None, None)
        asked = (tuple(layer.index for layer in noisy), seed)
        if asked not in self._known:
            self._known[asked] = self._evaluated(noisy, seed, draws)
        return self._known[asked]

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Say of a Ctrl-C where all that the plan had measured lies, not only what the evaluation under way had."""
        try:
            yield
        except KeyboardInterrupt as error:
            places = [path for path in (run_path(self.experiment), self._folder) if path.exists()]
            if not self._known:
                raise
            where = " and ".join(map(str, places))
            raise Interrupted(f"what was measured is kept in {where}: the same command goes on") from error

    def _evaluated(self, noisy: Sequence[NoiseLayer], seed: int, draws: int) -> Estimate:
        spec = replace(self.experiment.spec, seed=seed, draws=draws)
        layers = index_ranges([layer.index for layer in noisy])
        began = time.perf_counter()
        kept = self._measured(replace(spec, layers=layers, out=str(self._run_file(layers, seed))))[None]
        digital = [layer.index for layer in self.others(noisy)]
        which = f" ({shortened(index_ranges(digital), 40)})" if digital else ""
        self.tell(
            f"{counted(len(digital), 'layer')} digital{which}, {counted(draws, 'draw')} of seed {seed}: "
            f"{kept.mean:.3f} of the clean accuracy; {time.perf_counter() - began:.0f} s"
        )
        return kept

    @property
    def _folder(self) -> Path:
        return run_path(self.experiment).with_suffix(FOLDER)

    def _run_file(self, layers: str, seed: int) -> Path:
        """The run file of one evaluation, in a folder beside the plan's own: whoever stops a plan goes on from there."""
        folder = self._folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunFileError(
                f"{folder}: this folder, for what the plan measures, can't be made ({error.strerror or error}); name another "
                "file with --out"
            ) from error
        return folder / f"seed-{seed}-{hashlib.sha256(layers.encode()).hexdigest()[:16]}.sqlite"

    def chosen(self, target: float) -> tuple[NoiseLayer, ...]:
        """The cheapest set found that meets `target` on the draws of the choice, in canonical order."""
        spec = self.experiment.spec

        def meets(digital: Sequence[NoiseLayer]) -> bool:
            return self.accuracy(self.others(digital), spec.seed, self.draws).mean >= target

        if meets(()):
            return ()
        found = []
        for ranking in self._ranked():
            allowed = self._affordable(ranking)
            found.append(self._thinned(_shortest(allowed, meets), meets))
        return min(found, key=self.share)

    def _affordable(self, ranking: list[NoiseLayer]) -> list[NoiseLayer]:
        """The layers of a ranking that fit into `max_share` together, taken from the front; one too large is passed over."""
        kept: list[NoiseLayer] = []
        for layer in ranking:
            if self.share([*kept, layer]) <= self.max_share:
                kept.append(layer)
        return kept

    def _thinned(
        self, digital: Sequence[NoiseLayer], meets: Callable[[Sequence[NoiseLayer]], bool]
    ) -> tuple[NoiseLayer, ...]:
        kept = list(digital)
        if not meets(kept):  # all that is allowed is not enough, so all of it is needed
            return tuple(sorted(kept, key=lambda layer: layer.index))
        for layer in sorted(kept, key=lambda layer: -layer.parameters):
            fewer = [each for each in kept if each is not layer]
            if meets(fewer):
                kept = fewer
        return tuple(sorted(kept, key=lambda layer: layer.index))

    def _ranked(self) -> list[list[NoiseLayer]]:
        """Two rankings of the layers, costliest first: by the accuracy lost to noise in them alone, and by loss a parameter."""
        if self._rankings is None:
            swept = self.experiment.spec.level
            levels = tuple(_harder(self.experiment.spec, self.level))
            spec = replace(self.experiment.spec.at(*levels), sweeps=("single",))
            self.tell(f"rating each layer alone at {swept.name} {', '.join(map(swept.number, levels))}")
            kept = self._measured(spec)
            layers = self.experiment.subject.layers
            cost = {layer.index: 1 - kept[layer.index].mean for layer in layers}
            self._rankings = [
                sorted(layers, key=lambda layer: (-cost[layer.index], layer.parameters)),
                sorted(layers, key=lambda layer: (-cost[layer.index] / layer.parameters, layer.parameters)),
            ]
        return self._rankings

    def _measured(self, spec: BenchSpec) -> dict[int | None, Estimate]:
        """Normalized accuracy by layer (None: all), averaged over levels; only the means are averaged."""
        with measured_run(spec) as run:
            result = summarize(run.store, run.question)
        assert result is not None, "a finished run has its clean pass"
        self.metric, self.chance = result.told, result.normalized_chance
        self.notices = tuple(notice for notice in result.warnings if notice.code in _OF_THE_RUN)
        found: dict[int | None, Estimate] = {}
        for cell in result.cells:
            estimate = cell.normalized(self.metric)
            if estimate is None:
                raise UsageError(
                    "the model has no hit without noise, so there is no accuracy to keep; check the card and the labels"
                )
            before = found.get(cell.layer)
            mean = estimate.mean / len(spec.swept) + (before.mean if before else 0.0)
            found[cell.layer] = replace(estimate, mean=mean)
        return found


def _harder(spec: BenchSpec, stored: float) -> Iterator[float]:
    """The level, and those of more noise as far as the noise model has them: it may know few, or have its level written."""
    yield stored
    for factor in _HARDER:
        level = spec.level.times(stored, factor)
        try:
            spec.at(level)
        except UsageError:
            continue
        yield level


def _shortest(layers: Sequence[NoiseLayer], enough: Callable[[Sequence[NoiseLayer]], bool]) -> Sequence[NoiseLayer]:
    """The shortest beginning of `layers`, of one layer or more, that is enough, given that longer ones are too; else all."""
    low, high = 0, len(layers)
    while high - low > 1:
        middle = (low + high) // 2
        if enough(layers[:middle]):
            high = middle
        else:
            low = middle
    return layers[:high]


def _notices(spec: BenchSpec, digital: Sequence[NoiseLayer], layers: Sequence[NoiseLayer]) -> list[Notice]:
    if len(digital) == len(layers):
        return [
            Notice("all_digital", "the target is met only with every layer kept digital: no plan for analog hardware")
        ]
    if spec.draws == 1 and not spec.deterministic:
        return [Notice("one_draw", "the layers were chosen on one draw; use --draws 5 or more")]
    return []
