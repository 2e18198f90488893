r"""The experiments of Fagbohungbe and Qian on your own models: benched, compared, told apart by the paper's statements.

    python examples/paper_experiments.py                                    # every bundled network, on the bundled sample
    python examples/paper_experiments.py --out results --data cifar10=test_batch.bin
    python examples/paper_experiments.py --out results --data cifar10=test_batch.bin \
        resnet20-cifar10=resnet20.onnx resnet32-cifar10=resnet32.onnx resnet56-cifar10=resnet56.onnx
    python examples/paper_experiments.py --out results --data imagenet=val/ --limit 2000 --draws 3 --settings group \
        resnet18=resnet18.onnx resnet34=resnet34.onnx resnet50=resnet50.onnx vgg16=vgg16.onnx \
        shufflenet-v2-1.0x=shuffle10.onnx shufflenet-v2-0.5x=shuffle05.onnx

A model is CARD=FILE: a bundled card's name (`onnxnoise cards`) or a card file, and the ONNX file; a bundled model needs its name
alone, and with no model at all every bundled one takes part. The card's name says in which experiments of the paper's Table II:

1. noise in all layers together (Fig. 2, Table III): every model
2. noise in one layer, and in the first L layers (Fig. 3 to 5): every model
3. depth: the ResNets of a family, without squeeze-and-excitation
4. design philosophy: ResNet-50, ResNet-50-SE, ShuffleNetV2 1.0x, VGG16
5. compression: ShuffleNetV2 1.0x and 0.5x

The slim networks for CIFAR-10 (`examples/cifar10_networks.py`) stand for the paper's on ImageNet, a ShuffleNetV2 for the next
larger one.

All of it is measured twice, since the paper doesn't say it and much depends on it: with noise on all four tensors of a batch norm
and one sigma for a layer (`group`, the paper's protocol), and on the scale and shift that hardware holds, with a sigma for each
tensor (`affine`). Beside it: the paper's two seeds, one chip each; a phase-change memory that drifts, weights of 4 bits, and one
stuck cell in a thousand.

What was measured stays in OUT, a run file for each model and setting: the same command goes on after an interruption, and
measures only what is missing after --limit or --draws has grown. OUT/README.md has the statements, OUT/report-*.html all figures
and tables, OUT/SETTING/NAME.json.gz the JSON of each run; comparisons are printed, and written as JSON for each experiment.
"""

from __future__ import annotations

import argparse
import gzip
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from paper_page import Study, page
from rich.console import Console

from onnxnoise.cli.output import comparison as view
from onnxnoise.cli.output import terminal
from onnxnoise.cli.output.progress import LiveProgress
from onnxnoise.data.cards import Card, bundled_names, load_bundled, load_card
from onnxnoise.decisions.comparing.ranking import Asked, compare
from onnxnoise.decisions.comparing.records import Comparison, to_json
from onnxnoise.decisions.reporting import report
from onnxnoise.errors import OnnxNoiseError, UsageError
from onnxnoise.fields import flags_of, one_of
from onnxnoise.flags import value_of
from onnxnoise.results.as_json import to_json as json_of_run
from onnxnoise.results.reading import open_run_file
from onnxnoise.run.runner import bench
from onnxnoise.spec import BenchSpec
from onnxnoise.words import Sweep


@dataclass(frozen=True)
class Experiment:
    """One row of the paper's Table II: the families of cards that are compared within; without families every card takes part."""

    name: str
    title: str
    families: tuple[tuple[str, ...], ...] = ()
    compared: bool = True


EXPERIMENTS = (
    Experiment("all-layers", "Noise in all layers"),
    Experiment("layers", "Noise in one layer, and in the first L", compared=False),
    Experiment(
        "depth",
        "Depth",
        (
            ("resnet18", "resnet34", "resnet50"),
            ("resnet20-cifar10", "resnet32-cifar10", "resnet56-cifar10"),
            ("resnet18-slim-cifar10", "resnet34-slim-cifar10", "resnet50-slim-cifar10"),
        ),
    ),
    Experiment(
        "design",
        "Design philosophy",
        (
            ("resnet50", "resnet50-se", "shufflenet-v2-1.0x", "vgg16"),
            ("resnet50-slim-cifar10", "resnet50se-slim-cifar10", "shufflenetv2-x0.5-cifar10", "vgg16-slim-cifar10"),
        ),
    ),
    Experiment(
        "compression",
        "Compression",
        (
            ("shufflenet-v2-1.0x", "shufflenet-v2-0.5x"),
            ("shufflenetv2-x0.5-cifar10", "shufflenetv2-x0.25-cifar10"),
        ),
    ),
)


ALL_SNRS = (100, 50, 20, 10, 5, 2.5, 1.67, 1)
"""The SNRs of noise in all layers: those of the paper's Table III and of its figures."""


