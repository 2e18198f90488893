"""The page of the study: each of the paper's statements, the figures found here, and whether it holds.

A statement is a question with one answer for each setting, level or network: yes, no, or that the figures can't tell, where the
95 % interval leaves both open or both networks are at chance. It **holds** where every answer that can be told is yes, **does not
hold** where none is, and else **depends**; the page says on what. Accuracies are over the clean one, with 95 % intervals for
other chips and images like these.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from pathlib import Path

from onnxnoise.data.cards import Published, load_bundled
from onnxnoise.decisions.comparing.records import Comparison
from onnxnoise.noise.models import level_of
from onnxnoise.records import Estimate, Result
from onnxnoise.results.falls import cumulative, reached
from onnxnoise.statistics.correlation import RankCorrelation, spearman
from onnxnoise.text import ranged
from onnxnoise.words import Sweep

PROTOCOLS = ("group", "affine")
JUDGED = (10.0, 5.0)
"""The SNRs at which noise in all layers decides: 10 and 20 % of sigma_w."""
WORST = 5
TABLE_III = (
    ("vgg16", "vgg16-slim-cifar10"),
    ("resnet50", "resnet50-slim-cifar10"),
    ("shufflenet-v2-1.0x", "shufflenetv2-x0.5-cifar10"),
)
"""The networks of the paper's Table III, the most robust first, and those that stand for them."""


@dataclass(frozen=True)
class Study:
    """All that was measured: results by setting and network, comparisons by (setting, experiment, first of the family).

    `flags` are those that decided what is measured.
    """

    flags: str
    results: Mapping[str, Mapping[str, Result]]
    comparisons: Mapping[tuple[str, str, str], Comparison]

    def protocols(self) -> Iterator[tuple[str, Mapping[str, Result]]]:
        """The settings of white noise that were measured."""
        return ((name, self.results[name]) for name in PROTOCOLS if name in self.results)

    def all_layers(self, setting: str, name: str, level: float) -> Estimate | None:
        """The accuracy over the clean one with noise in all layers; None where it wasn't measured."""
        result = self.results[setting][name]
        cells = (cell for cell in result.cells if cell.sweep == "all" and cell.level == level)
        return next((cell.normalized(result.metric) for cell in cells), None)


@dataclass(frozen=True)
class Answer:
    """One answer to a statement's question: of what, whether it is yes (None where the figures can't tell), and the figures."""

    of: str
    yes: bool | None
    figures: str


@dataclass(frozen=True)
class Statement:
    """A statement of the paper, and the answers; `data` says that other images than these could turn it."""

    text: str
    answers: Sequence[Answer]
    data: bool = True

    @property
    def verdict(self) -> str:
        """Whether the statement holds, and in how many answers."""
        if not self.answers:
            return "not measured"
        told = [answer.yes for answer in self.answers if answer.yes is not None]
        open_ = f", {len(self.answers) - len(told)} can't be told" if len(told) < len(self.answers) else ""
        if not told:
            return "**can't be told**"
        count = f"{sum(told)} of {len(told)}"
        if any(told) and not all(told):
            return f"**depends**: {self._by_protocol() or count}{open_}"
        return f"{'**holds**' if all(told) else '**does not hold**'}: {count}{open_}"

    def _by_protocol(self) -> str:
        """How many answers are yes under each protocol; empty where only one was asked."""
        asked = {name: [each.yes for each in self.answers if each.of.startswith(f"{name},")] for name in PROTOCOLS}
        told = {name: [yes for yes in found if yes is not None] for name, found in asked.items()}
        said = [f"{sum(found)} of {len(found)} under `{name}`" for name, found in told.items() if found]
        return ", ".join(said) if len(said) > 1 else ""


