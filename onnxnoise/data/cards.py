"""Reads model cards: how a model wants its images, how it is built, and what was published and measured about it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from onnxnoise.data import resources
from onnxnoise.data.toml import Table, Triple, as_number, did_you_mean, read_tables
from onnxnoise.errors import CardError
from onnxnoise.records import Metric

Dataset = Literal["imagenet", "cifar10", "cifar100"]
Interpolation = Literal["nearest", "bilinear", "bicubic", "lanczos", "box", "hamming", "opencv-cubic"]
Rounding = Literal["nearest", "torchvision"]
Color = Literal["rgb", "bgr"]
Layout = Literal["auto", "nchw", "nhwc"]

CLASSES: dict[Dataset, int] = {"imagenet": 1000, "cifar10": 10, "cifar100": 100}
DATASETS: tuple[Dataset, ...] = tuple(CLASSES)
INTERPOLATIONS: tuple[Interpolation, ...] = (
    "nearest",
    "bilinear",
    "bicubic",
    "lanczos",
    "box",
    "hamming",
    "opencv-cubic",
)
COLORS: tuple[Color, ...] = ("rgb", "bgr")
LAYOUTS: tuple[Layout, ...] = ("auto", "nchw", "nhwc")
METRICS: tuple[Metric, ...] = ("top1", "top5")

METADATA_KEY = "onnxnoise.card"
KEYS = {
    "model": ("name", "title", "framework", "source", "license", "recipe", "file"),
    "input": (
        *("dataset", "preset", "size", "resize", "crop", "interpolation", "color", "layout"),
        *("scale", "mean", "std", "label_offset"),
    ),
    "structure": ("layers", "parameters", "note"),
    "published": ("metric", "clean", "source", "all_layers", "note"),
    "measured": ("metric", "clean", "images", "data"),
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
class InputSpec:
    """`[input]`, preset and defaults filled in: how an image becomes the model's input, `(pixel/scale - mean)/std`.

    With `resize` (shorter side, pixels) the image is resized, then `crop` (side, pixels) is cut from its centre. With
    `crop` alone it is only cut; with neither it is stretched to `size` x `size`. `size` is always the input's side.
    `rounding` is not a card's key: with torchvision's presets the resized long side is rounded down and half a pixel of
    the crop's margin to even, otherwise the side to the nearest pixel and the margin down, as tensorpack does.
    `mean` and `std` are in the order of the model's channels. `scale` None: not said; 255, or 1 for a uint8 input.
    """

    dataset: Dataset
    size: int
    resize: int | None = None
    crop: int | None = None
    interpolation: Interpolation = "nearest"
    rounding: Rounding = "nearest"
    color: Color = "rgb"
    layout: Layout = "auto"
    scale: float | None = None
    mean: Triple = (0.0, 0.0, 0.0)
    std: Triple = (1.0, 1.0, 1.0)
    label_offset: int = 0

    @property
    def classes(self) -> int:
        """Logits that a model for these labels has."""
        return CLASSES[self.dataset] + self.label_offset


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
class Measured:
    """`[measured]`: the clean accuracy (fraction of 1) that this project found, on so many `images` of `data`."""

    metric: Metric | None
    clean: float | None
    images: int | None
    data: str | None


@dataclass(frozen=True)
class Card:
    path: Path
    model: ModelInfo
    input: InputSpec
    structure: Structure
    published: Published
    measured: Measured


@dataclass(frozen=True)
class Preset:
    """What a family of models expects. The geometry (`size`, `resize`, pixels) is for ImageNet's images only."""

    scale: float
    mean: Triple
    std: Triple
    color: Color = "rgb"
    layout: Layout = "auto"
    interpolation: Interpolation = "nearest"
    size: int = 224
    resize: int | None = None


IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
ZEROS = (0.0, 0.0, 0.0)
ONES = (1.0, 1.0, 1.0)
PRESETS = {
    "torchvision": Preset(255, IMAGENET_MEAN, IMAGENET_STD, interpolation="bilinear", resize=256),
    "torchvision-232": Preset(255, IMAGENET_MEAN, IMAGENET_STD, interpolation="bilinear", resize=232),
    "keras-caffe": Preset(1, (103.939, 116.779, 123.68), ONES, color="bgr"),
    "keras-tf": Preset(127.5, ONES, ONES),
    "keras-torch": Preset(255, IMAGENET_MEAN, IMAGENET_STD),
    "tensorpack": Preset(1, ZEROS, ONES, color="bgr", layout="nhwc", interpolation="opencv-cubic", resize=256),
}


