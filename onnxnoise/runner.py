"""A whole run: model, card and images opened and checked against each other, then every missing chunk measured and kept."""

from __future__ import annotations

import hashlib
import os
import platform
import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from math import ceil, exp, lgamma, log
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from onnxnoise import session
from onnxnoise.batchnorm import noise_layers
from onnxnoise.cards import Card, bundled_names, find_card, load_bundled
from onnxnoise.classifier import Classifier, ImageInput, load_classifier
from onnxnoise.errors import DataError, ModelError
from onnxnoise.images import ImageSource, open_images
from onnxnoise.images.preprocess import to_input
from onnxnoise.network import Network
from onnxnoise.records import ImageChunk, InitializerInfo, LayerInfo, Metric, NoiseLayer, Notice, Result, Tally, Variant
from onnxnoise.results import Question, summarize
from onnxnoise.session import Provider
from onnxnoise.spec import BenchSpec, select_layers
from onnxnoise.store import RunStore, TallyKey
from onnxnoise.sweep import ChunkSweep, NoiseSpec, probe

Array = npt.NDArray[Any]

_MEMORY = 2 << 30
_LARGEST_CHUNK = 1000
"""Images: beyond this a chunk costs memory and progress, and its sessions are long paid for."""

_BATCH_BYTES = 8 << 20
_LARGEST_BATCH = 64


class Watcher(Protocol):
    """Who is told how a run goes; see `Silent` for one that does not care."""

    def started(self, run: Run) -> None: ...
    def measured(self, tally: Tally) -> None: ...


class Silent:
    """A watcher that shows nothing."""

    def started(self, run: Run) -> None: ...
    def measured(self, tally: Tally) -> None: ...


@dataclass(frozen=True)
class Subject:
    """A model file with its noise layers under one policy, and the card it was found by, if that was asked for."""

    classifier: Classifier
    network: Network
    layers: tuple[NoiseLayer, ...]


@dataclass(frozen=True)
class Run:
    """An opened run: what is measured, on what, and what of it is still missing (`todo`, by chunk)."""

    spec: BenchSpec
    subject: Subject
    card: Card
    images: ImageSource
    provider: Provider
    question: Question
    store: RunStore
    todo: dict[range, list[TallyKey]]

    @property
    def planned(self) -> int:
        """Image passes: one image through one variant."""
        return self.question.planned * self.question.images

    @property
    def missing(self) -> int:
        return sum(len(chunk) for chunk, keys in self.todo.items() for key in keys if key[0] != "clean")


def open_model(model: str, *, bn: str, layers: str | None, output: str | None) -> Subject:
    """The noise layers of a file or of a bundled card's model.

    Raises ModelError if the file can't be used, UsageError for a pattern that matches nothing.
    """
    classifier = load_classifier(_model_path(model), output=output)
    network = noise_layers(classifier, bn)  # type: ignore[arg-type]
    return Subject(classifier, network, select_layers(network.layers, layers))


def _model_path(model: str) -> Path:
    path = Path(model)
    if path.exists():
        return path
    if model not in bundled_names():
        raise ModelError(
            f"{model}: no such file, and no bundled model of that name (bundled: {', '.join(_bundled_models())})"
        )
    card = load_bundled(model)
    if card.model.file is None:
        raise ModelError(
            f"{model}: the card comes without weights; pass the model file, and --card {model}"
            + (f". They are from {card.model.source}" if card.model.source else "")
        )
    return card.model.file


def _bundled_models() -> list[str]:
    return [name for name in bundled_names() if load_bundled(name).model.file is not None]


def bench(spec: BenchSpec, watcher: Watcher | None = None, threads: int | None = None) -> Result:
    """Measure a noise profile, or what is missing of it in the run file, and return its result.

    Raises OnnxNoiseError's subclasses with what to do; a KeyboardInterrupt leaves everything measured so far in the run file.
    """
    watcher = watcher or Silent()
    run = open_run(spec)
    with run.store:
        watcher.started(run)
        if run.todo:
            _measure(run, watcher, threads)
        result = summarize(run.store, run.question)
    assert result is not None, "a finished run has its clean pass"
    return result