def page(study: Study) -> str:
    """The study as Markdown."""
    parts = [_opening(study), _statements(study)]
    for setting, results in study.protocols():
        parts += [_all_layers(setting, results), _first_layers(setting, results), _depth(setting, results)]
    parts += [_seeds(study), _hardware(study)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _opening(study: Study) -> str:
    every = [result for results in study.results.values() for result in results.values()]
    first = every[0]
    images = _counted(study, [name for name, _ in study.protocols()])
    designs = {
        "each chunk of images met chips of its own" if result.design != "crossed" else "every chip met every image"
        for _, results in study.protocols()
        for result in results.values()
    }
    return (
        "# Which network survives weight noise: the paper's statements, measured again\n\n"
        "Fagbohungbe and Qian, *Benchmarking Inference Performance of Deep Learning Models on Analog Devices*, add white noise "
        "to the weights of ten networks. Their weights are not to be had; here are "
        f"{len(next(iter(study.results.values())))} of the same structures, trained on CIFAR-10 "
        "(`examples/train_cifar10.py`), so what other images could turn is marked.\n\n"
        f"White noise was measured on {images} images of {first.dataset['name']}, on which its clean accuracies are, too; "
        f"{'; '.join(sorted(designs))}. `group` is the paper's protocol: noise on the four tensors of a batch norm, one sigma "
        "for a layer. `affine` is noise on the scale and shift that hardware holds, a sigma for each tensor. Made by "
        f"`python examples/paper_experiments.py {study.flags}`; do not edit. Beside it: the report pages, which have every "
        "figure, and the JSON of each run and comparison."
    )


def _counted(study: Study, settings: Sequence[str]) -> str:
    """How many images the networks met in these settings."""
    return _from_to(sorted({each.clean.images for name in settings for each in study.results[name].values()}))


def _from_to(counts: Sequence[int]) -> str:
    return f"{counts[0]:,}" if len(counts) == 1 else f"{counts[0]:,} to {counts[-1]:,}"


def _statements(study: Study) -> str:
    lines = ["## The statements", "", "| statement | here | figures |", "|---|---|---|"]
    for statement in _all_statements(study):
        figures = "<br>".join(f"{each.of}: {each.figures}" for each in statement.answers)
        mark = " (other data could turn it)" if statement.data and statement.answers else ""
        lines.append(f"| {statement.text} | {statement.verdict}{mark} | {figures} |")
    return "\n".join(lines)


def _all_statements(study: Study) -> Iterator[Statement]:
    yield Statement("VGG16 is the most robust", tuple(_extreme(study, "vgg16", best=True)))
    yield Statement("The ShuffleNets are the least robust", tuple(_extreme(study, "shufflenet", best=False)))
    yield Statement("Deeper networks of a family are more robust", tuple(_ordered(study, "depth")))
    yield Statement("The design of a network matters: some of the four differ", tuple(_design(study)))
    yield Statement("Squeeze-and-excitation matters: with and without it differ", tuple(_excited(study)))
    yield Statement(
        "Compression costs robustness: the narrower ShuffleNet is worse",
        tuple(_ordered(study, "compression", down=True)),
    )
    yield Statement(
        "Table III, 1 to 10 % noise in all layers: VGG16 keeps more than ResNet-50, and that more than ShuffleNetV2",
        tuple(_table_iii(study)),
    )
    yield Statement("Later layers are more resistant than early ones", tuple(_later(study)))
    yield Statement("Noise in more and more of the first layers takes ever more", tuple(_ever_more(study)))
    yield Statement(
        "Two seeds, one chip each, show very different layers as the worst", tuple(_seed_answers(study)), data=False
    )


def _extreme(study: Study, family: str, *, best: bool) -> Iterator[Answer]:
    """Whether a network of the family is first (or last) of all, beyond a tie, at each judged SNR of each protocol."""
    for (setting, experiment, _), comparison in study.comparisons.items():
        names = _names(comparison)
        ours = [name for name in names.values() if name.startswith(family)]
        if experiment != "all-layers" or not 0 < len(ours) < len(names):
            continue
        for level in JUDGED:
            found = {name: study.all_layers(setting, name, level) for name in names.values()}
            order = sorted(((each.mean, name) for name, each in found.items() if each), reverse=best)
            extreme = next(name for _, name in order if name in ours)
            rival = next(name for _, name in order if name not in ours)
            gained = _gained(study, setting, comparison, extreme, rival, level)
            yes = None if gained is None else (gained > 0) == best
            figures = ", ".join(f"{name} {_figure(found[name])}" for name in (extreme, rival))
            yield Answer(f"{setting}, SNR {level:g}", yes, figures)


def _ordered(study: Study, experiment: str, *, down: bool = False) -> Iterator[Answer]:
    """Whether the last of a family keeps more than its first (`down`: less)."""
    for (setting, name, _), comparison in study.comparisons.items():
        if name == experiment:
            names = list(_names(comparison).values())
            for level in JUDGED:
                gained = _gained(study, setting, comparison, names[-1], names[0], level)
                figures = ", ".join(f"{each} {_figure(study.all_layers(setting, each, level))}" for each in names)
                yield Answer(f"{setting}, SNR {level:g}", None if gained is None else (gained < 0) == down, figures)


def _design(study: Study) -> Iterator[Answer]:
    """Whether any two networks of different design keep different shares."""
    for (setting, name, _), comparison in study.comparisons.items():
        if name == "design":
            names = list(_names(comparison).values())
            for level in JUDGED:
                differ = any(
                    _gained(study, setting, comparison, *pair, level) is not None for pair in combinations(names, 2)
                )
                figures = ", ".join(f"{each} {_figure(study.all_layers(setting, each, level))}" for each in names)
                yield Answer(f"{setting}, SNR {level:g}", True if differ else None, figures)


def _excited(study: Study) -> Iterator[Answer]:
    """Whether squeeze-and-excitation changes what a ResNet-50 keeps, either way."""
    for (setting, experiment, _), comparison in study.comparisons.items():
        names = list(_names(comparison).values())
        excited = next((name for name in names if name.startswith(("resnet50se", "resnet50-se"))), None)
        plain = next((name for name in names if name.startswith("resnet50") and name != excited), None)
        if experiment == "design" and excited and plain:
            for level in JUDGED:
                gained = _gained(study, setting, comparison, excited, plain, level)
                figures = ", ".join(
                    f"{each} {_figure(study.all_layers(setting, each, level))}" for each in (plain, excited)
                )
                yield Answer(f"{setting}, SNR {level:g}", None if gained is None else True, figures)


def _table_iii(study: Study) -> Iterator[Answer]:
    """Whether the three networks stand in Table III's order, beyond ties, at each of its noise levels."""
    published = {name: load_bundled(name).published for name, _ in TABLE_III}
    for (setting, experiment, _), comparison in study.comparisons.items():
        here = set(_names(comparison).values())
        names = {paper: next((name for name in (paper, slim) if name in here), "") for paper, slim in TABLE_III}
        if experiment != "all-layers" or not all(names.values()):
            continue
        for level, _ in published["vgg16"].all_layers:
            gained = [_gained(study, setting, comparison, *pair, level) for pair in pairwise(names.values())]
            told = [each > 0 for each in gained if each is not None]
            figures = (
                f"{name} {_figure(study.all_layers(setting, name, level))} ({_share(published[paper], level)} in the paper)"
                for paper, name in names.items()
            )
            yes = False if not all(told) else True if len(told) == len(gained) else None
            yield Answer(f"{setting}, SNR {level:g}", yes, ", ".join(figures))


def _share(published: Published, level: float) -> str:
    """The share of the accuracy without noise that the paper printed."""
    return "-" if published.clean is None else f"{dict(published.all_layers)[level] / published.clean:.2f}"


def _names(comparison: Comparison) -> dict[str, str]:
    """The networks' names by the comparison's labels, in its order."""
    return {model.label: Path(model.run_file).stem for model in comparison.models}


def _gained(study: Study, setting: str, comparison: Comparison, first: str, second: str, level: float) -> float | None:
    """The share of the clean accuracy that `first` keeps beyond `second` in all layers.

    None where the two are tied, or both have lost all but what guessing would give.
    """
    if _at_chance(study, setting, first, level) and _at_chance(study, setting, second, level):
        return None
    names = _names(comparison)
    for each in comparison.differences:
        pair = (names[each.first], names[each.second])
        if (each.quantity, each.scale, each.level) == ("all", "normalized", level) and {*pair} == {first, second}:
            return None if each.tied is not False else each.mean if pair[0] == first else -each.mean
    return None


def _at_chance(study: Study, setting: str, name: str, level: float) -> bool:
    """Whether the accuracy with noise in all layers can't be told from chance, or is below."""
    found, chance = study.all_layers(setting, name, level), study.results[setting][name].normalized_chance
    return found is not None and chance is not None and (found.sampled or (found.mean,))[0] <= chance


def _later(study: Study) -> Iterator[Answer]:
    """Whether A_i grows with depth, at the noisiest level measured, for each network."""
    for setting, results in study.protocols():
        for name, result in results.items():
            levels = _levels(result, "single")
            rho = _by_depth(result, "single", levels[-1]) if levels else None
            if rho is not None:
                yield Answer(
                    f"{setting}, {name}, SNR {levels[-1]:g}", _sure(rho), f"rank correlation with depth {_rho(rho)}"
                )


def _ever_more(study: Study) -> Iterator[Answer]:
    """Whether the accuracy falls with L, at the quietest level measured, where it has not all been lost by the first layers."""
    for setting, results in study.protocols():
        for name, result in results.items():
            levels = _levels(result, "cumulative")
            rho = _by_depth(result, "cumulative", levels[0]) if levels else None
            if rho is not None:
                yield Answer(
                    f"{setting}, {name}, SNR {levels[0]:g}",
                    _sure(rho, up=False),
                    f"rank correlation with L {_rho(rho)}",
                )


def _seed_answers(study: Study) -> Iterator[Answer]:
    for name, (one, other) in _seed_profiles(study).items():
        worst = [set(sorted(profile, key=lambda layer, of=profile: of[layer])[:WORST]) for profile in (one, other)]
        rho = spearman(list(one.values()), [other[layer] for layer in one])
        shared = len(worst[0] & worst[1])
        told = "" if rho is None else f", rank correlation {_rho(rho)}"
        yield Answer(name, shared < WORST / 2, f"{shared} of the {WORST} worst are the same{told}")


def _seed_profiles(study: Study) -> dict[str, tuple[dict[int, float], dict[int, float]]]:
    """A_i by layer under each of the two seeds, for each network."""
    seeds = [name for name in study.results if name.startswith("seed")]
    if len(seeds) < 2:
        return {}
    return {
        name: (_profile(study.results[seeds[0]][name]), _profile(study.results[seeds[1]][name]))
        for name in study.results[seeds[0]]
    }


def _profile(result: Result) -> dict[int, float]:
    found = ((cell.layer, cell.normalized(result.metric)) for cell in result.cells if cell.sweep == "single")
    return {layer: each.mean for layer, each in found if layer is not None and each is not None}


def _all_layers(setting: str, results: Mapping[str, Result]) -> str:
    """The paper's Table III: accuracy with noise in all layers."""
    levels = _levels(next(iter(results.values())), "all")
    rows = [("network", "clean", *(f"{1 / level:.0%}" for level in levels))]
    for name, result in results.items():
        cells = {cell.level: cell.accuracy(result.metric) for cell in result.cells if cell.sweep == "all"}
        clean = result.clean.top1_hits / result.clean.images
        rows.append((name, f"{clean:.1%}", *(_percent(cells.get(level)) for level in levels)))
    return (
        f"## `{setting}`: noise in all layers\n\nAccuracy in percent by sigma_noise over sigma_w, +- half of the 95 % interval; "
        f"an image whose outputs aren't finite counts as wrong.\n\n{_table(rows)}"
    )


def _first_layers(setting: str, results: Mapping[str, Result]) -> str:
    """Where the cumulative curve falls."""
    levels = _levels(next(iter(results.values())), "cumulative")
    if not levels:
        return ""
    rows = [("network", "layers", *(f"SNR {level:g}" for level in levels))]
    for name, result in results.items():
        found = (reached(result, result.metric, cumulative(result, level)) for level in levels)
        rows.append((name, str(len(result.selected)), *(" / ".join(each) for each in found)))
    return (
        f"## `{setting}`: noise in the first L layers\n\nThe first L at which the accuracy is 0.9 of the clean one, half of it, "
        f"and chance; - where it never is.\n\n{_table(rows)}"
    )


def _depth(setting: str, results: Mapping[str, Result]) -> str:
    """Noise in one layer: the average and its rank correlation with depth."""
    levels = _levels(next(iter(results.values())), "single")
    if not levels:
        return ""
    rows = [("network", *(f"SNR {level:g}: A_avr, rho" for level in levels))]
    for name, result in results.items():
        averages = {each.level: each.of(result.metric) for each in result.a_avr if each.sweep == "single"}
        cells = []
        for level in levels:
            rho = _by_depth(result, "single", level)
            cells.append(f"{_figure(averages.get(level))}, {_rho(rho)}")
        rows.append((name, *cells))
    return (
        f"## `{setting}`: noise in one layer\n\nA_avr, and Spearman's rank correlation of A_i with the layer's position: above 0 "
        f"later layers are more resistant.\n\n{_table(rows)}"
    )


def _by_depth(result: Result, sweep: Sweep, level: float) -> RankCorrelation | None:
    """Spearman's rank correlation of A_i with the layer, over the cells of a sweep at one level."""
    cells = [cell for cell in result.cells if cell.sweep == sweep and cell.level == level]
    told = [
        (float(cell.layer or 0), each.mean) for cell in cells if (each := cell.normalized(result.metric)) is not None
    ]
    return spearman([layer for layer, _ in told], [mean for _, mean in told])


def _sure(found: RankCorrelation, *, up: bool = True) -> bool | None:
    """Whether a rank correlation is above 0 (`up`) or below; None where its interval holds 0."""
    low, high = found.interval or (found.rho, found.rho)
    return None if low <= 0 <= high else (low > 0) == up


def _rho(found: RankCorrelation | None) -> str:
    return "-" if found is None else ranged(found.rho, found.interval, ".2f")


def _seeds(study: Study) -> str:
    profiles = _seed_profiles(study)
    if not profiles:
        return ""
    seeds = [name for name in study.results if name.startswith("seed")]
    rows = [("network", *(f"worst layers, {seed}" for seed in seeds))]
    for name, pair in profiles.items():
        layers = {layer.index: layer.name for layer in study.results[seeds[0]][name].layers}
        worst = (sorted(profile, key=lambda layer, of=profile: of[layer])[:WORST] for profile in pair)
        rows.append((name, *(", ".join(layers[layer] for layer in each) for each in worst)))
    return (
        f"## Two seeds\n\nOne chip each on {_counted(study, seeds)} images, `group`, SNR 2.5: the five layers with the least "
        f"accuracy. The lists are very different where they share fewer than half.\n\n{_table(rows)}"
    )


def _hardware(study: Study) -> str:
    columns = []
    for setting in ("pcm", "quantize", "stuck"):
        if setting in study.results:
            first = next(iter(study.results[setting].values()))
            level = level_of(first.noise)
            columns += [(setting, value, f"{setting} {level.text(value)}") for value in _levels(first, "all")]
    if not columns:
        return ""
    rows = [("network", *(heading for _, _, heading in columns))]
    for name in study.results[columns[0][0]]:
        rows.append((name, *(_figure(study.all_layers(setting, name, value)) for setting, value, _ in columns)))
    return (
        "## Noise of hardware\n\nAccuracy over the clean one, noise on the kernels of all layers: phase-change memory with drift "
        f"compensation, weights of 4 bits, one stuck cell in a thousand; on "
        f"{_counted(study, [setting for setting, _, _ in columns])} images.\n\n{_table(rows)}"
    )


def _levels(result: Result, sweep: str) -> list[float]:
    """The levels of a sweep, the least noise first."""
    return list(level_of(result.noise).in_order(cell.level for cell in result.cells if cell.sweep == sweep))


def _figure(estimate: Estimate | None) -> str:
    return "-" if estimate is None else ranged(estimate.mean, estimate.sampled, ".3f")


def _percent(estimate: Estimate | None) -> str:
    if estimate is None:
        return "-"
    if estimate.sampled is None:
        return f"{100 * estimate.mean:.1f}"
    low, high = estimate.sampled
    return f"{100 * estimate.mean:.1f} +- {50 * (high - low):.1f}"


def _table(rows: Sequence[Sequence[str]]) -> str:
    marks = ["---", *("---:" for _ in rows[0][1:])]
    return "\n".join(f"| {' | '.join(row)} |" for row in (rows[0], marks, *rows[1:]))
