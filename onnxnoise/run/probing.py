"""Proves, before anything is measured, that an image's logits depend on that image alone, not on its batch mates or on chance."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx.helper import np_dtype_to_tensor_dtype

from onnxnoise.engine.segments import Cutter, TensorType
from onnxnoise.engine.values import run_within
from onnxnoise.errors import ModelError
from onnxnoise.run.experiment import Experiment
from onnxnoise.run.jobs import decoded
from onnxnoise.runtime import session
from onnxnoise.runtime.session import Session

Array = npt.NDArray[Any]

FIRST_IMAGES = 3
"""Images that are compared first, as far as there are so many: enough to see a difference, and of little cost."""

IMAGES = 5
"""Images that are compared where there is a difference, to say what it is; a prime, which few other dimensions have."""

_SAME, _ROUNDED, _STEPPED = 1e-5, 1e-2, 0.5
"""Largest difference, in units of the largest value: in the same place of a batch as large, where the computation is the same;
elsewhere, where sums may have another order; and there in a network that rounds its activations, some of which may move a step.
"""

_STEPS = frozenset(("QuantizeLinear", "Round", "Floor", "Ceil", "Sign", "ArgMax", "TopK", "Greater", "Less", "Where"))
_CHANCE, _MATES = "chance", "mates"

_passed: set[tuple[str, ...]] = set()
"""The networks that were proven in this process: a plan or a search for margins measures the same network many times."""


@dataclass(frozen=True)
class _Trial:
    """A pass over `batch` (images by their numbers) that must give the logits of the first one; what shows where it doesn't."""

    batch: tuple[int, ...]
    reveals: str


@dataclass(frozen=True)
class _Difference:
    """An image's place in the first pass, and in another one in which it has other logits; `most` is what might have differed."""

    trial: _Trial
    before: int
    after: int
    most: float


def prove(experiment: Experiment) -> None:
    """Run a few images together, with other mates and alone; raises ModelError where their logits differ.

    Then they run in more ways, and the message names the first node whose values differ. What was proven is not proven again in
    this process.
    """
    here = experiment.here
    network, images = here.subject.network, here.images
    key = (network.sha256, network.logits, here.provider.name, images.digest, str(here.card.input))
    if key not in _passed:
        _Probe(here).run()
        _passed.add(key)


