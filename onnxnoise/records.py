"""The frozen records that cross module borders or land on disk."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from onnxnoise.words import DEFAULT_SEED as DEFAULT_SEED
from onnxnoise.words import Kind as Kind
from onnxnoise.words import Metric as Metric
from onnxnoise.words import Policy as Policy
from onnxnoise.words import SigmaScope as SigmaScope
from onnxnoise.words import Sweep as Sweep

Pixels = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
Bits = npt.NDArray[np.bool_]

Design = Literal["crossed", "nested"]
"""Crossed: every draw meets every image. Chunked: each chunk of images meets draws of its own."""

CHUNKED: Final = "nested"
"""The chunked design's name in run files and JSON, which keep the word they began with."""

Interval = tuple[float, float]


@dataclass(frozen=True)
class Notice:
    """A warning that belongs to the result: a stable `code` for programs, a `message` for people."""

    code: str
    message: str


@dataclass(frozen=True)
class ImageChunk:
    """Images that travel together: pixels uint8 RGB (n, height, width, 3), labels int64 (n,), `start` their first's position."""

    start: int
    pixels: Pixels
    labels: Labels


@dataclass(frozen=True)
class Yield:
    """Share of draws that reach `target`, with its exact (Clopper-Pearson) 95 % interval; fractions of 1."""

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
SCALE, MEAN, VARIANCE, CAFFE_SCALE, CAFFE_BIAS = 0, 2, 3, 4, 5
"""Roles of initializers in a layer: the `k` by which their noise is drawn. A batch norm's bias has the role of any bias."""


@dataclass(frozen=True)
class NoiseTensor:
    """One initializer of a noise layer.

    `name` is the file's, `value` the normalized graph's own copy of it for this layer. `role` is the noise's `k`. `shape` is
    the canonical shape, in which noise is drawn; where `transposed`, the graph stores the transpose. `sigma_w` is the
    population standard deviation, in units of the initializer.
    """

    name: str
    value: str
    role: int
    shape: tuple[int, ...]
    transposed: bool
    sigma_w: float


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
class Variant:
    """One signal-to-noise ratio (linear, sigma_w / sigma_noise) and one draw."""

    snr: float
    draw: int


TallyKey = tuple[str, int | None, float, int, int]
"""(sweep, layer, snr, draw, start of the chunk)."""


@dataclass(frozen=True)
class Tally:
    """Hits of one (sweep, layer, snr, draw) on one chunk; `sweep` is also `clean`, `layer` None for clean and all.

    `top1`, `top5` and `nonfinite` are packed bits, one an image (numpy.packbits); `top5` is empty with five classes or fewer.
    `negative_variances` counts the batch-norm channels whose variance the noise made negative, in this draw.
    """

    sweep: str
    layer: int | None
    snr: float
    draw: int
    start: int
    images: int
    top1: bytes
    top5: bytes
    nonfinite: bytes
    negative_variances: int

    @property
    def key(self) -> TallyKey:
        return self.sweep, self.layer, self.snr, self.draw, self.start

    def hits(self, metric: Metric) -> int:
        """How many images hit; top-1's where there is no top-5."""
        packed = self.top5 if metric == "top5" and self.top5 else self.top1
        return int.from_bytes(packed).bit_count()


@dataclass(frozen=True)
class DrawHits:
    """Hits of one draw over all its images, and the clean hits on the same images; top-5 None with five classes or fewer."""

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
    """One (sweep, layer, snr): what each draw hit; accuracies as fractions of the clean ones, and as fractions of 1.

    A normalized accuracy is None where the clean pass has no hit to divide by; top-5 is with five classes or fewer. `precise`
    says, where a precision was asked for, whether the half-width of `sampled` has got there, in the metric of the result.
    """

    sweep: Sweep
    layer: int | None
    snr: float
    draws: tuple[DrawHits, ...]
    normalized_top1: Estimate | None
    normalized_top5: Estimate | None
    accuracy_top1: Estimate | None = None
    accuracy_top5: Estimate | None = None
    precise: bool | None = None

    def normalized(self, metric: Metric) -> Estimate | None:
        """The normalized accuracy by a metric."""
        return self.normalized_top5 if metric == "top5" else self.normalized_top1


@dataclass(frozen=True)
class Average:
    """`A_avr`: the mean of A_i over `layers` noise layers at one SNR."""

    sweep: Sweep
    snr: float
    layers: int
    top1: Estimate
    top5: Estimate | None


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
class Result:
    """A profile, as far as it went: `measured` of `planned` passes over the images.

    `selected` has the indices of the layers that bear noise: `all` means these together. `target` is the share of the clean
    accuracy that a draw must keep to count in a yield; `precision`, of a chunked run, the half-width of `sampled` asked for.
    `runs` has what someone needs to repeat it: command, versions and machine of every run that measured a part.
    """

    model: dict[str, str]
    provider: str
    dataset: dict[str, str | int]
    seed: int
    bn: Policy
    sigma_scope: SigmaScope
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

    @property
    def told(self) -> Metric:
        """The metric that tables show: top-1 where there is no top-5."""
        return "top1" if self.clean.top5_hits is None else self.metric


Shape = tuple[int | None, ...]
"""None for a dimension that is free or unknown."""


Layout = Literal["nchw", "nhwc"]


@dataclass(frozen=True)
class ImageInput:
    """The graph's image input: rank 4, None for a dimension that is free; layout None where the file doesn't tell."""

    name: str
    dtype: Literal["float32", "uint8"]
    shape: Shape
    layout: Layout | None

    @property
    def batch(self) -> int | None:
        """The fixed batch size, None where it is free."""
        return self.shape[0]


Verdict = Literal["pass", "fail", "inconclusive"]
