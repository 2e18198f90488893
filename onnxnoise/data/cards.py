"""Reads model cards, which say how a model takes its images, how it is built, and what was published and measured about it."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from onnxnoise.data import resources
from onnxnoise.data.datasets import Dataset, read_dataset
from onnxnoise.data.input import InputSpec, read_input
from onnxnoise.data.measured_noise import MeasuredNoise, read_noise
from onnxnoise.data.toml import Table, as_number, read_tables
from onnxnoise.errors import CardError
from onnxnoise.files import is_there
from onnxnoise.text import did_you_mean
from onnxnoise.words import Metric

METRICS: tuple[Metric, ...] = ("top1", "top5")

METADATA_KEY = "onnxnoise.card"
KEYS = {
    "model": ("name", "title", "framework", "source", "license", "recipe", "file"),
    "input": (
        *("dataset", "classes", "preset", "size", "resize", "crop", "interpolation", "color", "layout"),
        *("scale", "mean", "std", "label_offset"),
    ),
    "structure": ("layers", "parameters", "note"),
    "published": ("metric", "clean", "source", "all_layers", "note"),
    "measured": ("metric", "clean", "images", "data", "noise"),
}


@dataclass(frozen=True)
class ModelInfo:
    """`[model]`: untrusted text. `name` is the card's file name where it says none; `file` has the bundled weights."""

    name: str
    title: str | None
    framework: str | None
    source: str | None
    license: str | None
    recipe: str | None
    file: Path | None


@dataclass(frozen=True)
class Structure:
    """`[structure]`: the numbers of noise layers and parameters that the model should have."""

    layers: int | None
    parameters: int | None
    note: str | None


@dataclass(frozen=True)
class Published:
    """`[published]`: accuracies as fractions of 1; `all_layers` has (SNR, accuracy), largest SNR first."""

    metric: Metric | None
    clean: float | None
    source: str | None
    all_layers: tuple[tuple[float, float], ...]
    note: str | None


@dataclass(frozen=True)
class MeasuredClean:
    """`[measured]`: the clean accuracy (fraction of 1) that this project found, on so many `images` of `data`, and with noise."""

    metric: Metric | None
    clean: float | None
    images: int | None
    data: str | None
    noise: tuple[MeasuredNoise, ...] = ()


@dataclass(frozen=True)
class Card:
    """One card: `dataset` and `input` come from its `[input]`, the others from the tables of their names.

    `dataset` is None where the card names one of its own and leaves out how many classes that has: the model tells (`counted`).
    `says_numbers` tells whether its `[input]` sets mean, std or a preset; else the numbers that a model gets are the usual guess.
    """

    path: Path
    model: ModelInfo
    dataset: Dataset | None
    input: InputSpec
    structure: Structure
    published: Published
    measured: MeasuredClean
    says_numbers: bool = True

    @property
    def classes(self) -> int | None:
        """The number of classes that the card says its model tells apart: the data set's, after `label_offset` others."""
        if self.dataset is None or self.dataset.by_model:
            return None
        return self.dataset.classes + self.input.label_offset

    def counted(self, outputs: int) -> Card:
        """The card with as many classes as a model of so many `outputs` leaves, where it doesn't say how many.

        Raises CardError where its `label_offset` leaves fewer than two.
        """
        if self.dataset is not None:
            return self
        classes = outputs - self.input.label_offset
        if classes < 2:
            raise CardError(
                f"{self.path}: label_offset = {self.input.label_offset} leaves {classes} of the model's {outputs} outputs, and a "
                "classifier tells at least 2 classes apart: correct it, or say the classes"
            )
        return replace(self, dataset=Dataset(self.input.dataset, classes, by_model=True))


