"""The frozen records that cross module borders or land on disk."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from importlib import import_module
from typing import Any, Final, Literal, TypeVar

import numpy as np
import numpy.typing as npt

from onnxnoise.words import DEFAULT_SEED, Analog, Compensation, Kind, Metric, Policy, SigmaScope, Sweep

Pixels = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
Bits = npt.NDArray[np.bool_]

Design = Literal["crossed", "nested"]
"""The two designs. Crossed: every draw meets every image. Chunked (`nested`): each chunk of images meets draws of its own."""

CHUNKED: Final = "nested"
"""The chunked design's name in run files and JSON, which keep the word they began with."""

DEALT: Final = "dealt"
"""The name, in a run file's identity, of the order in which the images of a chunked run are dealt to chunks: a random one that
the seed decides. Run files that don't have it keep the data's own order.
"""

Interval = tuple[float, float]
AtLevel = TypeVar("AtLevel", bound=Any)
"""A dataclass with a `level` of the noise, and an `snr` that is the same or None."""


@dataclass(frozen=True)
class NoiseStep:
    """One step of a noise model: its name, its level where that is written down, and its other parameters by name.

    A step that is made of a file of the user's has its path as `file` (of a function `FILE.py:NAME`), and its SHA-256.
    """

    name: str
    level: float | None = None
    parameters: tuple[tuple[str, float], ...] = ()
    file: str = ""
    sha256: str = ""

    @property
    def text(self) -> str:
        """The step as `--noise` takes it, a file without its folder: `relative:0.05,range=1`."""
        return self.written(None if self.level is None else _exact(self.level))

    @property
    def located(self) -> str:
        """The step as `--noise` takes it, with the whole path of a file."""
        return self.written(None if self.level is None else _exact(self.level), self.file)

    def written(self, level: str | None, file: str | None = None) -> str:
        """The step with its level written so; `file` is the text for a file, by default its name without the folder."""
        named = re.split(r"[/\\]", self.file)[-1] if file is None else file
        parts = [named] if named else []
        if level is not None:
            parts.append(f"level={level}" if named else level)
        parts += [f"{name}={_exact(value)}" for name, value in self.parameters]
        return self.name + (":" + ",".join(parts) if parts else "")


def _exact(number: float) -> str:
    """A number in as few digits as read back as the same."""
    short = f"{number:g}"
    return short if float(short) == number else repr(number)


@dataclass(frozen=True)
class MapEntry:
    """One line of a noise map: the layers that `pattern` names have the chain `steps`; None stands for digital layers."""

    pattern: str
    steps: tuple[NoiseStep, ...] | None

    @property
    def noise(self) -> str:
        """The chain as `--noise` takes it, or `digital`."""
        return "digital" if self.steps is None else chain_text(self.steps)


@dataclass(frozen=True)
class NoiseMap:
    """The noise of single layers, as a file of digest `sha256` says: of the entries that name a layer the first one counts.

    `whole` says that the entries name every layer with its level, so that no level is left to sweep.
    """

    sha256: str
    entries: tuple[MapEntry, ...]
    whole: bool

    def flat(self) -> dict[str, Any]:
        """The map as a run file keeps it: of each line pattern, noise, and the digests of the files that the noise is made of."""
        layers = [
            [each.pattern, each.noise, *(step.sha256 for step in each.steps or () if step.file)]
            for each in self.entries
        ]
        return {"sha256": self.sha256, "layers": layers}


