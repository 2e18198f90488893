"""A card in the making: the keys of its `[input]` found so far, what is said about them, and its text."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from onnxnoise.data.cards import Card, load_card
from onnxnoise.data.datasets import KNOWN
from onnxnoise.data.drafts.beside import Beside, as_size
from onnxnoise.data.drafts.hints import AS_THEY_ARE, GEOMETRY, NUMBERS
from onnxnoise.data.drafts.toml_text import Entry, card_toml
from onnxnoise.run.loading import ANY_SIDE, Subject

_HEAD = (
    'Drafted by `onnxnoise cards new`. A line that begins with "# ?" asks what no file tells: answer it, or delete it.'
)
_KEYS = ("dataset", "classes", "preset", *GEOMETRY, "color", "layout", "scale", "mean", "std", "label_offset")


@dataclass
class Draft:
    """All that is known of a model's card. `channels` and `sides` are the graph's, None where free or it takes no images."""

    subject: Subject
    classes: int
    channels: int | None
    sides: tuple[int | None, int | None]
    beside: Beside
    dataset: str = "my-images"
    keys: dict[str, Any] = field(default_factory=dict)
    comments: dict[str, str] = field(default_factory=dict)
    questions: dict[str, str] = field(default_factory=dict)

    @property
    def takes_images(self) -> bool:
        return len(self.subject.network.image.shape) == 4

    @property
    def side(self) -> int | list[int] | None:
        """The size of the graph's input, as a card writes it; None where it is free."""
        height, width = self.sides
        return None if height is None or width is None else as_size((height, width))

    def say(self, values: Mapping[str, Any], comment: str) -> None:
        """Set keys; the comment stands above the first of them."""
        self.keys |= values
        first = next((key for key in _KEYS if key in values), None)
        if first is not None:
            self.comments[first] = comment

    def text(self) -> str:
        """The card as TOML."""
        return card_toml(list(self._entries(self.keys)), _HEAD)

    def open_questions(self) -> Sequence[str]:
        """The questions about `[input]` that the text asks."""
        return [entry.question for entry in self._entries(self.keys) if entry.question and entry.table == "input"]

    def card(self, keys: Mapping[str, Any]) -> Card:
        """The draft with other keys, read as any card is; numbers and sizes replace the draft's, all or none."""
        replaced = {name for group in (GEOMETRY, NUMBERS) if keys.keys() & group for name in group}
        kept = {key: value for key, value in self.keys.items() if key not in replaced} | dict(keys)
        if self.takes_images and not {"size", "crop", "preset"} & kept.keys():
            kept["size"] = self.side or ANY_SIDE
        if not self.takes_images and not kept.keys() & NUMBERS:
            kept |= AS_THEY_ARE.keys
        with tempfile.TemporaryDirectory(prefix="onnxnoise-") as folder:
            path = Path(folder) / "draft.toml"
            path.write_text(card_toml(list(self._entries(kept)), _HEAD), encoding="utf-8")
            return load_card(path)

    def _entries(self, keys: Mapping[str, Any]) -> Iterator[Entry]:
        network, raw = self.subject.network, self.subject.classifier.raw
        yield Entry("model", "name", network.name)
        maker = " ".join(filter(None, (raw.producer_name, raw.producer_version)))
        if maker:
            yield Entry("model", "framework", maker, "The exporter, by the file.")
        yield Entry("model", "source", question="Where are the weights from, and how was the file exported?")
        if self.beside.remarks:
            yield Entry("input", "", comment=". ".join(self.beside.remarks) + ".")
        known = {"dataset": self.dataset, "classes": self.classes, **keys}
        if self.dataset in KNOWN:
            del known["classes"]
        if network.image.layout and "preset" not in known:
            known["layout"] = network.image.layout
        for key in _KEYS:
            if key in known or key in self.questions:
                said = self.comments.get(key, ""), self.questions.get(key, "")
                yield Entry("input", key, known.get(key), *said)
        yield Entry("structure", "layers", len(network.layers), "Noise layers and parameters of this very file.")
        yield Entry("structure", "parameters", network.parameters)
        asked = 'Which accuracy without noise do you expect of all images? Say it here, as metric = "top1" and clean = 0.91:'
        yield Entry(
            "measured", "clean", question=f"{asked} then bench stops before any noise where it can't be this one."
        )
