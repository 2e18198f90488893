"""An experiment: model, card, images and provider, opened and held against each other, and how the images are cut up."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from math import ceil, prod
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxnoise.data.cards import Card
from onnxnoise.data.dealing import after, dealt, undealt
from onnxnoise.data.fit import channels_of, check_fit, layout_of
from onnxnoise.data.images import open_images
from onnxnoise.data.pixels.numbers import to_numbers
from onnxnoise.data.pixels.preprocess import described, to_input
from onnxnoise.data.sources.base import ImageSource
from onnxnoise.engine.mapped import analog_layers
from onnxnoise.engine.pieces import Pieces
from onnxnoise.engine.recalibration import Recalibration, batch_norms
from onnxnoise.engine.values import BlankPass, blank_pass
from onnxnoise.errors import DataError, ModelError
from onnxnoise.machine import memory
from onnxnoise.records import NoiseSetting, Notice, header
from onnxnoise.results.question import collapsing, is_dealt
from onnxnoise.results.run_file.store import kept_identity
from onnxnoise.run.loading import Subject, open_with_card
from onnxnoise.run.unattached import check_attached
from onnxnoise.runtime.base import Provider
from onnxnoise.runtime.providers import find_provider
from onnxnoise.spec import BenchSpec
from onnxnoise.text import counted
from onnxnoise.words import Metric

Array = npt.NDArray[Any]

_COSTLY = frozenset(("Conv", "ConvTranspose", "Gemm", "MatMul", "BatchNormalization"))
"""Operators whose cost makes it worth a notice where the provider leaves them to the CPU."""

_WORKING_BYTES = 600 << 20
"""Bytes of memory for the sessions' activations, libraries, and images decoded ahead."""