@dataclass(frozen=True)
class Setting:
    """One kind of noise that every model meets: the name of its folder, and what it asks of `bench`."""

    name: str
    asked: Mapping[str, Any]


ALL: tuple[Sweep, ...] = ("all",)
LAYERS: tuple[Sweep, ...] = ("single", "cumulative")
PROTOCOLS = (
    Setting("group", {"bn": "group", "sigma_scope": "layer"}),
    Setting("affine", {"bn": "affine", "sigma_scope": "tensor"}),
)
SEEDS = tuple(
    Setting(f"seed{seed}", {**PROTOCOLS[0].asked, "seed": seed, "draws": 1, "sweeps": ("single",), "snrs": (2.5,)})
    for seed in (40, 30)
)
HARDWARE = (
    Setting("pcm", {"noise": "pcm", "levels": (3600, 86400, 31557600), "compensate": "drift", "sweeps": ALL}),
    Setting("quantize", {"noise": "quantize", "levels": (4,), "sweeps": ALL, "draws": 1}),
    Setting("stuck", {"noise": "stuck", "levels": (0.001,), "sweeps": ALL}),
)
SETTINGS = {each.name: each for each in (*PROTOCOLS, *SEEDS, *HARDWARE)}
SEED_IMAGES = 1000


@dataclass(frozen=True)
class Entry:
    """A model of the study: the name of its card, which is what the experiments go by, and its files."""

    name: str
    model: str
    card: str
    dataset: str

    @classmethod
    def parsed(cls, text: str) -> Entry:
        """CARD=FILE, or a bundled model's name; raises CardError for a card that there is not."""
        card, _, model = text.partition("=")
        loaded = _card(card)
        if not model and loaded.model.file is None:
            raise UsageError(
                f"{card}: this card comes without weights; write {card}=FILE with your export of the model"
            )
        return cls(loaded.path.stem, model or card, card, loaded.input.dataset)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", metavar="CARD=FILE", help="default: every bundled network")
    parser.add_argument("--out", default="paper-results", type=Path, help="folder of run files, reports and the page")
    parser.add_argument(
        "--data", action="append", default=[], metavar="DATASET=PATH", help="images of a card's data set"
    )
    parser.add_argument("--settings", default=",".join(SETTINGS), help=f"which of {', '.join(SETTINGS)} (default: all)")
    parser.add_argument("--snr", type=_snrs, default="10,5,2.5,1", help="SNRs of noise in one layer and in the first L")
    parser.add_argument(
        "--draws", type=int, help="N chips that meet every image, as the paper's 3 (default: by chunks)"
    )
    parser.add_argument(
        "--precision", type=float, help="half-width of the intervals to stop at (default: bench's 0.01)"
    )
    parser.add_argument(
        "--layer-precision",
        type=float,
        help="the same for noise in one layer and in the first L (default: --precision)",
    )
    parser.add_argument("--limit", type=int, help="only the first N images")
    parser.add_argument("--workers", type=int, help="processes that measure")
    parser.add_argument("--no-clean-check", action="store_true", help="go on where a card's clean accuracy is not met")
    options = parser.parse_args()
    shown, aside = terminal.consoles(quiet=False)
    try:
        entries = [Entry.parsed(text) for text in options.models or _with_weights()]
        data = dict(_pair(text) for text in options.data)
        settings = [SETTINGS[one_of("--settings", name, list(SETTINGS))] for name in options.settings.split(",")]
        for setting in settings:
            (options.out / setting.name).mkdir(parents=True, exist_ok=True)
        for number, entry in enumerate(entries, 1):
            for setting in settings:
                aside.print(f"\nmodel {number} of {len(entries)}: {entry.name}; {setting.name}")
                for spec in _specs(entry, setting, data, options):
                    with LiveProgress(aside) as progress:
                        result = bench(spec, progress)
                    terminal.warnings(aside, result.warnings)
        study = Study(
            _flags(options, entries),
            {
                setting.name: {
                    entry.name: open_run_file(_file(options.out, setting, entry)).result for entry in entries
                }
                for setting in settings
            },
            {
                (setting.name, experiment, family): found
                for setting in settings
                if setting in PROTOCOLS
                for experiment, family, found in _compared(setting, entries, options.out, shown)
            },
        )
        for name, results in study.results.items():
            for model, result in results.items():
                packed = gzip.compress(json_of_run(result).encode(), mtime=0)
                (options.out / name / f"{model}.json.gz").write_bytes(packed)
        (options.out / "README.md").write_text(page(study), encoding="utf-8")
        for setting in settings:
            if setting in PROTOCOLS:
                files = [_file(options.out, setting, entry) for entry in entries]
                report(files, options.out / f"report-{setting.name}.html")
                report(files, options.out / f"cells-{setting.name}.csv")
        shown.print(f"\n{options.out / 'README.md'}")
    except OnnxNoiseError as error:
        terminal.error_message(aside, str(error))
        return error.exit_code
    return 0


