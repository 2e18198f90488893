"""Tries preprocessings on a few hundred images: with which of them the clean model gets most images right."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from onnxnoise.data.cards import Card
from onnxnoise.data.drafts.hints import Hint, stretched, usual_geometries, usual_numbers, usual_of_arrays
from onnxnoise.errors import CardError
from onnxnoise.records import Bits, ImageChunk
from onnxnoise.results.chance import is_at_chance, largest_classes
from onnxnoise.results.tallies import unpacked
from onnxnoise.run.experiment import Experiment
from onnxnoise.run.jobs import decoded, swept
from onnxnoise.run.schedules import CLEAN
from onnxnoise.statistics.distributions import at_least

_ALIKE = 0.05
"""Two preprocessings can't be told apart where the exact sign test on the images that only one gets right is above this."""

_LOOK = 16
"""The number of images by which two ways to resize are found to be the same."""

CardOf = Callable[[Mapping[str, Any]], Card]
"""A function that makes a card of the draft's with these keys in `[input]`."""


@dataclass(frozen=True)
class Trial:
    """A preprocessing that was tried, and its top-1 hits; `as_good` says that it can't be told apart from the best one."""

    hint: Hint
    hits: int
    as_good: bool


@dataclass(frozen=True)
class Trials:
    """All that was tried on the first `images` images: `numbers` and `geometries`, each with the best one first.

    `geometries` is empty where the images have the input's size already. `chance` is a fraction of 1, and `at_chance` says that
    not even the best does better than that.
    """

    images: int
    numbers: tuple[Trial, ...]
    geometries: tuple[Trial, ...]
    geometry: Hint
    chance: float
    at_chance: bool

    @property
    def best(self) -> Hint | None:
        """The best numbers; None where not even those do better than chance."""
        return None if self.at_chance else self.numbers[0].hint

    @property
    def summary(self) -> str:
        """The findings about numbers, in sentences."""
        if self.at_chance:
            return (
                f"None of the {len(self.numbers)} usual preprocessings does better than chance ({self.chance:.1%}) on "
                f"{self.images} images ({_listed(self.numbers)}). Which numbers was the model trained on, and are its classes in "
                "the order of the labels? Without scale, mean and std it gets pixel/255."
            )
        said = f"Tried on {self.images} images, top-1 hits: {_listed(self.numbers)}."
        alike = [trial.hint.source for trial in self.numbers[1:] if trial.as_good]
        if alike:
            said += f" On these the first can't be told apart from: {', '.join(alike)}. More images may tell."
        return said

    @property
    def geometry_summary(self) -> str:
        """The findings about the ways to the input's size, in sentences; empty where none was tried."""
        if not self.geometries:
            return ""
        said = f"Tried on {self.images} images, top-1 hits: {_listed(self.geometries)}."
        alike = [trial.hint.source for trial in self.geometries[1:] if trial.as_good]
        return said + (f" On these the first can't be told apart from: {', '.join(alike)}." if alike else "")


def tried(experiment: Experiment, card_of: CardOf, known: Hint | None, channels: int, side: int | None) -> Trials:
    """Try the usual numbers and ways to resize, and those of `known`, on the experiment's images.

    First the numbers, with the likeliest way to resize, then with the best numbers the other ways. Of equally good ones the
    known one counts, then the commoner one. `side` is the input's, pixels, None where it isn't a square or is free. Raises what
    `Experiment.under` raises.
    """
    bench = _Bench(experiment, card_of)
    picture = experiment.images.is_picture
    geometries = [Hint(known.source, known.geometry)] if known and known.geometry else []
    geometries += list(usual_geometries(side)) if side and picture else []
    if side and picture and not list(bench.different([stretched(side, "nearest"), stretched(side, "bilinear")])):
        geometries = [stretched(side)]  # they have the size already
    geometry = geometries[0] if geometries else Hint("", {})
    chunk = bench.decoded(geometry)
    hints = [Hint(known.source, known.numbers)] if known and known.numbers else []
    usual = usual_numbers(channels, side) if picture else usual_of_arrays(channels, side, chunk.pixels)
    numbers = bench.ranked([*hints, *usual], lambda hint: bench.hits(geometry, hint, chunk))
    largest = largest_classes(chunk.labels.tolist())[0]
    at_chance = is_at_chance(numbers[0].hits, len(chunk.labels), largest / len(chunk.labels))
    ways: tuple[Trial, ...] = ()
    others = [] if at_chance else list(bench.different(geometries))
    if others:
        best = numbers[0].hint
        ways = bench.ranked([geometry, *others], lambda way: bench.hits(way, best, bench.decoded(way)))
        geometry = ways[0].hint
    return Trials(len(chunk.labels), numbers, ways, geometry, largest / len(chunk.labels), at_chance)