def open_run(spec: BenchSpec) -> Run:
    """Everything opened and checked, nothing measured yet."""
    subject = open_model(spec.model, bn=spec.bn, layers=spec.layers, output=spec.output)
    network, classifier = subject.network, subject.classifier
    card = find_card(
        classifier.path, spec.card or (spec.model if not Path(spec.model).exists() else None), classifier.metadata
    )
    images = open_images(spec.data, card)
    provider = session.find_provider(spec.provider)
    _check_fit(network, card, images, spec)
    count = min(len(images), spec.limit or len(images))
    metric: Metric = spec.metric or card.measured.metric or card.published.metric or "top1"
    indices = tuple(layer.index for layer in subject.layers)
    question = Question(spec.snrs, spec.sweeps, spec.draws, count, indices, metric)
    path = Path(spec.out or f"{network.name}-{network.sha256[:8]}.sqlite")
    identity = {
        "model": network.sha256,
        "data": images.digest,
        "seed": spec.seed,
        "bn": spec.bn,
        "sigma_scope": spec.sigma_scope,
        "layers": list(indices),
        "preprocessing": {**asdict(card.input), "layout": _layout(network.image, card)},
        "output": network.logits,
        "provider": provider.name,
    }
    description = {
        "model": network.name,
        "dataset": images.name,
        "layers": [asdict(layer_info(layer)) for layer in network.layers],
        "notices": [asdict(notice) for notice in network.notices],
        "run": _provenance(spec, provider),
    }
    store = RunStore.open(path, identity, description)
    try:
        done, todo = store.done(), {}
        for chunk in store.lay_down(count, lambda: _chunk_size(network, card, provider)):
            keys = [key for key in _keys(question, chunk.start) if key not in done]
            if keys:
                todo[chunk] = keys
    except BaseException:
        store.close()
        raise
    return Run(spec, subject, card, images, provider, question, store, todo)


def _keys(question: Question, start: int) -> list[TallyKey]:
    variants = [(snr, draw) for draw in range(question.draws) for snr in question.snrs]
    keys: list[TallyKey] = [("clean", None, float("inf"), 0, start)]
    if "all" in question.sweeps:
        keys += [("all", None, snr, draw, start) for snr, draw in variants]
    if "single" in question.sweeps:
        keys += [("single", layer, snr, draw, start) for layer in question.layers for snr, draw in variants]
    return keys


def layer_info(layer: NoiseLayer) -> LayerInfo:
    """A noise layer as results show it."""
    return LayerInfo(
        layer.index,
        layer.name,
        layer.kind,
        layer.parameters,
        layer.sigma_w,
        tuple(InitializerInfo(tensor.name, tensor.shape, tensor.sigma_w) for tensor in layer.tensors),
    )


def _check_fit(network: Network, card: Card, images: ImageSource, spec: BenchSpec) -> None:
    """Model, card and data must speak of the same images and classes."""
    expected = images.classes + card.input.label_offset
    if network.classes is not None and network.classes != expected:
        raise DataError(
            f"{spec.model} tells {network.classes} classes apart, but {images.name} has {images.classes}"
            + (f" (and the card a label_offset of {card.input.label_offset})" if card.input.label_offset else "")
            + f"; pass the data it was trained for (--data), or another card than {card.path}"
        )
    layout = _layout(network.image, card)
    height, width = network.image.shape[2:] if layout == "nchw" else network.image.shape[1:3]
    channels = network.image.shape[1 if layout == "nchw" else 3]
    if channels not in (None, 3):
        raise ModelError(f"{spec.model}: its input has {channels} channels in layout {layout}; images have 3 (RGB)")
    if any(side not in (None, card.input.size) for side in (height, width)):
        raise ModelError(
            f"{spec.model} takes images of {height}x{width}, but {card.path} makes them {card.input.size}x{card.input.size}; "
            "set crop or size in the card's [input]"
        )


def _layout(image: ImageInput, card: Card) -> Literal["nchw", "nhwc"]:
    return card.input.layout if card.input.layout != "auto" else image.layout or "nchw"


def _provenance(spec: BenchSpec, provider: Provider) -> dict[str, object]:
    return {
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {
            "onnxnoise": version("onnxnoise"),
            "onnxruntime": session.VERSION,
            **{name: version(name) for name in ("onnx", "onnx-ir", "numpy", "pillow")},
            "python": platform.python_version(),
        },
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} processors",
        "spec": asdict(spec),
        "provider_options": dict(provider.options),
    }


def _memory() -> int:
    try:
        return min(_MEMORY, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2)
    except (AttributeError, ValueError):
        return _MEMORY


def _blank(network: Network, card: Card, count: int) -> Array:
    pixels = np.zeros((count, card.input.size, card.input.size, 3), np.uint8)
    return to_input(pixels, card.input, _layout(network.image, card), network.image.dtype)