def _snrs(text: str) -> tuple[float, ...]:
    """The SNRs of a list, as `bench` reads them."""
    try:
        snrs: tuple[float, ...] = value_of(flags_of(BenchSpec)["snrs"], text)
    except UsageError:
        snrs = ()
    if not snrs or not all(snr > 0 for snr in snrs):
        raise argparse.ArgumentTypeError(f"{text!r} is no list of SNRs above 0; write for example 10,5")
    return snrs


def _flags(options: argparse.Namespace, entries: Sequence[Entry]) -> str:
    """The flags that decide what is measured, as they were given, and the models; of files their names."""
    given = {name: getattr(options, name) for name in ("precision", "layer_precision", "snr", "draws", "limit")}
    given["snr"] = ",".join(f"{snr:g}" for snr in options.snr)
    flags = [f"--{name.replace('_', '-')} {value}" for name, value in given.items() if value is not None]
    flags += [f"--settings {options.settings}"] if options.settings != ",".join(SETTINGS) else []
    flags += [f"--data {dataset}={Path(path).name}" for dataset, path in map(_pair, options.data)]
    return " ".join([*flags, *(entry.name for entry in entries if options.models)])


def _card(name: str) -> Card:
    return load_card(Path(name)) if Path(name).is_file() else load_bundled(name)


def _with_weights() -> list[str]:
    """The names of the bundled cards whose weights come with the package."""
    return [name for name in bundled_names() if load_bundled(name).model.file is not None]


def _pair(text: str) -> tuple[str, str]:
    name, sign, path = text.partition("=")
    if not sign:
        raise UsageError(f"--data: {text!r} names no data set; write for example --data cifar10=test_batch.bin")
    return name, path


def _file(out: Path, setting: Setting, entry: Entry) -> Path:
    return out / setting.name / f"{entry.name}.sqlite"


def _specs(entry: Entry, setting: Setting, data: Mapping[str, str], options: argparse.Namespace) -> Iterator[BenchSpec]:
    """What is measured of one model in one setting: of the protocols all layers together, then layer by layer."""
    asked = {
        "card": None if entry.model == entry.card else entry.card,
        "data": data.get(entry.dataset),
        "draws": options.draws,
        "limit": options.limit,
        "workers": options.workers,
        "clean_check": not options.no_clean_check,
        "out": str(_file(options.out, setting, entry)),
    }
    if setting in SEEDS:
        asked["limit"] = min(options.limit or SEED_IMAGES, SEED_IMAGES)
    elif options.draws is None and "draws" not in setting.asked:
        asked["precision"] = options.precision
    asked |= setting.asked
    if setting not in PROTOCOLS:
        yield BenchSpec(entry.model, **asked)
        return
    yield BenchSpec(entry.model, sweeps=ALL, snrs=ALL_SNRS, **asked)
    if "precision" in asked and options.layer_precision is not None:
        asked["precision"] = options.layer_precision
    yield BenchSpec(entry.model, sweeps=LAYERS, snrs=options.snr, **asked)


def _compared(
    setting: Setting, entries: Sequence[Entry], out: Path, shown: Console
) -> Iterator[tuple[str, str, Comparison]]:
    """The comparisons of each experiment, printed and kept as JSON: its name, the family's first member, what was found."""
    for experiment in EXPERIMENTS:
        for group, members in _groups(experiment, entries).items():
            shown.print(f"\n{experiment.title} ({setting.name}): {', '.join(entry.name for entry in members)}")
            if not experiment.compared or len(members) < 2:
                shown.print("in the report" if not experiment.compared else "one model: nothing to compare")
                continue
            answer = compare([_file(out, setting, entry) for entry in members], Asked())
            view.comparison_tables(shown, answer)
            kept = out / setting.name / f"{experiment.name}-{group}.json"
            kept.write_text(to_json(answer), encoding="utf-8")
            yield experiment.name, group, answer


def _groups(experiment: Experiment, entries: Sequence[Entry]) -> dict[str, list[Entry]]:
    """The entries to compare, by a name for files: those of one data set, or those of one of the experiment's families."""
    if not experiment.families:
        datasets = dict.fromkeys(entry.dataset for entry in entries)
        return {dataset: [entry for entry in entries if entry.dataset == dataset] for dataset in datasets}
    found = [[entry for name in family for entry in entries if entry.name == name] for family in experiment.families]
    return {members[0].name: members for members in found if members}


if __name__ == "__main__":
    sys.exit(main())