class _Bench:
    """The model and the images, open once, on which cards are tried."""

    def __init__(self, opened: Experiment, card_of: CardOf) -> None:
        self.opened, self.card_of = opened, card_of

    def experiment(self, *hints: Hint) -> Experiment:
        """The experiment under a card with the keys of these hints."""
        return self.opened.under(self.card_of({key: value for hint in hints for key, value in hint.keys.items()}))

    def decoded(self, geometry: Hint, images: int | None = None) -> ImageChunk:
        """The first images, resized so."""
        experiment = self.experiment(geometry)
        return decoded(experiment.images, range(min(experiment.count, images or experiment.count)))

    def hits(self, geometry: Hint, numbers: Hint, chunk: ImageChunk) -> Bits | None:
        """The images of a chunk that the model gets right by top-1; None where its input can't hold such numbers."""
        try:
            experiment = self.experiment(geometry, numbers)
            (group,) = swept(experiment, chunk, [(*CLEAN, chunk.start)], lambda _: None)
        except CardError:
            return None
        (tally,) = group.tallies
        return unpacked(tally.top1, tally.images)

    def different(self, geometries: Sequence[Hint]) -> Iterator[Hint]:
        """The ways to resize, after the first, that make other pixels than all before them."""
        seen: list[bytes] = []
        for i, way in enumerate(geometries):
            pixels = self.decoded(way, _LOOK).pixels.tobytes()
            if pixels not in seen and i:
                yield way
            seen.append(pixels)

    @staticmethod
    def ranked(hints: Sequence[Hint], measured: Callable[[Hint], Bits | None]) -> tuple[Trial, ...]:
        """The trials, the most hits first; of equally many the earlier hint. Raises CardError where none can be measured."""
        found = [(hint, hits) for hint in _once(hints) if (hits := measured(hint)) is not None]
        if not found:
            raise CardError("the model's integer input can hold none of the usual numbers; write its card by hand")
        found.sort(key=lambda each: -int(each[1].sum()))
        best = found[0][1]
        return tuple(Trial(hint, int(hits.sum()), _alike(best, hits)) for hint, hits in found)


def _once(hints: Sequence[Hint]) -> Iterator[Hint]:
    """The hints, each meaning once: the first of several that say the same."""
    seen = []
    for hint in hints:
        meaning = {key: _plain(value) for key, value in hint.keys.items() if (key, value) != ("color", "rgb")}
        if meaning not in seen:
            seen.append(meaning)
            yield hint


def _plain(value: Any) -> Any:
    """A value in the form that equal ones share: one number for all channels."""
    numbers = list(value) if isinstance(value, list | tuple) else [value]
    return numbers[0] if len(set(numbers)) == 1 else numbers


def _alike(one: Bits, other: Bits) -> bool:
    """Whether the exact sign test on the images that only one of two gets right doesn't tell them apart."""
    first, second = int((one & ~other).sum()), int((other & ~one).sum())
    return 2 * at_least(max(first, second), first + second, 0.5) > _ALIKE


def _listed(trials: Sequence[Trial]) -> str:
    return "; ".join(f"{trial.hint.source}: {trial.hits:,}" for trial in trials)