@dataclass(frozen=True)
class NoiseSetting:
    """The noise of a run, all but its level and draw: two runs with equal settings mean the same by a level and by a draw.

    `steps` is the chain of noise models, `seed` the seed of their random streams, `bn` the batch-norm policy. `sigma_scope`
    says over which values gaussian noise's sigma_w is taken, `scale` over which ones max |w| is (`tensor`, `channel` or
    `tile:N`), and `analog` which initializers bear noise. `compensate` is what is done about the noise of a chip: with `bn` its
    batch norms' statistics are recomputed on `calibration` images. `noise_map` gives some layers noise of their own.
    """

    steps: tuple[NoiseStep, ...] = (NoiseStep("gaussian"),)
    seed: int = DEFAULT_SEED
    bn: Policy = "group"
    sigma_scope: SigmaScope = "tensor"
    scale: str = "tensor"
    analog: Analog = "all"
    compensate: Compensation = "none"
    calibration: int = 0
    noise_map: NoiseMap | None = None

    @property
    def chain(self) -> str:
        """The chain as `--noise` takes it: `gaussian`, `relative:range=1`."""
        return chain_text(self.steps)

    @property
    def located(self) -> str:
        """The chain as `--noise` takes it, with the whole paths of its files."""
        return "+".join(step.located for step in self.steps)

    def difference(self, other: NoiseSetting) -> tuple[str, str, str] | None:
        """The first part in which two settings differ, the seed aside: its name and both values; None where they agree."""
        theirs = other.parts()
        return next(((name, ours, theirs[name]) for name, ours in self.parts().items() if ours != theirs[name]), None)

    def parts(self) -> dict[str, str]:
        """Every part of the setting but the seed, as people read it, by its name in messages."""
        return {
            "noise": self.chain,
            "batch-norm policy": self.bn,
            "sigma scope": self.sigma_scope,
            "scale": self.scale,
            "choice of initializers": self.analog,
            "noise file": ", ".join(self.files) or "none",
            "compensation": f"{self.compensate}, {self.calibration} images" if self.calibration else self.compensate,
            "noise map": self.noise_map.sha256[:8] if self.noise_map else "none",
        }

    @property
    def files(self) -> tuple[str, ...]:
        """The SHA-256 of each file that a step is made of, in the order of the steps."""
        return tuple(step.sha256 for step in self.steps if step.file)

    def as_snr(self, level: float) -> float | None:
        """The level where it is a signal-to-noise ratio, that of gaussian noise; else None."""
        if self.noise_map is not None and self.noise_map.whole:
            return None
        swept = next((step for step in self.steps if step.level is None), self.steps[-1])
        return level if swept.name == "gaussian" else None

    def with_snr(self, records: Iterable[AtLevel]) -> tuple[AtLevel, ...]:
        """The records, which have a `level`, with their `snr` set from it."""
        return tuple(replace(each, snr=self.as_snr(each.level)) for each in records)

    def whole(self) -> dict[str, Any]:
        """Every part of the setting by the name of its flag, for JSON."""
        return {
            "noise": self.chain,
            "seed": self.seed,
            "bn": self.bn,
            "sigma_scope": self.sigma_scope,
            "scale": self.scale,
            "analog": self.analog,
            "compensate": self.compensate,
            "calibration": self.calibration,
            "noise_map": self.noise_map.flat() if self.noise_map else None,
        }

    def flat(self) -> dict[str, Any]:
        """The setting as a run file keeps it: parts that only some noise has are left out where they are the usual ones."""
        usual = {
            "noise": "gaussian",
            "scale": "tensor",
            "analog": "all",
            "compensate": "none",
            "calibration": 0,
            "noise_map": None,
            "noise_files": None,
        }
        parts = {**self.whole(), "noise_files": list(self.files) or None}
        return {name: value for name, value in parts.items() if name not in usual or usual[name] != value}


def chain_text(steps: Iterable[NoiseStep]) -> str:
    """The steps of a chain as `--noise` takes them: `relative:range=1`."""
    return "+".join(step.text for step in steps)


@dataclass(frozen=True)
class Measured:
    """A record of something that was measured under one noise setting."""

    noise: NoiseSetting

    @property
    def seed(self) -> int:
        """The seed of the noise."""
        return self.noise.seed

    @property
    def bn(self) -> Policy:
        """The batch-norm policy."""
        return self.noise.bn

    @property
    def sigma_scope(self) -> SigmaScope:
        """The values over which the sigma_w of gaussian noise is taken: those of a `tensor`, or of a whole `layer`."""
        return self.noise.sigma_scope


