"""Rules for the rows and records of a run file: they are held against it where they are read, and may be relied on after.

Each function raises ValueError, saying what is wrong, for anything that no onnxnoise writes. A checksum says that a row is as
somebody left it; this says that it makes sense, whoever wrote it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple, get_args

from onnxnoise.errors import UsageError
from onnxnoise.noise.base import Level, check_scale
from onnxnoise.noise.models import level_of
from onnxnoise.noise.settings import setting_of
from onnxnoise.records import DEALT, Design, Realized
from onnxnoise.text import shortened
from onnxnoise.words import ANALOG, COMPENSATIONS, METRICS, POLICIES, SIGMA_SCOPES, SWEEPS, Kind

_DEEPEST = 24
"""The most lists and objects inside each other in a record."""

_MANY = 1 << 40
"""More than there are images, draws, layers, parameters or channels anywhere."""

_LONGEST_DIGEST = 128

_Test = Callable[[Any], object]
"""Whether a value may be kept."""


class Owner(NamedTuple):
    """A process that holds leases: its random number, where its process number means something, when it began, when it last
    showed that it lives (seconds since 1970).
    """

    number: int
    place: str
    pid: int
    born: int
    seen: float


def parsed(text: Any) -> dict[str, Any]:
    """The JSON object in a column, no deeper than any that is written."""
    if not isinstance(text, str):
        raise ValueError(f"its JSON is no text ({shown(text)})")
    try:
        record = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError("its JSON can't be parsed") from error
    if not isinstance(record, dict):
        raise ValueError(f"its JSON is no object ({shown(record)})")
    inside: list[Any] = [record]
    for _ in range(_DEEPEST):
        inside = [value for each in inside for value in (each.values() if isinstance(each, dict) else each)]
        inside = [value for value in inside if isinstance(value, dict | list)]
    if inside:
        raise ValueError(f"its JSON has more than {_DEEPEST} lists and objects inside each other")
    return record


def check_identity(identity: Mapping[str, Any]) -> None:
    """The identity by which tallies belong together: digests, noise setting, layers."""
    wanted = {
        "model": _is_digest,
        "data": _is_digest,
        "seed": _whole(0, 1 << 128),
        "bn": _one_of(POLICIES),
        "sigma_scope": _one_of(SIGMA_SCOPES),
        "layers": _is_layers,
        "provider": _is_text,
    }
    usual: dict[str, _Test] = {
        "noise": _is_text,
        "noise_files": lambda value: isinstance(value, list) and all(map(_is_digest, value)),
        "scale": _is_text,
        "analog": _one_of(ANALOG),
        "compensate": _one_of(COMPENSATIONS),
        "calibration": _whole(2),
        "noise_map": lambda value: isinstance(value, dict),
        "output": _is_text,
        "labels": _one_of(("clean",)),
        "design": _one_of(get_args(Design)),
        "images": _whole(1),
        "order": _one_of((DEALT,)),
        "preprocessing": lambda value: isinstance(value, dict) and _is_text(value.get("dataset", "")),
    }
    _check(identity, wanted, usual)
    try:
        check_scale(identity.get("scale", "tensor"))
    except UsageError as error:
        raise ValueError(str(error)) from error
    level_of(setting_of(identity))


def check_description(description: Mapping[str, Any], identity: Mapping[str, Any]) -> None:
    """Names, layers and notices; the layers of the identity must be among those described."""
    usual: dict[str, _Test] = {
        "classes": _or_none(_whole(1)),
        "without_noise": _or_none(lambda value: isinstance(value, dict)),
    }
    _check(description, {"model": _is_text, "dataset": _is_text, "layers": _is_objects, "notices": _is_objects}, usual)
    for each in description["notices"]:
        _check(each, {"code": _is_text, "message": _is_text}, {}, where="a notice: ", closed=True)
    _check_without_noise(description.get("without_noise"))
    layer: dict[str, _Test] = {
        "index": _whole(1),
        "name": _is_text,
        "kind": _one_of(get_args(Kind)),
        "parameters": _whole(0),
        "sigma_w": _is_size,
        "initializers": _is_objects,
    }
    initializer = {"name": _is_text, "shape": _is_shape, "sigma_w": _is_size}
    for number, each in enumerate(description["layers"], 1):
        _check(each, layer, {}, where=f"layer {number}: ", closed=True)
        for one in each["initializers"]:
            _check(one, initializer, {}, where=f"layer {number}: an initializer: ", closed=True)
    indices = [each["index"] for each in description["layers"]]
    if not _is_layers(indices):
        raise ValueError("its layers are not in order")
    if unknown := set(identity["layers"]) - set(indices):
        raise ValueError(f"it has no layer {min(unknown)}, which bears noise")


def _check_without_noise(found: Mapping[str, Any] | None) -> None:
    """The part of the network that belongs to no layer, which older run files don't have."""
    if found is None:
        return
    wanted: dict[str, _Test] = {
        "elements": _whole(0),
        "share": lambda value: _is_number(value) and 0 <= value <= 1,
        "initializers": _is_objects,
    }
    _check(found, wanted, {}, where="what stays without noise: ", closed=True)
    one: dict[str, _Test] = {"name": _is_text, "elements": _whole(0), "operator": _is_text}
    for each in found["initializers"]:
        _check(each, one, {}, where="an initializer without noise: ", closed=True)