def _chunk_size(network: Network, card: Card, provider: Provider) -> int:
    """Images whose values at the largest cut, and inputs, fit the memory that the model leaves."""
    cut = probe(network, provider, _blank(network, card, network.image.batch or 1))
    weights = sum(value.nbytes for value in network.constants.values())
    side = card.input.size
    left = max(_memory() - 2 * weights - (256 << 20), _memory() // 8)
    return int(max(1, min(_LARGEST_CHUNK, left // (cut + side * side * 3 * 9))))


def _batch_size(network: Network, card: Card, provider: Provider, images: int) -> int:
    if network.image.batch is not None:
        return network.image.batch
    cut = probe(network, provider, _blank(network, card, 1))
    largest = max(1, min(_LARGEST_BATCH, _BATCH_BYTES // cut))
    return ceil(images / ceil(images / largest))


def _measure(run: Run, watcher: Watcher, threads: int | None) -> None:
    network, spec = run.subject.network, run.spec
    noise = NoiseSpec(spec.seed, spec.sigma_scope, spec.bn)
    ranges = list(run.todo)
    batch = _batch_size(network, run.card, run.provider, len(ranges[0]))
    checked = False
    for chunk, positions in zip(run.images.chunks(ranges), ranges, strict=True):
        keys = run.todo[positions]
        run.store.check_images(chunk.start, _digest(chunk))
        inputs = to_input(chunk.pixels, run.card.input, _layout(network.image, run.card), network.image.dtype)
        sweep = ChunkSweep(
            network,
            noise,
            run.provider,
            _batches(inputs, batch),
            chunk.labels,
            chunk.start,
            threads=threads,
            step=watcher.measured,
        )
        if keys[0][0] == "clean":
            clean = sweep.clean()
            run.store.append([clean])
        if not checked:
            _check_clean(run)
            checked = True
        whole = [Variant(snr, draw) for kind, _, snr, draw, _ in keys if kind == "all"]
        for tallies in sweep.all(whole, run.subject.layers):
            run.store.append(tallies)
        single: dict[int, list[Variant]] = {}
        for kind, layer, snr, draw, _ in keys:
            if kind == "single" and layer is not None:
                single.setdefault(layer, []).append(Variant(snr, draw))
        for tallies in sweep.single(single):
            run.store.append(tallies)


def _digest(chunk: ImageChunk) -> str:
    digest = hashlib.sha256(chunk.pixels.data)
    digest.update(chunk.labels.data)
    return digest.hexdigest()


def _batches(inputs: Array, size: int) -> Sequence[Array]:
    """Mini-batches of one size; the last one is filled up with its last image."""
    batches = [inputs[i : i + size] for i in range(0, len(inputs), size)]
    lacking = size - len(batches[-1])
    if lacking:
        batches[-1] = np.concatenate([batches[-1], np.repeat(batches[-1][-1:], lacking, axis=0)])
    return batches


def _check_clean(run: Run) -> None:
    """Stop before any noise where the clean accuracy is impossible for the card's figure: the preprocessing is wrong."""
    result = summarize_clean(run)
    images, hits, metric = result
    figure = next(
        (f for f in (run.card.measured, run.card.published) if f.clean is not None and f.metric == metric), None
    )
    if hits == 0:
        raise DataError(
            f"{run.spec.model}: none of {images} images is classified correctly without noise, "
            "so there is nothing to normalize by; "
            f"check the card's [input] ({run.card.path}): {_described(run)}"
        )
    if figure is None or figure.clean is None or not run.spec.clean_check:
        return
    if _tail(hits, images, figure.clean) < 0.0005:
        raise DataError(
            f"{run.spec.model}: {metric} without noise is {hits / images:.1%} on {images} images, but "
            f"{run.card.path} says {figure.clean:.1%}: outside its 99.9 % interval. The preprocessing used was {_described(run)}; "
            "correct the card, or go on with --no-clean-check"
        )


def _described(run: Run) -> str:
    spec = run.card.input
    size = f"resize {spec.resize} {spec.interpolation}, crop {spec.size}" if spec.resize else f"size {spec.size}"
    return (
        f"{size}, {spec.color}, {_layout(run.subject.network.image, run.card)}, "
        f"(pixel/{spec.scale or 255:g} - {list(spec.mean)})/{list(spec.std)}, label offset {spec.label_offset}"
    )


def summarize_clean(run: Run) -> tuple[int, int, Metric]:
    """(images, clean hits, metric) of the clean passes done so far."""
    images = hits = 0
    metric: Metric = run.question.metric
    for tally in run.store.tallies("clean"):
        packed = getattr(tally, metric) or tally.top1
        images += tally.images
        hits += int(np.unpackbits(np.frombuffer(packed, np.uint8), count=tally.images).sum())
    return images, hits, metric


def _tail(hits: int, trials: int, p: float) -> float:
    """The smaller of P(X <= hits) and P(X >= hits) of a binomial distribution."""

    def mass(k: int) -> float:
        ways = lgamma(trials + 1) - lgamma(k + 1) - lgamma(trials - k + 1)
        return exp(ways + k * log(p) + (trials - k) * log1p_minus(p))

    def log1p_minus(q: float) -> float:
        return log(1 - q) if q < 1 else -745.0

    return min(sum(map(mass, range(hits + 1))), sum(map(mass, range(hits, trials + 1))))