def find_card(model: Path, explicit: str | None, metadata: Mapping[str, str]) -> Card:
    """The card of a model file.

    It is `explicit` (a path, or a bundled card's name), else `net.onnx.toml` or `net.toml` beside `net.onnx`, else the
    bundled card that the file's metadata names under `onnxnoise.card` (never a path: the file is not trusted).

    Raises CardError where there is no card, where its name is unknown, or where it can't be used.
    """
    if explicit is not None:
        return load_card(Path(explicit)) if is_there(Path(explicit)) else load_bundled(explicit)
    for beside in (model.with_name(f"{model.name}.toml"), model.with_suffix(".toml")):
        if is_there(beside):
            return load_card(beside)
    if METADATA_KEY in metadata:
        try:
            return load_bundled(metadata[METADATA_KEY])
        except CardError as error:
            raise CardError(f"{model}: metadata {METADATA_KEY}: {error}") from error
    raise CardError(
        f"{model}: no card says how this model wants its images. `onnxnoise cards new {shlex.quote(str(model))} --data IMAGES` "
        f"drafts one from the model and what fits the images; or pass --card FILE or NAME, or put one beside it as "
        f"{model.stem}.toml. A card needs at least [input] dataset and how pixels become numbers, for example "
        f'preset = "torchvision". Bundled: {", ".join(bundled_names()) or "none"}'
    )


def bundled_names() -> list[str]:
    return list(resources.bundled("model_cards"))


def load_bundled(name: str) -> Card:
    """The bundled card of that name. Raises CardError, which lists them, where there is none."""
    cards = resources.bundled("model_cards")
    if name not in cards:
        raise CardError(
            f"no card file and no bundled card is named {name!r}{did_you_mean(name, cards)} "
            f"(bundled: {', '.join(cards) or 'none'})"
        )
    return load_card(cards[name])


def load_card(path: Path) -> Card:
    """Reads a card. Raises CardError, naming file, table and key, for whatever is unknown, missing or impossible."""
    tables = read_tables(path, KEYS)
    model, structure, measured = tables["model"], tables["structure"], tables["measured"]
    dataset = read_dataset(tables["input"])
    return Card(
        path=path,
        model=ModelInfo(
            name=model.text("name") or path.name.removesuffix(".toml").removesuffix(".onnx"),
            title=model.text("title"),
            framework=model.text("framework"),
            source=model.text("source"),
            license=model.text("license"),
            recipe=model.text("recipe"),
            file=model.path("file", "a path inside the card's folder, with /"),
        ),
        dataset=dataset,
        input=read_input(tables["input"]),
        structure=Structure(
            layers=structure.integer("layers", 1, 10**6),
            parameters=structure.integer("parameters", 1, 10**12),
            note=structure.text("note"),
        ),
        published=_published(tables["published"]),
        measured=MeasuredClean(
            metric=measured.choice("metric", METRICS),
            clean=_accuracy(measured, "clean"),
            images=measured.integer("images", 1, 10**9),
            data=measured.text("data"),
            noise=read_noise(measured),
        ),
        says_numbers=not {"mean", "std", "preset"}.isdisjoint(tables["input"].values),
    )


def _published(table: Table) -> Published:
    all_layers = table.values.get("all_layers", {})
    form = 'a table of SNR to accuracy, a fraction of 1, like {"100" = 0.92, "2.5" = 0.24}; quote SNRs with a dot'
    if not isinstance(all_layers, dict):
        raise table.error("all_layers", form)
    rows: list[tuple[float, float]] = []
    for key, value in all_layers.items():
        try:
            snr = as_number(float(key))
        except ValueError:
            snr = None
        accuracy = as_number(value)
        if snr is None or snr <= 0 or accuracy is None or not 0 <= accuracy <= 1:
            raise table.error("all_layers", form)
        rows.append((snr, accuracy))
    return Published(
        metric=table.choice("metric", METRICS),
        clean=_accuracy(table, "clean"),
        source=table.text("source"),
        all_layers=tuple(sorted(rows, reverse=True)),
        note=table.text("note"),
    )


def _accuracy(table: Table, key: str) -> float | None:
    return table.number(key, "an accuracy above 0, as a fraction of 1 (89.5 % is 0.895)", above=0, to=1)