def check_realized(record: Mapping[str, Any], identity: Mapping[str, Any]) -> None:
    """The realized noise: for each layer that bears noise and each level its snr, gain and offset, and the number of draws."""
    _check(record, {"layers": lambda value: isinstance(value, list)}, {}, where="realized noise: ", closed=True)
    level = level_of(setting_of(identity))
    number = _or_none(_is_number)
    for row in record["layers"]:
        if not (isinstance(row, list) and len(row) == len(Realized.__dataclass_fields__)):
            raise ValueError("realized noise: it is no row of layer, level, snr, gain, offset and draws")
        each = realized(row)
        if each.layer not in identity["layers"] or type(each.level) is not float or not _whole(1)(each.draws):
            raise ValueError(f"realized noise: it has no layer {shown(each.layer)} at {shown(each.level)}")
        if not (
            number(each.gain) and number(each.offset) and (each.snr is None or (number(each.snr) and each.snr >= 0))
        ):
            raise ValueError(f"realized noise: layer {each.layer}: its figures are no numbers")
        try:
            level.check(each.level, "realized noise")
        except UsageError as error:
            raise ValueError(str(error)) from error


def realized(row: Sequence[Any]) -> Realized:
    """The realized noise of one layer at one level, of the row that keeps it."""
    return Realized(*row)


def check_run(run: Mapping[str, Any]) -> None:
    """The run record, of who measured and what the command asked for, as far as anything follows from it."""
    metric = _or_none(_one_of(METRICS))
    _check(run, {}, {"spec": lambda value: isinstance(value, dict), "metric": metric, "labels": _is_label_count})
    levels = _or_none(lambda value: isinstance(value, list) and all(_is_number(each) and each >= 0 for each in value))
    asked: dict[str, _Test] = {
        "sweeps": _or_none(lambda value: isinstance(value, list) and all(map(_one_of(SWEEPS), value))),
        "levels": levels,
        "snrs": levels,
        "draws": _or_none(_whole(1)),
        "max_draws": _or_none(_whole(1)),
        "limit": _or_none(_whole(1)),
        "precision": _or_none(lambda value: _is_number(value) and 0 < value < 1),
        "metric": metric,
        "shard": _or_none(lambda value: isinstance(value, list) and len(value) == 2 and all(map(_whole(1), value))),
    }
    _check(run.get("spec", {}), {}, asked, where="spec: ")


def check_chunk(start: Any, images: Any, sha256: Any, begins: int) -> int:
    """A chunk of images, which begins where the one before it ends; where it ends."""
    if not (_whole(0)(start) and _whole(1)(images)):
        raise ValueError(f"{shown(images)} images from number {shown(start)} on are no chunk")
    if start != begins:
        raise ValueError(f"it begins at image {start}, the chunk before it ends at {begins}")
    if sha256 is not None and not (_is_text(sha256) and len(sha256) <= _LONGEST_DIGEST):
        raise ValueError(f"{shown(sha256)} is no digest")
    return int(start + images)


def check_owner(row: Sequence[Any]) -> Owner:
    """A process that holds leases."""
    number, place, pid, born, seen = row
    if not (all(map(_whole(0, 1 << 63), (number, pid, born))) and _is_text(place) and _is_number(seen)):
        raise ValueError("it is no process that measures")
    return Owner(number, place, pid, born, seen)


def check_hits(top1: bytes, top5: bytes, nonfinite: bytes) -> None:
    """A hit is finite and among the five best: where rows have no checksums, a flipped bit may be seen by that."""
    hit, lost, near = (int.from_bytes(bits) for bits in (top1, nonfinite, top5 or top1))
    if (hit | near) & lost or hit & ~near:
        raise ValueError("its hits contradict each other")