def find_card(model: Path, explicit: str | None, metadata: Mapping[str, str]) -> Card:
    """The card of a model file.

    It is `explicit` (a path, or a bundled card's name), else `net.onnx.toml` or `net.toml` beside `net.onnx`, else the
    bundled card that the file's metadata names under `onnxnoise.card` (never a path: the file is not trusted).

    Raises CardError: there is none, its name is unknown, or it can't be used.
    """
    if explicit is not None:
        return load_card(Path(explicit)) if Path(explicit).is_file() else load_bundled(explicit)
    for beside in (model.with_name(f"{model.name}.toml"), model.with_suffix(".toml")):
        if beside.is_file():
            return load_card(beside)
    if METADATA_KEY in metadata:
        try:
            return load_bundled(metadata[METADATA_KEY])
        except CardError as error:
            raise CardError(f"{model}: metadata {METADATA_KEY}: {error}") from error
    raise CardError(
        f"{model}: no card says how this model wants its images. Pass --card FILE or NAME, or put one beside it as "
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
    return Card(
        path=path,
        model=ModelInfo(
            name=model.text("name") or path.name.removesuffix(".toml").removesuffix(".onnx"),
            title=model.text("title"),
            framework=model.text("framework"),
            source=model.text("source"),
            license=model.text("license"),
            recipe=model.text("recipe"),
            file=_weights(model),
        ),
        input=_input(tables["input"]),
        structure=Structure(
            layers=structure.integer("layers", 1, 10**6),
            parameters=structure.integer("parameters", 1, 10**12),
            note=structure.text("note"),
        ),
        published=_published(tables["published"]),
        measured=Measured(
            metric=measured.choice("metric", METRICS),
            clean=_accuracy(measured, "clean"),
            images=measured.integer("images", 1, 10**9),
            data=measured.text("data"),
        ),
    )


def _input(table: Table) -> InputSpec:
    dataset = table.choice("dataset", DATASETS)
    if dataset is None:
        raise CardError(f"{table.file}: [input] dataset is missing: add one of {', '.join(DATASETS)}")
    name = table.choice("preset", tuple(PRESETS))
    preset = PRESETS[name] if name else None
    size, resize, crop = _geometry(table, dataset, preset)
    default = preset.interpolation if preset else "bilinear" if resize else "nearest"
    interpolation = table.choice("interpolation", INTERPOLATIONS) or default
    color = table.choice("color", COLORS)
    scale = table.number("scale", "a number above 0", above=0)
    mean = table.triple("mean", "three numbers, one for each channel of the model")
    std = table.triple("std", "three numbers above 0, one for each channel of the model", above=0)
    if preset and color not in {None, preset.color} and len(set(preset.mean)) > 1 and (mean is None or std is None):
        raise table.error("color", f"{preset.color}, as in preset {name}, unless mean and std come in that order too")
    return InputSpec(
        dataset=dataset,
        size=size,
        resize=resize,
        crop=crop,
        interpolation=interpolation,
        rounding="torchvision"
        if (name or "").startswith("torchvision") and interpolation != "opencv-cubic"
        else "nearest",
        color=color or (preset.color if preset else "rgb"),
        layout=table.choice("layout", LAYOUTS) or (preset.layout if preset else "auto"),
        scale=scale or (preset.scale if preset else None),
        mean=mean or (preset.mean if preset else ZEROS),
        std=std or (preset.std if preset else ONES),
        label_offset=table.integer("label_offset", 0, 1000) or 0,
    )


def _geometry(table: Table, dataset: Dataset, preset: Preset | None) -> tuple[int, int | None, int | None]:
    """`size`, `resize` and `crop` of an InputSpec, pixels."""
    size, resize, crop = (table.integer(key, 1, 4096) for key in ("size", "resize", "crop"))
    if size and crop and size != crop:
        raise table.error("size", f"equal to crop = {crop}, the side of the input; leave out one of them")
    side = crop or size
    if preset and dataset == "imagenet":
        side, resize = side or preset.size, resize or preset.resize
    if dataset != "imagenet":
        side = side or resize or 32
    side = side or resize
    if side is None:
        raise CardError(
            f"{table.file}: [input] does not say how large the images are: add a preset ({', '.join(PRESETS)}), "
            "or size (stretch to it), or resize and crop"
        )
    if resize and side > resize:
        raise CardError(
            f"{table.file}: [input] cuts {side} pixels out of images whose shorter side is resize = {resize}"
        )
    return side, resize, side if resize else crop


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


def _weights(table: Table) -> Path | None:
    """The bundled weights, beside the card. A card can't point out of its folder."""
    file = table.text("file")
    if file is None:
        return None
    relative = PurePosixPath(file)
    if not file or "\\" in file or relative.is_absolute() or ".." in relative.parts:
        raise table.error("file", "a path inside the card's folder, with /")
    return table.file.parent / relative
