"""The request for a noise profile, validated once. Its fields also say how people give them: each flag is written here."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass, replace
from functools import cached_property
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from onnxnoise.errors import UsageError
from onnxnoise.fields import check, flag, flags_of
from onnxnoise.noise import FROM_FILES, MODELS
from onnxnoise.words import (
    ANALOG,
    COMPENSATIONS,
    DEFAULT_SEED,
    METRICS,
    PAPER_SNRS,
    POLICIES,
    SIGMA_SCOPES,
    SWEEPS,
    Analog,
    Compensation,
    Metric,
    Policy,
    SigmaScope,
    Sweep,
)

if TYPE_CHECKING:
    from onnxnoise.noise.base import Level
    from onnxnoise.noise.models import Chain
    from onnxnoise.records import NoiseSetting

DEFAULT_SWEEPS: tuple[Sweep, ...] = ("single", "all")
DEFAULT_DRAWS = 3
"""The draws of --protocol paper, and the passes over all images after which a cell of the chunked design ends at the latest."""

DEFAULT_PRECISION = 0.01
CALIBRATION_IMAGES = 512
"""The number of images on which batch norms are recalibrated where none is asked for."""

UNLIMITED_DRAWS = 1024
"""The most draws of a run that ends with its budget, where that many are more than DEFAULT_DRAWS passes over all images."""


class OwnData:
    """Images and labels that a program gives in the place of a path: arrays (x, y), or a collection of pairs with a length."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __deepcopy__(self, _: object) -> OwnData:
        return self

    def __str__(self) -> str:
        return "data given in Python"


