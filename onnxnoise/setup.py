"""What a measurement needs, opened and held against each other: model, card, images, provider, and how they are cut up."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property
from math import ceil
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxnoise import session
from onnxnoise.cards import Card
from onnxnoise.checks import check_fit, layout_of
from onnxnoise.images import ImageSource, open_images
from onnxnoise.images.preprocess import to_input
from onnxnoise.records import Metric, Pixels
from onnxnoise.session import Provider
from onnxnoise.spec import BenchSpec
from onnxnoise.subject import Subject, open_with_card
from onnxnoise.sweep import NoiseSpec, Probe, probe

Array = npt.NDArray[Any]

_MEMORY = 2 << 30
_LARGEST_CHUNK = 1000
"""Images: beyond this a chunk costs memory and progress, and its sessions are long paid for."""

_BATCH_BYTES = 2 << 20
"""At the largest cut: a mini-batch's values should stay in a core's cache."""

_WORKING_BYTES = 600 << 20
"""Sessions' activations, libraries, and what is decoded ahead."""

_SMALLEST_BATCH, _LARGEST_BATCH = 4, 64


@dataclass(frozen=True)
class Setup:
    """What a run needs besides its run file, opened and held against each other."""

    spec: BenchSpec
    subject: Subject
    card: Card
    images: ImageSource
    provider: Provider

    @classmethod
    def opened(cls, spec: BenchSpec) -> Setup:
        """Raises OnnxNoiseError's subclasses for whatever can't be used or does not fit together."""
        subject, card = open_with_card(spec.model, bn=spec.bn, layers=spec.layers, output=spec.output, card=spec.card)
        classifier = subject.classifier
        setup = cls(spec, subject, card, open_images(spec.data, card), session.find_provider(spec.provider))
        check_fit(spec.model, classifier.image, classifier.classes or setup.probe.classes, card, setup.images)
        return setup

    @property
    def noise(self) -> NoiseSpec:
        """What a draw's number means in this run."""
        return NoiseSpec(self.spec.seed, self.spec.sigma_scope, self.spec.bn)

    @property
    def metric(self) -> Metric:
        """What the tables show: the spec's, else the card's, else top-1."""
        return self.spec.metric or self.card.measured.metric or self.card.published.metric or "top1"

    def inputs(self, pixels: Pixels) -> Array:
        """The model's input for uint8 RGB pixels (n, height, width, 3)."""
        image = self.subject.network.image
        return to_input(pixels, self.card.input, layout_of(image, self.card), image.dtype)

    def batches(self, pixels: Pixels) -> list[Array]:
        """The model's inputs as mini-batches of one size; the last one is filled up with its last image."""
        inputs, size = self.inputs(pixels), self.batch_size(len(pixels))
        batches = [inputs[i : i + size] for i in range(0, len(inputs), size)]
        lacking = size - len(batches[-1])
        if lacking:
            batches[-1] = np.concatenate([batches[-1], np.repeat(batches[-1][-1:], lacking, axis=0)])
        return batches

    @cached_property
    def probe(self) -> Probe:
        """One pass over a blank mini-batch."""
        side, fixed = self.card.input.size, self.subject.network.image.batch
        return probe(self.subject.network, self.provider, self.inputs(np.zeros((fixed or 1, side, side, 3), np.uint8)))

    def batch_size(self, images: int) -> int:
        """Images in a mini-batch, so that the mini-batches of a chunk are about equal."""
        if self.subject.network.image.batch is not None:
            return self.subject.network.image.batch
        largest = min(max(_BATCH_BYTES // self.probe.cut_bytes, _SMALLEST_BATCH), _LARGEST_BATCH)
        return ceil(images / ceil(images / largest))

    def chunk_size(self) -> int:
        """Images whose pixels, inputs and values at the largest cut fit the memory that the model leaves."""
        weights = sum(value.nbytes for value in self.subject.network.constants.values())
        memory = self.spec.memory or _memory()
        left = max(memory - 2 * weights - _WORKING_BYTES, memory // 8)
        most = left // (self.probe.cut_bytes + self.probe.input_bytes + 6 * self.card.input.size**2)
        fixed = self.subject.network.image.batch or 1
        return max(fixed, min(_LARGEST_CHUNK, most) // fixed * fixed)


def _memory() -> int:
    """The default budget in bytes: 2 GiB, or half of the machine's memory where that is less."""
    try:
        return min(_MEMORY, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2)
    except (AttributeError, ValueError):  # not a POSIX system
        return _MEMORY