@dataclass(frozen=True)
class MeasuredModel(Measured):
    """A record of one model that was measured: its `model` (name, sha256) on a `dataset` (name, images, sha256).

    `provider` is ONNX Runtime's execution provider.
    """

    model: dict[str, str]
    provider: str
    dataset: dict[str, str | int]

    def about(self, shown: Callable[[str], str], images: int | None = None) -> str:
        """The model and the images in words; `shown` makes untrusted names fit for where they are shown.

        `images` is how many were measured, by default those of the data set that were asked for; where they are fewer, both
        are said.
        """
        name, dataset = shown(self.model["name"]), shown(str(self.dataset["name"]))
        asked = self.dataset["images"]
        count = f"{asked:,}" if images in (None, asked) else f"{images:,} of {asked:,}"
        return f"{name} ({self.model['sha256'][:8]}) on {count} images of {dataset}{agreement_said(self.dataset)}"

    @property
    def measure(self) -> str:
        """The word for the share of hits: accuracy, or agreement (with the clean model) where its own top-1 is the label."""
        return "agreement" if self.dataset.get("labels") == "clean" else "accuracy"


def agreement_said(dataset: Mapping[str, str | int]) -> str:
    """The end of a line about a data set, by which every output says that the labels are the clean model's own; else nothing."""
    return "; agreement with the clean model, not accuracy" if dataset.get("labels") == "clean" else ""


def header(
    noise: NoiseSetting,
    provider: str,
    model: tuple[str, str],
    dataset: tuple[str, int, str],
    *,
    by_clean: bool = False,
) -> dict[str, Any]:
    """The fields of a MeasuredModel; `model` is (name, sha256), `dataset` (name, number of images, sha256).

    `by_clean` says that the labels are the clean model's own top-1; the data set then has `labels`, which is "clean".
    """
    return {
        "noise": noise,
        "model": dict(zip(("name", "sha256"), model, strict=True)),
        "provider": provider,
        "dataset": {
            **dict(zip(("name", "images", "sha256"), dataset, strict=True)),
            **({"labels": "clean"} if by_clean else {}),
        },
    }


@dataclass(frozen=True)
class MeasuredAt(Measured):
    """A record of something that was measured at one level of the noise."""

    level: float

    @property
    def snr(self) -> float | None:
        """The level where it is a signal-to-noise ratio, else None."""
        return self.noise.as_snr(self.level)


@dataclass(frozen=True)
class Notice:
    """A warning that belongs to the result: a stable `code` for programs, a `message` for people."""

    code: str
    message: str


@dataclass(frozen=True)
class ImageChunk:
    """Images that travel together, labels int64 (n,); the first is image `start`.

    `pixels` are uint8 (n, height, width, channels), or other arrays, numbers (n, ...) as the data has them.
    """

    start: int
    pixels: npt.NDArray[Any]
    labels: Labels


@dataclass(frozen=True)
class Yield:
    """The share of draws that reach `target`, with its exact (Clopper-Pearson) 95 % interval; fractions of 1."""

    target: float
    share: float
    interval: Interval


@dataclass(frozen=True)
class Estimate:
    """An accuracy, a fraction of the clean one or of 1, with its two 95 % intervals and how single draws differ.

    `fixed` is for this image set (draws vary), `sampled` for images like these (draws and images vary); both are None with
    one draw. `sd` is the standard deviation of the draws' own accuracies (None with one draw) and `worst` the lowest of them.
    `target_yield`, where a target was asked for, counts the draws that reach that share of the clean accuracy; its `target`
    is in the unit of `mean`. All three are None in a chunked run, where draws don't meet the same images.
    """

    mean: float
    fixed: Interval | None
    sampled: Interval | None
    sd: float | None = None
    worst: float | None = None
    target_yield: Yield | None = None