class TallyCheck:
    """The limits of the tallies of one run file.

    `layers` are the indices of those that bear noise, `level` is that of its noise, and `sizes` has the number of images in each
    chunk, by its start.
    """

    def __init__(self, layers: Collection[int], level: Level, sizes: Mapping[int, int]) -> None:
        self.sizes = sizes
        self._layers, self._level = frozenset(layers), level
        self._levels: set[float] = set()
        self._has_top5: bool | None = None

    @classmethod
    def of(cls, identity: Mapping[str, Any], sizes: Mapping[int, int]) -> TallyCheck:
        """The check for the run file of this identity, which itself was checked."""
        return cls(identity["layers"], level_of(setting_of(identity)), sizes)

    def key(self, sweep: Any, layer: Any, level: Any, draw: Any, start: Any) -> None:
        """The key of a tally, as the table keeps it."""
        if sweep == "clean":
            fits = layer == 0 and level == math.inf and draw == 0
        elif sweep == "all":
            fits = layer == 0
        else:
            fits = sweep in SWEEPS and type(layer) is int and layer in self._layers
        if not fits or type(layer) is not int:
            raise ValueError("it is of no cell that this run can have")
        if not _whole(0)(draw):
            raise ValueError(f"{shown(draw)} is no number of a draw")
        if type(level) is not float or not (sweep == "clean" or level in self._levels or self._is_level(level)):
            raise ValueError(f"{shown(level)} is no {self._level.title}")
        if type(start) is not int or start not in self.sizes:
            raise ValueError(f"no chunk begins at image {shown(start)}")

    def tally(self, row: Sequence[Any]) -> None:
        """A whole row: one bit an image, the rest of the last byte 0, and as many top-5 bits as others have."""
        self.key(*row[:5])
        start, images, top1, top5, nonfinite, negative = row[4:]
        if type(images) is not int or images != self.sizes[start]:
            raise ValueError(f"it is of {shown(images)} images, its chunk has {self.sizes[start]}")
        if not all(isinstance(bits, bytes) for bits in (top1, top5, nonfinite)):
            raise ValueError("its hits are no bits")
        if self._has_top5 is None:
            self._has_top5 = bool(top5)
        if bool(top5) is not self._has_top5:
            raise ValueError("only some tallies have top-5 hits")
        for bits in (top1, nonfinite, *([top5] if top5 else [])):
            if len(bits) != -(-images // 8) or bits[-1] & ((1 << -images % 8) - 1):
                raise ValueError(f"its hits are not one bit for each of {images} images")
        if not _whole(0)(negative):
            raise ValueError(f"{shown(negative)} is no number of negative variances")

    def _is_level(self, level: float) -> bool:
        try:
            self._level.check(level, "")
        except UsageError:
            return False
        self._levels.add(level)
        return True


def shown(value: Any) -> str:
    """A value that does not fit, as a message names it."""
    return shortened(repr(value) if isinstance(value, str | int | float | bytes | None) else type(value).__name__, 40)


def _check(
    record: Mapping[str, Any],
    wanted: Mapping[str, _Test],
    usual: Mapping[str, _Test],
    *,
    where: str = "",
    closed: bool = False,
) -> None:
    """Hold a record against tests by key; those of `usual` may be absent, and where it is `closed` there are no others."""
    for key in wanted:
        if key not in record:
            raise ValueError(f"{where}it lacks its {key}")
    for key, value in record.items():
        test = wanted.get(key) or usual.get(key)
        if test is None and closed:
            raise ValueError(f"{where}{shown(key)} is unknown")
        if test is not None and not test(value):
            raise ValueError(f"{where}{key} can't be {shown(value)}")


def _whole(least: int, below: int = _MANY) -> _Test:
    return lambda value: type(value) is int and least <= value < below


def _one_of(words: Collection[str]) -> _Test:
    return lambda value: isinstance(value, str) and value in words


def _or_none(test: _Test) -> _Test:
    return lambda value: value is None or test(value)


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_digest(value: Any) -> bool:
    return isinstance(value, str) and 8 <= len(value) <= _LONGEST_DIGEST and value.isascii()


def _is_number(value: Any) -> bool:
    """Whether it is a number, possibly infinite, that a float can be."""
    return (type(value) is float and not math.isnan(value)) or (type(value) is int and abs(value) < 1 << 1000)


def _is_size(value: Any) -> bool:
    """Whether it is a standard deviation; that of values which are not finite is none."""
    return type(value) is float or (type(value) is int and 0 <= value < _MANY)


def _is_label_count(value: Any) -> bool:
    """Whether it counts labels: `images` of them, and the images of up to five classes, the `largest` first."""
    if not isinstance(value, dict):
        return False
    images, largest = value.get("images"), value.get("largest")
    if type(images) is not int or not isinstance(largest, list) or not 1 <= len(largest) <= 5:
        return False
    return all(map(_whole(1), largest)) and sorted(largest, reverse=True) == largest and sum(largest) <= images < _MANY


def _is_objects(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(each, dict) for each in value)


def _is_shape(value: Any) -> bool:
    return isinstance(value, list) and all(map(_whole(0), value))


def _is_layers(value: Any) -> bool:
    """Whether they are indices from 1 up, in order, each once."""
    return isinstance(value, list) and all(map(_whole(1), value)) and all(one < other for one, other in pairwise(value))
