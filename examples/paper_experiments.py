r"""The experiments of Fagbohungbe and Qian on your own models: benched with the paper's protocol, compared, in one report.

    python examples/paper_experiments.py --limit 200 --draws 2              # every bundled network, on the bundled sample
    python examples/paper_experiments.py --out results --data cifar10=test_batch.bin \
        resnet20-cifar10=resnet20.onnx resnet32-cifar10=resnet32.onnx resnet56-cifar10=resnet56.onnx
    python examples/paper_experiments.py --out results --data imagenet=val/ --limit 2000 \
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

What was measured stays in OUT, a run file for each model: the same command goes on after an interruption, and measures only what
is missing after --limit or --draws has grown. OUT/report.html has all figures and tables; comparisons are printed, and written as
JSON for each experiment.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from onnxnoise.cli.output import comparison as view
from onnxnoise.cli.output import terminal
from onnxnoise.cli.output.progress import LiveProgress
from onnxnoise.data.cards import Card, bundled_names, load_bundled, load_card
from onnxnoise.decisions.comparing.ranking import Asked, compare
from onnxnoise.decisions.comparing.records import to_json
from onnxnoise.decisions.reporting import report
from onnxnoise.errors import OnnxNoiseError, UsageError
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
    parser.add_argument("--out", default="paper-results", type=Path, help="folder of run files and the report")
    parser.add_argument(
        "--data", action="append", default=[], metavar="DATASET=PATH", help="images of a card's data set"
    )
    parser.add_argument("--draws", type=int, default=3, help="noise realizations (default: the paper's 3)")
    parser.add_argument("--limit", type=int, help="only the first N images")
    parser.add_argument("--bn", default="group", help="batch-norm policy (default: group, the paper's)")
    parser.add_argument("--workers", type=int, help="processes that measure")
    parser.add_argument("--no-clean-check", action="store_true", help="go on where a card's clean accuracy is not met")
    options = parser.parse_args()
    shown, aside = terminal.consoles(quiet=False)
    try:
        entries = [Entry.parsed(text) for text in options.models or _with_weights()]
        data = dict(_pair(text) for text in options.data)
        options.out.mkdir(parents=True, exist_ok=True)
        files: dict[Entry, Path] = {}
        for number, entry in enumerate(entries, 1):
            aside.print(f"\nmodel {number} of {len(entries)}: {entry.name}")
            spec = _spec(entry, data, options)
            with LiveProgress(aside) as progress:
                result = bench(spec, progress)
            terminal.warnings(aside, result.warnings)
            files[entry] = Path(spec.out or "")
        for experiment in EXPERIMENTS:
            for group, members in _groups(experiment, entries).items():
                shown.print(f"\n{experiment.title}: {', '.join(entry.name for entry in members)}")
                if not experiment.compared or len(members) < 2:
                    shown.print("in the report" if not experiment.compared else "one model: nothing to compare")
                    continue
                answer = compare([files[entry] for entry in members], Asked())
                view.comparison_tables(shown, answer)
                (options.out / f"{experiment.name}-{group}.json").write_text(to_json(answer), encoding="utf-8")
        report(list(files.values()), options.out / "report.html")
        shown.print(f"\n{options.out / 'report.html'}")
    except OnnxNoiseError as error:
        terminal.error_message(aside, str(error))
        return error.exit_code
    return 0


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


def _spec(entry: Entry, data: Mapping[str, str], options: argparse.Namespace) -> BenchSpec:
    """The paper's protocol: pooled sigma, batch norms as one layer, its six SNRs; all three sweeps."""
    sweeps: tuple[Sweep, ...] = ("single", "cumulative", "all")
    return BenchSpec(
        entry.model,
        card=None if entry.model == entry.card else entry.card,
        data=data.get(entry.dataset),
        sweeps=sweeps,
        draws=options.draws,
        bn=options.bn,
        sigma_scope="layer",
        limit=options.limit,
        workers=options.workers,
        clean_check=not options.no_clean_check,
        out=str(options.out / f"{entry.name}.sqlite"),
    )


def _groups(experiment: Experiment, entries: Sequence[Entry]) -> dict[str, list[Entry]]:
    """The entries to compare, by a name for files: those of one data set, or those of one of the experiment's families."""
    if not experiment.families:
        datasets = dict.fromkeys(entry.dataset for entry in entries)
        return {dataset: [entry for entry in entries if entry.dataset == dataset] for dataset in datasets}
    found = [[entry for entry in entries if entry.name in family] for family in experiment.families]
    return {members[0].name: members for members in found if members}


if __name__ == "__main__":
    sys.exit(main())