WEIGHT, BIAS = 0, 1
RECURRENCE = 1
SCALE, MEAN, VARIANCE, CAFFE_SCALE, CAFFE_BIAS = 0, 2, 3, 4, 5
"""Roles of initializers in a layer: the `k` by which their noise is drawn. A batch norm's bias has the role of any bias."""


@dataclass(frozen=True, eq=False)
class Codes:
    """The integers of `bits` bits as which weights are stored: a weight is (code - `zero`) `scale`.

    `signed` codes are two's complement. `scale` and `zero` are float64, broadcastable to the weights.
    """

    bits: int
    signed: bool
    scale: npt.NDArray[np.float64]
    zero: npt.NDArray[np.float64]

    @property
    def range(self) -> tuple[int, int]:
        """The smallest and the largest code."""
        return (-(1 << self.bits - 1), (1 << self.bits - 1) - 1) if self.signed else (0, (1 << self.bits) - 1)

    def of(self, values: Floats) -> npt.NDArray[np.int32]:
        """The codes of weights, int32 in their shape; where the scale is 0, the zero point."""
        with np.errstate(divide="ignore", invalid="ignore"):
            codes = np.where(self.scale > 0, values / self.scale, 0.0)
        return np.asarray(np.rint(codes + self.zero), np.int32)

    def weights(self, codes: npt.NDArray[np.int32]) -> Floats:
        """The weights that codes stand for, float32, as DequantizeLinear computes them."""
        return np.asarray((codes - self.zero) * self.scale, np.float32)

    def fit(self, values: Floats) -> bool:
        """Whether `values` are what codes stand for, to the last bits."""
        codes = self.of(values)
        low, high = self.range
        if not low <= codes.min() <= codes.max() <= high:
            return False
        return bool(np.allclose(self.weights(codes), values, rtol=1e-6, atol=0.0))


@dataclass(frozen=True)
class NoiseTensor:
    """One initializer of a noise layer.

    `name` is the file's, `value` the normalized graph's own copy of it for this layer. `role` is the noise's `k`. `shape` is
    the canonical shape, in which noise is drawn; where `transposed`, the graph stores the transpose. `sigma_w` is the
    population standard deviation, in units of the initializer. Where a quantized file stores integers, `codes` has them, laid out
    as the graph stores the initializer.
    """

    name: str
    value: str
    role: int
    shape: tuple[int, ...]
    transposed: bool
    sigma_w: float
    codes: Codes | None = field(default=None, compare=False)


@dataclass(frozen=True)
class NoiseLayer:
    """Initializers perturbed together. `index` counts from 1 in canonical order; `sigma_w` pools all their values.

    `start` is the position of the layer's first node in the network's node order: the cut before this layer.
    """

    index: int
    name: str
    kind: Kind
    parameters: int
    sigma_w: float
    tensors: tuple[NoiseTensor, ...]
    start: int


@dataclass(frozen=True)
class Unattached:
    """A tensor of a network that belongs to no noise layer and stays without noise, and the operator that uses it."""

    name: str
    operator: str
    elements: int


@dataclass(frozen=True)
class WithoutNoise:
    """The part of a network that belongs to no noise layer: its initializers by size, their elements, and those as a share of
    all the network's parameters, a fraction of 1.
    """

    elements: int = 0
    share: float = 0.0
    initializers: tuple[Unattached, ...] = ()


@dataclass(frozen=True)
class Variant:
    """One level of the noise and one draw."""

    level: float
    draw: int


TallyKey = tuple[str, int | None, float, int, int]
"""The key of a tally: (sweep, layer, level, draw, start of the chunk)."""