@dataclass(frozen=True)
class Experiment:
    """All that a run needs besides its run file, opened and held against each other."""

    spec: BenchSpec
    subject: Subject
    card: Card
    images: ImageSource
    provider: Provider

    @classmethod
    def opened(cls, spec: BenchSpec, *, kept: Mapping[str, Any] | None = None) -> Experiment:
        """Open all that the spec names; raises OnnxNoiseError's subclasses for what can't be used or does not fit together.

        The images of a chunked run are dealt to chunks in a random order, unless the run's file has them in the data's: `kept`
        is the identity in that file, by default read from the file that the spec names, where it is there.
        """
        subject, card = open_with_card(
            spec.model,
            bn=spec.bn,
            analog=spec.setting.analog,
            compensate=spec.compensate,
            layers=spec.layers,
            output=spec.output,
            card=spec.card,
        )
        check_attached(subject.network, spec.model, allowed=spec.allow_unattached)
        subject = replace(subject, layers=analog_layers(spec.setting, subject.network.layers, subject.layers))
        experiment = cls.joined(spec, subject, card)
        if not spec.chunked:
            return experiment
        kept = kept or (kept_identity(Path(spec.out)) if spec.out else None)
        if kept and not is_dealt(kept):
            return experiment
        return replace(experiment, images=dealt(experiment.images, experiment.count, spec.seed))

    @classmethod
    def joined(cls, spec: BenchSpec, subject: Subject, card: Card) -> Experiment:
        """Open the images of an open model and its card, and hold all three against each other."""
        classifier = subject.classifier
        channels = channels_of(spec.model, classifier.image, card)
        aside = spec.setting.calibration
        most = spec.limit and spec.limit + (aside or 0)
        images = open_images(spec.data, card, channels=channels, labels=spec.labels, most=most)
        if aside:
            batch_norms(subject.network, spec.model)
            if aside >= len(images):
                raise DataError(
                    f"{spec.data or images.name}: has {counted(len(images), 'image')}, and --compensate bn takes the first "
                    f"{aside:,} for calibration, so none is left to measure; give fewer with --calibration"
                )
            images = after(images, aside)
        experiment = cls(spec, subject, card, images, find_provider(spec.provider))
        experiment._check_fit()
        return experiment

    def under(self, card: Card) -> Experiment:
        """The experiment with another card of the same data set; images and sessions stay open, images are prepared as it says.

        Raises DataError or ModelError where the card doesn't fit. Of floats the scale that it says is not held against theirs.
        """
        spec = replace(card.input, channels=self.images.spec.channels)
        labels = self.images.labels - self.images.spec.label_offset + spec.label_offset
        other = replace(self, card=card, images=replace(self.images, spec=spec, labels=labels))
        shared = vars(other)  # where `cached_property` keeps what it has made
        shared["pieces"] = self.pieces
        if (other.images.shape, card.input.layout) == (self.images.shape, self.card.input.layout):
            shared["blank_pass"] = self.blank_pass
        other._check_fit()
        return other

    def _check_fit(self) -> None:
        classifier = self.subject.classifier
        classes = classifier.classes or self.blank_pass.classes
        check_fit(self.spec.model, classifier.image, classes, self.card, self.images, labelled=not self.spec.by_clean)

    @property
    def here(self) -> Experiment:
        """The experiment as this process runs it: its execution provider works here."""
        return self

    @property
    def collapsing(self) -> bool:
        """Whether some chips may collapse, as `results.question.collapsing` says."""
        return collapsing(self.spec.bn, ((layer.kind, len(layer.tensors)) for layer in self.subject.layers))

    @property
    def noise(self) -> NoiseSetting:
        """The noise setting: with the draw's number and the level, it decides the noise."""
        return self.spec.setting

    @property
    def header(self) -> dict[str, Any]:
        """The header of this experiment's results, as `records.header` gives it."""
        network, images = self.subject.network, self.images
        model, dataset = (network.name, network.sha256), (images.name, self.count, images.digest)
        return header(self.noise, self.provider.name, model, dataset, by_clean=self.spec.by_clean)

    @cached_property
    def recalibration(self) -> Recalibration | None:
        """The calibration images in the network, where the batch norms of each chip are recalibrated; else None."""
        aside = self.noise.calibration
        if not aside:
            return None
        (chunk,) = undealt(self.images).chunks([range(aside)])
        network = self.subject.network
        norms = batch_norms(network, self.spec.model)
        return Recalibration(network, norms, self.provider, self.batches(chunk.pixels), aside)

    @property
    def count(self) -> int:
        """The number of images asked for."""
        return min(len(self.images), self.spec.limit or len(self.images))

    @property
    def metric(self) -> Metric:
        """The metric that tables show: the spec's, else the card's, else top-1."""
        return self.spec.metric or self.card.measured.metric or self.card.published.metric or "top1"

    def inputs(self, pixels: Array) -> Array:
        """The model's input for the images of a chunk: pixels (n, height, width, channels), or other numbers (n, ...)."""
        image, spec = self.subject.network.image, self.images.spec
        layout = layout_of(image, self.card)
        if self.images.is_picture:
            return to_input(pixels, spec, layout, image.dtype, image.quantization)
        return to_numbers(pixels, spec, image.shape[1:], layout, image.dtype, image.quantization)

    def batches(self, pixels: Array) -> list[Array]:
        """The model's inputs as mini-batches of one size; the last one is filled up with copies of its last image."""
        inputs, size = self.inputs(pixels), self.batch_size(len(pixels))
        batches = [inputs[i : i + size] for i in range(0, len(inputs), size)]
        lacking = size - len(batches[-1])
        if lacking:
            batches[-1] = np.concatenate([batches[-1], np.repeat(batches[-1][-1:], lacking, axis=0)])
        return batches

    @cached_property
    def pieces(self) -> Pieces:
        """The network's pieces, ready to run, which all chunks share."""
        return Pieces(self.subject.network, self.provider, lifted=False if self.noise.calibration else None)

    @cached_property
    def blank_pass(self) -> BlankPass:
        """Sizes, classes and placement of the model; raises ModelError where a fixed batch doesn't fit into memory."""
        network = self.subject.network
        images = network.image.batch or 1
        if images > 1:
            self._check_memory(images)
        blank = self.inputs(np.zeros((images, *self.images.shape), self.images.dtype))
        return blank_pass(network, self.provider, blank, self.spec.timeout)

    def _check_memory(self, images: int) -> None:
        """Raise ModelError where the pixels, the input and the largest value of so many images take more than there may be."""
        image, each = self.subject.network.image, self.images
        number = 4 if image.dtype == "float32" else 1
        shapes = [shape for shape in self.subject.classifier.shapes.values() if shape and shape[0] == images]
        values = max((prod(side or 1 for side in shape) for shape in shapes), default=0)
        needed = images * prod(each.shape) * (each.dtype.itemsize + number) + 4 * values
        most = self.spec.memory or memory().budget
        if needed > most:
            raise ModelError(
                f"{self.spec.model}: its batch is fixed at {images:,} images, and a pass over them takes {_gib(needed)} of "
                f"memory or more, where {_gib(most)} may be used; export it with a free or a smaller batch (torch: dynamic_axes, "
                "dynamic_shapes), or allow more with --memory"
            )

    def batch_size(self, images: int) -> int:
        """The number of images in a mini-batch, chosen so that the mini-batches of a chunk are about equal."""
        if self.subject.network.image.batch is not None:
            return self.subject.network.image.batch
        largest = self.provider.batch_limits.images(self.blank_pass.cut_bytes)
        return ceil(images / ceil(images / largest))

    def chunk_size(self) -> int:
        """The number of images whose pixels, inputs and values at the largest cut fit the memory that the model leaves."""
        pixels = self.blank_pass.input_bytes + 2 * prod(self.images.shape) * self.images.dtype.itemsize
        most = self.provider.chunk_images(self.blank_pass.cut_bytes, pixels, self._host_bytes())
        fixed = self.subject.network.image.batch or 1
        return max(fixed, most // fixed * fixed)

    def together(self, images: int) -> int:
        """The number of variants that `cumulative` carries at a time, each with a chunk's values, in the memory left."""
        return max(1, self.provider.value_bytes(self._host_bytes()) // (images * self.blank_pass.stage_bytes) - 1)

    def _host_bytes(self) -> int:
        """Bytes of host memory that the model leaves for images and the values at cuts."""
        weights = sum(value.nbytes for value in self.subject.network.constants.values())
        most = self.spec.memory or memory().budget
        return max(most - 2 * weights - _WORKING_BYTES, most // 8)

    def _structure(self) -> Iterator[Notice]:
        """A notice where the card speaks of another network than the file holds."""
        network, said = self.subject.network, self.card.structure
        noise = self.noise
        if noise.bn not in ("group", "raw") or noise.analog != "all" or noise.compensate == "bn":
            return  # these count other tensors
        layers, parameters = len(network.layers), network.parameters
        if (said.layers or layers, said.parameters or parameters) != (layers, parameters):
            yield Notice(
                "card_structure",
                f"{self.card.path.name} speaks of {said.layers or '?'} layers and {said.parameters or '?'} parameters, the file "
                f"has {layers} and {parameters}: is it the card of this model? `onnxnoise cards check` tells more",
            )

    def _numbers(self) -> Iterator[Notice]:
        """A notice where the card leaves open which numbers the model gets."""
        if self.images.is_picture and not self.card.says_numbers and self.subject.network.image.dtype == "float32":
            yield Notice(
                "card_without_numbers",
                f"{self.card.path.name} sets no mean, std or preset in [input], so the model gets "
                f"{described(self.card.input, 255)}: right only if it was trained on these numbers; write them down there, or "
                "let `onnxnoise cards new` try the usual ones",
            )

    def _classes(self) -> Iterator[Notice]:
        """A notice where the card leaves its classes out, and the labels seem to be of one class fewer than the model's."""
        dataset, highest = self.card.dataset, self.images.highest_label
        outputs = self.images.classes + self.card.input.label_offset
        if dataset is not None and dataset.by_model and not self.spec.by_clean and highest == outputs - 2:
            yield Notice(
                "classes_left_out",
                f"{self.card.path.name} leaves its classes out, so the model's {outputs} outputs count, but no image is of the "
                f"last one, {outputs - 1}. If the model has a background class, say so: classes = {outputs - 1}, and if it is "
                "the first, label_offset = 1",
            )

    def notices(self) -> Iterator[Notice]:
        """Warnings about the fit of card and provider to the model."""
        if self.provider.note:
            yield Notice("gpu_unused", self.provider.note)
        if self.spec.by_clean:
            yield Notice(
                "clean_labels",
                "the labels are the clean model's own top-1 (--labels clean): every figure called accuracy is agreement with the "
                "clean model, and says nothing about whether that one is right",
            )
        yield from self._structure()
        yield from self._numbers()
        yield from self._classes()
        if not self.provider.own_memory:
            return
        left_out = {
            operator: count
            for provider, nodes in self.blank_pass.placement.items()
            for operator, count in nodes.items()
            if provider != self.provider.name and operator in _COSTLY
        }
        if left_out:
            said = ", ".join(f"{count} {operator}" for operator, count in sorted(left_out.items()))
            yield Notice(
                "cpu_nodes",
                f"{self.provider.name} has no kernel for {said} of this model: these run on the CPU, slowly",
            )


def _gib(count: int) -> str:
    return f"{count / 2**30:,.1f} GiB"
