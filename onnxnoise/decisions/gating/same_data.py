"""Whether the data that a rules file names are those of a run file: by digest where they can be opened here, else by name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from onnxnoise.data.cards import Card, find_card
from onnxnoise.data.images import open_images
from onnxnoise.decisions.gating.draws import GatedRun
from onnxnoise.errors import OnnxNoiseError

_CHANNELS = (3, 1, None)
"""The channels that images may have: only the model tells, and a run file is gated without it."""


def other_data(
    asked: str, card: str | None, run: GatedRun, told: Sequence[Mapping[str, Any]]
) -> tuple[str, str] | None:
    """(the run's data, those asked for) in words where they are not the same; None where they are, as far as can be told.

    `asked` and `card` are what the rules file says, `told` the specs that the run file keeps. Data that lie here are opened, as
    `bench` opens them, if the run's card is here too, and known by their digest. Of others only the names can be held
    together: a path of the run may be another here, so its last part counts, and it may lie in the folder that is asked for.
    """
    there, name = str(run.identity["data"]), str(run.description["dataset"])
    found = ""
    for found in _digests(Path(asked), card, run, told):
        if found == there:
            return None
    if found:
        return f"data = {name}, digest {there[:8]}", f"data = {asked}, which has digest {found[:8]}"
    if _is_named_alike(asked, name, [Path(str(each["data"])) for each in told if each.get("data")]):
        return None
    return f"data = {name}", f"data = {asked}"


def _is_named_alike(asked: str, name: str, there: Sequence[Path]) -> bool:
    path = Path(asked)
    names = {name, *(each.name for each in there)}
    return path.name in names or any(path.name in each.parts or each.name in path.parts for each in there)


def _digests(path: Path, card: str | None, run: GatedRun, told: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """The digests that the data at a path may have in this run; none where nothing lies there, or no card of the run does."""
    if not path.exists():
        return
    alike = {tuple(str(each.get(key)) for key in ("model", "card", "labels", "limit")): each for each in told}
    for each in alike.values():
        if (known := _card(card, each, run)) is None:
            continue
        for channels in _CHANNELS:
            try:
                yield open_images(
                    path, known, channels=channels, labels=each.get("labels"), most=each.get("limit")
                ).digest
            except OnnxNoiseError:
                continue


def _card(named: str | None, told: Mapping[str, Any], run: GatedRun) -> Card | None:
    """The card by which the run's images became its inputs; None where it isn't here."""
    model = str(told.get("model") or "")
    for explicit in (named, told.get("card"), None, model):
        try:
            card = find_card(Path(model), explicit, {}).counted(int(run.description["classes"]))
        except (OnnxNoiseError, OSError, ValueError):
            continue
        if _input(card.input.identity()) == _input(run.identity["preprocessing"]):
            return card
    return None


def _input(preprocessing: Mapping[str, Any]) -> dict[str, Any]:
    """A card's input as run files keep it; the layout is the model's where the card leaves it open."""
    return {
        key: list(value) if isinstance(value, tuple) else value
        for key, value in preprocessing.items()
        if key != "layout"
    }