@dataclass(frozen=True)
class Tally:
    """Hits of one (sweep, layer, level, draw) on one chunk; `sweep` is also `clean`, `layer` None for clean and all.

    `top1`, `top5` and `nonfinite` are packed bits, one an image (numpy.packbits); `top5` is empty with five classes or fewer.
    `negative_variances` counts the batch-norm channels whose variance the noise made negative, in this draw.
    """

    sweep: str
    layer: int | None
    level: float
    draw: int
    start: int
    images: int
    top1: bytes
    top5: bytes
    nonfinite: bytes
    negative_variances: int

    @property
    def key(self) -> TallyKey:
        return self.sweep, self.layer, self.level, self.draw, self.start

    def hits(self, metric: Metric) -> int:
        """The number of images that are hits by a metric; by top-1 where there is no top-5."""
        packed = self.top5 if metric == "top5" and self.top5 else self.top1
        return int.from_bytes(packed).bit_count()


@dataclass(frozen=True)
class DrawHits:
    """Hits of one draw over all its images, and the clean hits on the same images; top-5 is None with five classes or fewer."""

    draw: int
    images: int
    clean_top1_hits: int
    clean_top5_hits: int | None
    top1_hits: int
    top5_hits: int | None
    nonfinite: int
    negative_variances: int


@dataclass(frozen=True)
class Cell:
    """One (sweep, layer, level): the hits of each draw, and accuracies as fractions of the clean ones and as fractions of 1.

    `snr` is the level where it is a signal-to-noise ratio, else None. A normalized accuracy is None where the clean
    pass has no hit to divide by; top-5 is None with five classes or fewer. `precise` says, where a precision was asked for,
    whether the half-width of `sampled` is that small, in the metric of the result; where it isn't, `floor` is the half-width that
    draws without end would leave on these images, None where no chunk of them met two draws.
    """

    sweep: Sweep
    layer: int | None
    level: float
    draws: tuple[DrawHits, ...]
    normalized_top1: Estimate | None
    normalized_top5: Estimate | None
    accuracy_top1: Estimate | None = None
    accuracy_top5: Estimate | None = None
    precise: bool | None = None
    floor: float | None = None
    snr: float | None = None

    def normalized(self, metric: Metric) -> Estimate | None:
        """The normalized accuracy by a metric."""
        return self.normalized_top5 if metric == "top5" else self.normalized_top1

    def accuracy(self, metric: Metric) -> Estimate | None:
        """The accuracy, a fraction of 1, by a metric."""
        return self.accuracy_top5 if metric == "top5" else self.accuracy_top1


@dataclass(frozen=True)
class Average:
    """`A_avr`: the mean of A_i over `layers` noise layers at one level; `snr` as in a cell."""

    sweep: Sweep
    level: float
    layers: int
    top1: Estimate
    top5: Estimate | None
    snr: float | None = None

    def of(self, metric: Metric) -> Estimate | None:
        """The average by a metric."""
        return self.top5 if metric == "top5" else self.top1


@dataclass(frozen=True)
class Realized:
    """The noise that a layer's values w really got at one level, w', averaged over the first `draws` draws.

    `snr` is sd(w) / sd(w' - w) over all values of the layer that bear noise (population standard deviations): where a device
    stands on the axis of white noise. `gain` is sum(w w') / sum(w w), which drift lowers, `offset` is mean(w' - w) / sd(w). Each
    is None where it isn't defined; `snr` is infinite without noise.
    """

    layer: int
    level: float
    snr: float | None
    gain: float | None
    offset: float | None
    draws: int


@dataclass(frozen=True)
class RealizedRange:
    """The lowest, the median and the highest over `layers` layers of their realized noise at one level; see `Realized`."""

    level: float
    layers: int
    snr: tuple[float, float, float] | None
    gain: tuple[float, float, float] | None
    offset: tuple[float, float, float] | None


@dataclass(frozen=True)
class Chance:
    """The accuracy of always giving the same answer, a fraction of 1: the largest class' share, for top-5 that of five."""

    top1: float
    top5: float

    def of(self, metric: Metric) -> float:
        """Chance by a metric."""
        return self.top5 if metric == "top5" else self.top1


@dataclass(frozen=True)
class CleanHits:
    images: int
    top1_hits: int
    top5_hits: int | None
    nonfinite: int