class _Probe:
    """The passes of one probe over the first images of an experiment."""

    def __init__(self, experiment: Experiment) -> None:
        self.experiment = experiment
        self.network = experiment.subject.network
        self.cutter = Cutter(self.network)
        count = min(IMAGES, experiment.count)
        self.inputs = experiment.inputs(decoded(experiment.images, range(count)).pixels)
        self.fixed = self.network.image.batch
        self.size = self.fixed or max(2, count)
        stepped = any(node.op_type in _STEPS for node in self.network.nodes)
        self.rounded = _STEPPED if stepped else _ROUNDED
        self._sessions: dict[bool, Session] = {}

    def run(self) -> None:
        """Three passes, and where they disagree others that tell why."""
        count = min(FIRST_IMAGES, len(self.inputs))
        first = self._filled(range(count), self.fixed or max(2, count))
        mates = (first[-1], *first[1:])  # another first image, and one image twice
        alone = self._filled(first[:1]) if self.fixed else first[:1]
        together = self._logits(first)
        if all(
            self._difference(together, self._logits(batch), first, _Trial(batch, _MATES)) is None
            for batch in (mates, alone)
        ):
            return
        self._explain()
        raise ModelError(self._said(_Difference(_Trial(first, _CHANCE), 0, 0, _SAME), first))

    def _explain(self) -> None:
        """Images together, in another order, together again, then one alone: among its copies, and really."""
        first = self._filled(range(len(self.inputs)))
        turned = first[::-1]
        together, others, again = (self._logits(batch) for batch in (first, turned, first))
        self._compare(together, again, first, _Trial(first, _CHANCE))
        self._compare(together, others, first, _Trial(turned, _MATES))
        alone = (self._filled(first[:1]), *([first[:1]] if self.fixed is None else []))
        for batch in alone:
            self._compare(together, self._logits(batch), first, _Trial(batch, _MATES))

    def _compare(self, together: Array, logits: Array, first: tuple[int, ...], trial: _Trial) -> None:
        """Raise ModelError where a trial's logits are not those that the same images have in the first pass."""
        if found := self._difference(together, logits, first, trial):
            raise ModelError(self._said(found, first))

    def _difference(self, together: Array, logits: Array, first: tuple[int, ...], trial: _Trial) -> _Difference | None:
        """The first image whose logits in a trial are not those that it has in the first pass; None where all are."""
        for place, row in enumerate(logits):
            same = len(trial.batch) == len(first) and trial.batch[place] == first[place]
            before = place if same else first.index(trial.batch[place])
            most = _SAME if same else self.rounded
            if not _agree(row, together[before], most):
                return _Difference(trial, before, place, most)
        return None

    def _filled(self, numbers: Sequence[int], size: int | None = None) -> tuple[int, ...]:
        return tuple(numbers[i % len(numbers)] for i in range(size or self.size))

    def _session(self, *, everything: bool) -> Session:
        """A session of any batch size, or of the model's own, for the logits or for every value."""
        if everything not in self._sessions:
            image = self.network.image.name
            sizes: tuple[Any, ...] = (self.fixed or "N", *self.inputs.shape[1:])
            types: dict[str, TensorType] = {image: (np_dtype_to_tensor_dtype(self.inputs.dtype), sizes)}
            outputs = (self.network.logits,)
            if everything:
                outputs = tuple(dict.fromkeys(name for node in self.network.nodes for name in node.output if name))
            whole = self.cutter.segment(0, self.cutter.end, types, outputs=outputs)
            self._sessions[everything] = Session(whole.stub, whole.references, self.experiment.provider)
        return self._sessions[everything]

    def _values(self, batch: tuple[int, ...], *, everything: bool = False) -> dict[str, Array]:
        run = self._session(everything=everything)
        image = {self.network.image.name: session.to_device(self.inputs[list(batch)], self.experiment.provider)}
        what = f"{self.network.name}: a pass over {len(batch)} images"
        made = run_within(run, image, self.experiment.spec.timeout, what)
        return {name: session.to_host(value) for name, value in made.items()}

    def _logits(self, batch: tuple[int, ...]) -> Array:
        logits = self._values(batch)[self.network.logits]
        if not logits.ndim or logits.shape[0] != len(batch):
            raise ModelError(
                f"{self.experiment.spec.model}: gives logits of shape {list(logits.shape)} for a batch of {len(batch)} images, "
                "not a row for each; export it with a free batch (torch: dynamic_axes, dynamic_shapes), or a batch of 1"
            )
        return logits.reshape(len(batch), -1)

    def _said(self, found: _Difference, first: tuple[int, ...]) -> str:
        node = self._node(found, first)
        named = f"; its values differ from {node} on" if node else ""
        if found.trial.reveals == _CHANCE:
            return (
                f"{self.experiment.spec.model}: the same images give other logits in a second pass{named}. Something in it draws "
                "random numbers or remembers the images before (dropout, stochastic depth or noise injection left on?); export "
                "it for inference (torch: model.eval(), Keras: training=False)"
            )
        return (
            f"{self.experiment.spec.model}: an image's logits depend on the images beside it in a batch{named}. Something in it "
            "takes statistics over the batch (batch norms or other layers in training mode?); export it for inference (torch: "
            "model.eval(), Keras: training=False), or with a batch of 1"
        )

    def _node(self, found: _Difference, first: tuple[int, ...]) -> str | None:
        """The first node with a value that differs between two passes; None where it can't be found."""
        try:
            before = self._values(first, everything=True)
            after = self._values(found.trial.batch, everything=True)
        except (ModelError, RuntimeError):  # not every value can be an output
            return None
        for node in self.network.nodes:
            for name in filter(None, node.output):
                if name in before and not _same(before[name], after[name], found, len(first)):
                    return f"node {node.name or name!r} ({node.op_type})"
        return None


def _same(before: Array, after: Array, found: _Difference, size: int) -> bool:
    """Whether a value is the same in two passes: all of it, or the image's part of it, wherever that may lie."""
    if found.trial.reveals == _CHANCE:
        return _agree(before, after, found.most)
    ours = list(_parts(before, size, found.before))
    theirs = list(_parts(after, len(found.trial.batch), found.after))
    if not ours or not theirs:
        return before.dtype.kind != "f" or _agree(before, after, found.most)
    return any(_agree(one, other, found.most) for one, other in zip(ours, theirs, strict=False))


def _parts(value: Array, size: int, place: int) -> Iterator[Array]:
    """The candidates for the part of the image at `place` among `size`: along each dimension that can have images."""
    for axis, length in enumerate(value.shape):
        if length and length % size == 0:
            outer = range(place * (length // size), (place + 1) * (length // size))
            yield value.take(list(outer), axis)
            yield value.take(list(range(place, length, size)), axis)


def _agree(one: Array, other: Array, most: float) -> bool:
    """Whether two arrays are equal to `most` of their largest finite value; what is not finite must be in the same places."""
    if one.shape != other.shape:
        return False
    if one.dtype.kind != "f":
        one, other = one.astype(np.float64), other.astype(np.float64)
    with np.errstate(invalid="ignore"):
        finite = np.isfinite(one) & np.isfinite(other)
        equal = np.where(finite, True, (one == other) | (np.isnan(one) & np.isnan(other)))
        if not equal.all():
            return False
        largest = max(np.abs(one[finite]).max(initial=0), np.abs(other[finite]).max(initial=0))
        return bool((np.abs(one[finite] - other[finite]) <= most * largest).all())