@dataclass(frozen=True)
class BenchSpec:
    """A noise profile to measure. None means the default that the flag's help names.

    `model` is a path or a bundled card's name. `data` is a path, a bundled set's name, python:FILE.py:NAME, a tuple of arrays
    (x, y), or a collection of pairs (image, label) with a length.
    `target` is the share of the clean accuracy that a draw must keep to count in a
    yield, `memory` the most bytes to use. `workers` are processes on this machine, `cluster` the address of a Dask scheduler,
    `resources` what a task takes of its worker. With `draws` the design is crossed: every draw meets every image. Without, it is
    chunked: each chunk of images meets draws of its own, until the half-width of the `sampled` interval is at most `precision`
    (0: never), at most `max_draws`; `budget` is the seconds that may be spent. `shard` (i, n) asks for every n-th chunk from the
    i-th on, counted from 1. Raises UsageError for a value that no run could use.
    """

    model: str = flag(
        "",
        "MODEL",
        "An ONNX file, or a bundled model's name (resnet20-cifar10)",
        at="bench margin plan apply layers check",
    )
    card: str | None = flag(
        "--card",
        "FILE|NAME",
        "How the model wants its images",
        default=None,
        syntax="path",
        by_default="beside the model",
        at="bench gate rules margin plan check",
    )
    data: str | OwnData | Any | None = flag(
        "--data",
        "PATH|NAME",
        "The images",
        default=None,
        syntax="path",
        by_default="the bundled sample, if there is one",
        at="bench compare gate rules margin plan",
    )
    snrs: tuple[float, ...] | None = flag(
        "--snr",
        "LIST",
        "sigma_w / sigma_noise of gaussian noise, an amplitude ratio: 10 is noise of 10 %, inf is none",
        default=None,
        syntax="numbers",
        example="100,10,5",
        by_default=f"the paper's {','.join(f'{snr:g}' for snr in PAPER_SNRS)}",
        at="bench compare plan apply",
    )
    sweeps: tuple[Sweep, ...] = flag(
        "--sweep",
        "LIST",
        "single: noise in one layer at a time; cumulative: in layers 1 to L, for every L; all: in all together",
        default=DEFAULT_SWEEPS,
        syntax="words",
        choices=SWEEPS,
        at="bench",
    )
    draws: int | None = flag(
        "--draws",
        "N",
        "Every one of N noise realizations (chips) meets every image: for yield and worst chip, 40 or more to rely on",
        default=None,
        syntax="whole",
        least=1,
        by_default="each chunk of images meets chips of its own",
        at="bench",
    )
    seed: int = flag(
        "--seed",
        "N",
        "Seed of the noise",
        default=DEFAULT_SEED,
        syntax="whole",
        least=0,
        at="bench compare gate rules margin plan apply",
    )
    layers: str | None = flag(
        "--layers",
        "PATTERN",
        "Only these layers: globs on names, kinds, indices or ranges, as conv1*,dense,1-10",
        default=None,
        by_default="all",
        at="bench margin plan apply layers",
    )
    bn: Policy = flag(
        "--bn",
        None,
        "Batch norms. group: noise on all four tensors, a negative variance stored as 0; raw: the variance kept; affine: on "
        "scale and shift; fold: merged into the layer before; clean: no noise",
        default="group",
        choices=POLICIES,
        at="bench compare gate rules margin plan apply layers",
    )
    sigma_scope: SigmaScope = flag(
        "--sigma-scope",
        None,
        "One sigma_w for each tensor, or pooled over a layer",
        default="tensor",
        choices=SIGMA_SCOPES,
        at="bench compare gate rules margin plan apply layers",
    )
    metric: Metric | None = flag(
        "--metric",
        None,
        "What the tables show",
        default=None,
        choices=METRICS,
        by_default="the card's, else top1",
        at="bench compare margin plan",
    )
    limit: int | None = flag(
        "--limit",
        "N",
        "Only the first N images; of class folders one of each class in turn",
        default=None,
        syntax="whole",
        least=1,
        by_default="all",
        at="bench compare gate rules margin plan check",
    )
    target: float = flag(
        "--target",
        "SHARE",
        "Accuracy / clean to keep: by the mean over chips in margin and plan, by a chip to count in the yield",
        default=0.95,
        syntax="number",
        example="0.95",
        at="bench margin plan",
    )
    memory: int | None = flag(
        "--memory",
        "SIZE",
        "Most memory to use, as 4GB",
        default=None,
        syntax="bytes",
        example="4GB",
        by_default="2 GiB, or half of what is there",
        at="bench margin plan",
    )
    timeout: float = flag(
        "--timeout",
        "TIME",
        "The most time for a first pass over a few images",
        default=600.0,
        syntax="seconds",
        example="10m",
        by_default="10m",
        at="bench compare gate margin plan",
    )
    provider: str = flag(
        "--provider",
        "auto|cpu|cuda|NAME",
        "ONNX Runtime's execution provider; `onnxnoise doctor` says what works here",
        default="auto",
        choices=("auto", "cpu", "cuda"),
        by_default="{}, CUDA where a GPU works",
        at="bench compare gate rules margin plan",
    )
    output: str | None = flag(
        "--output",
        "NAME",
        "The graph output with the logits",
        default=None,
        at="bench gate rules margin plan apply layers check",
    )
    out: str | None = flag(
        "--out",
        "FILE",
        "Run file, whose folder is made; the same command continues it, and levels, sweeps and draws may grow",
        default=None,
        by_default="named by model, what is unusual and 8 digits, here",
        at="bench gate margin plan",
    )
    clean_check: bool = flag(
        "--clean-check/--no-clean-check",
        None,
        "Stop where the clean accuracy can't be the card's",
        default=True,
        at="bench compare gate rules margin plan",
    )
    allow_unattached: bool = flag(
        "--allow-unattached",
        None,
        "Measure a network though more than 1 % of its parameters belong to no layer and stay without noise",
        default=False,
        at="bench compare margin plan apply",
    )
    workers: int | None = flag(
        "--workers",
        "N",
        "So many processes on this machine: one for each GPU, or a share of the cores each",
        default=None,
        syntax="whole",
        least=1,
        by_default="this process",
        at="bench gate",
    )
    cluster: str | None = flag(
        "--cluster",
        "ADDRESS",
        "Measure on a Dask cluster's workers (tcp://scheduler:8786)",
        default=None,
        at="bench",
    )
    resources: tuple[tuple[str, float], ...] = flag(
        "--cluster-resources",
        "NAME=N",
        "What each task takes of its Dask worker (GPU=1)",
        default=(),
        syntax="amounts",
        example="GPU=1",
        at="bench",
    )
    shard: tuple[int, int] | None = flag(
        "--shard",
        "I/N",
        "Only every N-th chunk of images; `onnxnoise merge` joins the N run files",
        default=None,
        syntax="share",
        example="3/8",
        at="bench",
    )
    _: KW_ONLY
    noise: str = flag(
        "--noise",
        "STEP[+STEP...]",
        "Noise model, or a chain of several, as quantize:4+pcm+stuck:0.001; a step's level and other parameters follow a colon "
        "(relative:0.05,range=1); `onnxnoise noise` lists the models",
        default="gaussian",
        choices=tuple(name for name in MODELS if name not in FROM_FILES),
        after="data",
        at="bench compare gate rules margin plan apply",
    )
    labels: str | None = flag(
        "--labels",
        "clean|FILE",
        "clean: the clean model's own top-1 is the label, so that any images will do and accuracy is agreement with it; or an "
        ".npy of labels, where --data is an array of images alone",
        default=None,
        syntax="path",
        by_default="in the data, or beside it",
        after="data",
        at="bench compare gate rules margin plan",
    )
    levels: tuple[float, ...] | None = flag(
        "--levels",
        "LIST",
        "What is swept of any noise model: eta of relative (0.05 is noise of 5 % of max |w|), times of devices (1s,1h,1d,1y)",
        default=None,
        syntax="levels",
        example="0.02,0.05,0.1",
        by_default="the model's own",
        after="snrs",
        at="bench compare plan apply",
    )
    scale: str | None = flag(
        "--scale",
        "tensor|channel|tile:N",
        "What max |w| is taken over: the tensor, each output channel, or N inputs of one",
        default=None,
        by_default="tensor; of afm tile:512",
        choices=("tensor", "channel", "tile:512"),
        after="levels",
        at="bench compare gate rules margin plan apply",
    )
    analog: Analog | None = flag(
        "--analog",
        None,
        "What bears noise: all initializers, or only the kernels of convolutions, dense and recurrent layers",
        default=None,
        choices=ANALOG,
        by_default="all for gaussian, else kernels",
        after="scale",
        at="bench compare gate rules margin plan apply layers",
    )
    precision: float | None = flag(
        "--precision",
        "SHARE",
        "Without --draws: each cell ends when its 95 % interval is +- this share of the clean accuracy; 0 for never",
        default=None,
        syntax="number",
        example="0.01",
        by_default="0.01; with --budget 0",
        after="draws",
        at="bench",
    )
    max_draws: int | None = flag(
        "--max-draws",
        "N",
        "Without --draws: the most draws of a cell",
        default=None,
        syntax="whole",
        least=2,
        by_default="as many as make three passes over the images",
        after="precision",
        at="bench",
    )
    budget: float | None = flag(
        "--budget",
        "TIME",
        "Stop after this time (10m, 1h30m); says how precise it got",
        default=None,
        syntax="seconds",
        example="10m, 90s or 1h30m",
        after="max_draws",
        at="bench gate",
    )

    compensate: Compensation = flag(
        "--compensate",
        None,
        "What is done about a chip's noise. drift: what is read is scaled, one factor a kernel, to the size that was programmed; "
        "bn: the statistics of the batch norms are moved by what the noise does to them on calibration images",
        default="none",
        choices=COMPENSATIONS,
        after="analog",
        at="bench compare gate rules margin plan apply",
    )
    calibration: int | None = flag(
        "--calibration",
        "N",
        "Images for --compensate bn: the first N, which are not measured then",
        default=None,
        syntax="whole",
        least=2,
        by_default=str(CALIBRATION_IMAGES),
        after="compensate",
        at="bench compare gate rules margin plan",
    )
    noise_map: str | None = flag(
        "--noise-map",
        "FILE",
        'TOML file that gives single layers their noise: [layers] with lines as "conv1,dense" = "digital"; other layers have '
        "that of --noise",
        default=None,
        syntax="path",
        after="calibration",
        at="bench compare gate rules margin plan apply",
    )

    @property
    def by_clean(self) -> bool:
        """Whether the labels are the clean model's own top-1."""
        return self.labels == "clean"

    @property
    def chunked(self) -> bool:
        """Whether each chunk of images meets draws of its own; noise in which nothing is random has one draw for all."""
        return self.draws is None and not self.deterministic

    @property
    def deterministic(self) -> bool:
        """Whether nothing of the noise is random in any layer, so that all draws are one chip."""
        from onnxnoise.noise.models import deterministic

        return deterministic(self.setting)

    @property
    def goal(self) -> float | None:
        """The half-width at which a cell of the chunked design ends; None where none ends before it has all draws allowed."""
        if not self.chunked:
            return None
        usual = DEFAULT_PRECISION if self.budget is None else 0.0
        return (usual if self.precision is None else self.precision) or None

    def most_draws(self, chunks: int) -> int:
        """The most draws that a cell can have, where the images lie in so many chunks.

        Of noise in which nothing is random all draws are one chip.
        """
        if self.deterministic:
            return 1
        if self.draws is not None:
            return self.draws
        passes = DEFAULT_DRAWS * chunks
        return self.max_draws or (passes if self.budget is None else max(passes, UNLIMITED_DRAWS))

    @cached_property
    def setting(self) -> NoiseSetting:
        """The noise setting; noise that is not white and gaussian is on kernels only unless `analog` says otherwise."""
        from onnxnoise.noise.maps import read_map
        from onnxnoise.noise.models import chain_of, parse_chain
        from onnxnoise.records import NoiseSetting

        steps = parse_chain(self.noise)
        mapped = None if self.noise_map is None else read_map(self.noise_map, steps)
        every = [*steps, *(step for each in (mapped.entries if mapped else ()) for step in each.steps or ())]
        white = all(step.name == "gaussian" for step in every)
        return NoiseSetting(
            steps,
            self.seed,
            self.bn,
            self.sigma_scope,
            self.scale or chain_of(NoiseSetting(steps)).scale,
            self.analog or ("all" if white else "kernels"),
            self.compensate,
            (self.calibration or CALIBRATION_IMAGES) if self.compensate == "bn" else 0,
            mapped,
        )

    @cached_property
    def chain(self) -> Chain:
        """The noise models of the setting, one after the other."""
        from onnxnoise.noise.models import chain_of

        return chain_of(self.setting)

    @property
    def level(self) -> Level:
        """The number that is swept: a signal-to-noise ratio, or another noise model's level."""
        from onnxnoise.noise.models import level_of

        return level_of(self.setting)

    @property
    def swept(self) -> tuple[float, ...]:
        """The levels to measure: those that are given, else the noise model's defaults."""
        if self.levels is not None:
            return self.levels
        if self.snrs is not None:
            return self.snrs
        mapped = self.setting.noise_map
        return self.level.defaults if mapped is not None and mapped.whole else self.chain.levels

    @property
    def only(self) -> float | None:
        """The one level where nothing can be swept, since every step has its level written or takes but one; else None."""
        mapped = self.setting.noise_map
        steps = (step for each in (mapped.entries if mapped else ()) for step in each.steps or ())
        return None if any(step.level is None for step in steps) else self.chain.written

    def at(self, *levels: float) -> BenchSpec:
        """A copy of the spec with these levels in place of its own."""
        return replace(self, snrs=None, levels=levels)

    def _check_noise(self) -> None:
        from onnxnoise.noise.base import check_scale
        from onnxnoise.noise.models import readable

        level, mapped = self.level, self.setting.noise_map
        scale = check_scale(self.setting.scale)
        given = self.snrs or self.levels
        if mapped is not None and mapped.whole and given is not None and given != level.defaults:
            raise UsageError(
                f"{'--snr' if self.levels is None else '--levels'}: {self.noise_map} gives every layer its level, so none is "
                "swept; leave it out"
            )
        if level.only is None and self.only is not None and given is not None and set(given) != {self.only}:
            raise UsageError(
                f"{'--snr' if self.levels is None else '--levels'}: {readable(self.setting)} has its level written, so none is "
                "swept; leave it out, or write the step without its level"
            )
        self._check_compensation()
        if self.snrs is not None and level.name != "SNR":
            raise UsageError(
                f"--snr: the noise {self.noise} has no signal-to-noise ratio but {level.name}; write --levels {level.example}"
            )
        if self.snrs is not None and self.levels is not None:
            raise UsageError("--levels and --snr both say what is swept; leave out one")
        if scale != "tensor" and self.noise == "gaussian":
            raise UsageError("--scale: is of noise in units of max |w|; gaussian noise has --sigma-scope")
        for value in self.swept:
            level.check(value, "--levels" if self.levels is not None else level.flag)

    def _check_compensation(self) -> None:
        from onnxnoise.noise.models import drifts

        if self.calibration is not None and self.compensate != "bn":
            raise UsageError("--calibration: is the number of images for --compensate bn; give both, or leave it out")
        if self.compensate == "bn" and self.bn in ("fold", "affine"):
            raise UsageError(
                f"--compensate bn: --bn {self.bn} merges the statistics of the batch norms into other numbers, so there are none "
                "to recompute; use --bn group or --bn clean"
            )
        if self.compensate == "drift" and not drifts(self.setting):
            raise UsageError(
                f"--compensate drift: {self.setting.chain} does not drift, so there is nothing to compensate; it is for devices, "
                "as --noise pcm"
            )

    def __post_init__(self) -> None:
        """Raise UsageError for a value that no run could use."""
        if self.data is not None and not isinstance(self.data, str | OwnData):
            own = str(self.data) if isinstance(self.data, PurePath) else OwnData(self.data)
            object.__setattr__(self, "data", own)
        if isinstance(self.data, OwnData) and (self.workers is not None or self.cluster is not None):
            raise UsageError(
                "workers and cluster: the data is in this process alone; save it as an .npz, or give python:FILE.py:NAME, a "
                "function that every worker can call"
            )
        for name, each in flags_of(BenchSpec).items():
            check(each, getattr(self, name))
        self._check_noise()
        if self.deterministic and (self.precision is not None or self.budget is not None):
            asked = "--precision" if self.precision is not None else "--budget"
            raise UsageError(f"{asked} is for draws, and nothing of {self.noise} is random: it has one; leave it out")
        if not 0 < self.target <= 1:
            raise UsageError(
                f"--target: {self.target:g} is no share of the clean accuracy; give a number above 0, up to 1"
            )
        if self.precision is not None and not 0 <= self.precision < 1:
            raise UsageError(
                f"--precision: {self.precision:g} is no half-width of an interval; give a share of the clean accuracy, as 0.01, "
                "or 0 for no end before all draws"
            )
        if not self.timeout > 0:
            raise UsageError(f"--timeout: {self.timeout:g} s is no time to run in; write for example --timeout 10m")
        given = ("--precision", self.precision), ("--budget", self.budget), ("--max-draws", self.max_draws)
        if self.draws is not None and (others := [name for name, value in given if value is not None]):
            raise UsageError(
                f"--draws is a fixed number, every draw on every image, and {others[0]} asks for as many draws as it takes; "
                "leave out one of the two (--max-draws bounds the others)"
            )
        if self.budget is not None and self.shard is not None:
            raise UsageError(
                "--shard: a shard doesn't end with --budget but with its part of the draws; leave out --budget"
            )
        if self.workers is not None and self.cluster is not None:
            raise UsageError("--workers are processes on this machine, --cluster has workers of its own; leave out one")
        if self.resources and self.cluster is None:
            raise UsageError("--cluster-resources are those of Dask workers; give --cluster too")
        if self.shard is not None and not 1 <= self.shard[0] <= self.shard[1]:
            raise UsageError(f"--shard: {self.shard[0]}/{self.shard[1]} is none; with N shards they are 1/N to N/N")


def only_level(spec: BenchSpec) -> float:
    """The level of a command that takes one; raises UsageError where none is given, or several are."""
    levels, flag_name = spec.swept, spec.level.flag
    if len(levels) == 1:
        return levels[0]
    given = "none is given" if spec.snrs is None and spec.levels is None else f"{len(levels)} are given"
    raise UsageError(
        f"{flag_name}: {given}, but this takes one; write for example {flag_name} {levels[len(levels) // 2]:g}"
    )