@dataclass(frozen=True)
class InitializerInfo:
    name: str
    shape: tuple[int, ...]
    sigma_w: float


@dataclass(frozen=True)
class LayerInfo:
    """A noise layer as results show it; `sigma_w` pools the values of all its initializers."""

    index: int
    name: str
    kind: Kind
    parameters: int
    sigma_w: float
    initializers: tuple[InitializerInfo, ...]


@dataclass(frozen=True)
class Result(MeasuredModel):
    """A noise profile as far as it was measured: `measured` of `planned` passes over the images.

    `selected` has the indices of the layers that bear noise: `all` means these together. `target` is the share of the clean
    accuracy that a draw must keep to count in a yield; `precision`, of a chunked run, the half-width of `sampled` asked for.
    `realized` has the noise that each layer's values really got at each level, and `realized_layers` its range over the layers;
    both are empty where the run file has none of it yet. `runs` helps to repeat it: the command, versions and machine of every
    run that measured a part. `chance` is None where the run file tells neither labels nor classes.
    """

    metric: Metric
    clean: CleanHits
    layers: tuple[LayerInfo, ...]
    selected: tuple[int, ...]
    cells: tuple[Cell, ...]
    a_avr: tuple[Average, ...]
    warnings: tuple[Notice, ...]
    runs: tuple[dict[str, object], ...]
    measured: int
    planned: int
    design: Design = "crossed"
    target: float = 0.95
    precision: float | None = None
    realized: tuple[Realized, ...] = ()
    realized_layers: tuple[RealizedRange, ...] = ()
    chance: Chance | None = None

    def __repr__(self) -> str:
        """One line for people: what was measured, and how much of it."""
        clean = f"clean {self.told} {self.clean_hits / self.clean.images:.2%}" if self.clean.images else "nothing clean"
        return (
            f"<Result {self.about(str, self.clean.images)}: {clean}, {len(self.cells)} cells, noise {self.noise.chain}, "
            f"bn {self.bn}, {len(self.warnings)} warnings>"
        )

    def _repr_html_(self) -> str:
        """The result as a notebook shows it; what draws it stands above this module, and is imported when asked."""
        return str(import_module("onnxnoise.reports.notebook").result_html(self))

    @property
    def told(self) -> Metric:
        """The metric that tables show: top-1 where there is no top-5."""
        return "top1" if self.clean.top5_hits is None else self.metric

    @property
    def clean_hits(self) -> int:
        """The clean hits by the metric that tables show."""
        return (self.clean.top5_hits or 0) if self.told == "top5" else self.clean.top1_hits

    @property
    def normalized_chance(self) -> float | None:
        """Chance over the clean accuracy; None where one of the two isn't there."""
        if self.chance is None or not self.clean_hits:
            return None
        return self.chance.of(self.told) * self.clean.images / self.clean_hits


Shape = tuple[int | None, ...]
"""The shape of a value in a graph; None for a dimension that is free or unknown."""


Layout = Literal["nchw", "nhwc"]


@dataclass(frozen=True)
class ImageInput:
    """The graph's image input: None for a dimension that is free; layout None where the file doesn't tell.

    Its rank is 4, or another one where the model takes arrays that are no images: signals, rows of a table.

    `quantization` is the (scale, zero point) that turn an integer input q into the network's numbers, `scale * (q - zero point)`;
    None where the graph doesn't begin so.
    """

    name: str
    dtype: Literal["float32", "uint8", "int8"]
    shape: Shape
    layout: Layout | None
    quantization: tuple[float, int] | None = None

    @property
    def batch(self) -> int | None:
        """The fixed batch size, None where it is free."""
        return self.shape[0]

    def parts(self, layout: Layout) -> tuple[int | None, int | None, int | None]:
        """(height, width, channels) of a picture in this layout; the shape must have four dimensions."""
        _, first, second, third = self.shape
        return (first, second, third) if layout == "nhwc" else (second, third, first)


Verdict = Literal["pass", "fail", "inconclusive"]
