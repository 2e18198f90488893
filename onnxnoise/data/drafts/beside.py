"""Reads what lies beside a model and tells of its images: the configurations of Hugging Face's transformers and of timm."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

from onnxnoise.data.drafts.hints import Hint
from onnxnoise.errors import CardError
from onnxnoise.files import is_file, read_file
from onnxnoise.text import shortened

PREPROCESSOR, CONFIG = "preprocessor_config.json", "config.json"
_MOST_BYTES = 16 << 20
_PIL = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "hamming"}
"""Pillow's numbers for its filters, as transformers writes them."""


@dataclass(frozen=True)
class Beside:
    """All that the files beside a model say: `hint` of its pixels (None: nothing), the names of its `classes` in order.

    `files` are those that were read, and `remarks` are sentences about what no card can say.
    """

    hint: Hint | None = None
    classes: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()


def read_beside(model: Path, side: int | None) -> Beside:
    """All that the configurations in the model's folder, or in the one above it (as in `onnx/model.onnx`), say of its images.

    `side` is the side of the graph's input, pixels, None where it is free. Raises CardError for a configuration that isn't JSON.
    """
    for folder in (model.parent, model.parent.parent):
        found = [folder / name for name in (PREPROCESSOR, CONFIG) if is_file(folder / name)]
        if found:
            return _read({path.name: _json(path) for path in found}, side)
    return Beside()


def _json(path: Path) -> Mapping[str, Any]:
    try:
        content = json.loads(read_file(path, _MOST_BYTES)[:_MOST_BYTES])
    except (OSError, ValueError, RecursionError) as error:
        raise CardError(
            f"{path}: lies beside the model and can't be read as JSON ({error}); correct it or move it"
        ) from error
    if not isinstance(content, dict):
        raise CardError(f"{path}: lies beside the model and is no JSON object; correct it or move it")
    return content


def _read(found: Mapping[str, Mapping[str, Any]], side: int | None) -> Beside:
    config, preprocessor = found.get(CONFIG, {}), found.get(PREPROCESSOR)
    timm = config.get("pretrained_cfg", config if "input_size" in config else None)
    remarks: list[str] = []
    hint = None
    if isinstance(timm, dict):
        hint = _of_timm(timm, side, remarks)
    if preprocessor is not None:
        hint = _of_transformers(preprocessor, remarks)
    return Beside(hint, _classes(config, timm), tuple(found), tuple(remarks))


def _classes(config: Mapping[str, Any], timm: object) -> tuple[str, ...]:
    """The names of the classes by `id2label`, or by timm's `label_names`; none where they aren't whole, or not each its own."""
    names = config.get("id2label") or config.get("label_names")
    if not names and isinstance(timm, dict):
        names = timm.get("label_names")
    if isinstance(names, dict):
        try:
            by_number = {int(key): name for key, name in names.items()}
        except ValueError:
            return ()
        names = [by_number.get(number) for number in range(len(by_number))]
    if not isinstance(names, list) or len(names) < 2:
        return ()
    if not all(isinstance(name, str) and name.strip() for name in names) or len({*names}) < len(names):
        return ()
    return tuple(names)


def _of_timm(timm: Mapping[str, Any], side: int | None, remarks: list[str]) -> Hint:
    """The `pretrained_cfg` of timm: input_size, crop_pct, crop_mode, interpolation, mean and std of pixels from 0 to 1."""
    known: dict[str, Any] = {"scale": 255}
    sizes = [_sides(timm.get(key)) for key in ("input_size", "test_input_size")]
    test = sizes[1] is not None and sizes[1] == (side, side)
    size = sizes[1] if test else sizes[0]
    share = timm.get("test_crop_pct" if test else "crop_pct")
    if size:
        known |= {"size": as_size(size)}
        mode = timm.get("crop_mode") or "center"
        if mode == "center" and _is_number(share) and 0 < share <= 1 and size[0] == size[1]:
            known |= {"resize": math.floor(size[0] / share), "crop": known.pop("size")}
        elif mode != "squash":
            remarks.append(
                f"timm's crop_mode {shortened(str(mode), 30)!r} is none that a card knows: images are stretched"
            )
    way = {"random": "bilinear"}.get(str(timm.get("interpolation")), timm.get("interpolation"))
    if way in _PIL.values():
        known["interpolation"] = way
    known |= _mean_and_std(timm.get("mean"), timm.get("std"))
    return Hint(f"timm's pretrained_cfg in {CONFIG}", known)


def _of_transformers(told: Mapping[str, Any], remarks: list[str]) -> Hint:
    """The image processor of transformers: resize, crop, rescale, normalize, in that order."""
    known: dict[str, Any] = {}
    size, crop = told.get("size"), told.get("crop_size")
    cut = bool(told.get("do_center_crop", crop is not None))
    shortest = size.get("shortest_edge") if isinstance(size, dict) else size
    exact = _sides(size)
    share = told.get("crop_pct")
    if told.get("do_resize", True) and _is_side(shortest):
        if _is_number(share) and 0 < share < 1:  # as ConvNeXt: resized so that the crop of `size` is this share of it
            known |= {"resize": int(shortest / share), "crop": shortest} if shortest < 384 else {"size": shortest}
        elif cut and (sides := _sides(crop)):
            known |= {"resize": shortest, "crop": as_size(sides)}
        else:
            known["size"] = shortest
            if isinstance(size, dict):
                remarks.append(
                    "the shorter side is resized and nothing is cut: other shapes than squares go in stretched here"
                )
    elif told.get("do_resize", True) and exact:
        known |= {"resize": as_size(exact), "crop": as_size(sides)} if cut and (sides := _sides(crop)) else {}
        known |= {} if "crop" in known else {"size": as_size(exact)}
    elif cut and (sides := _sides(crop)):
        known["crop"] = as_size(sides)
    if _PIL.get(told.get("resample", -1)):
        known["interpolation"] = _PIL[told["resample"]]
    factor = told.get("rescale_factor", 1 / 255)
    rescaled = bool(told.get("do_rescale", told.get("do_normalize", True))) and _is_number(factor) and factor > 0
    known["scale"] = round(1 / factor, 6) if rescaled else 1
    mean, std = told.get("image_mean"), told.get("image_std")
    if told.get("do_normalize", mean is not None):
        if "EfficientNet" in str(told.get("image_processor_type")) and told.get("include_top"):
            std = [each**2 for each in std] if _are_numbers(std) else std  # its processor divides twice
        known |= _mean_and_std(mean, std)
    elif told.get("rescale_offset") and rescaled:
        known |= {"mean": 1, "std": 1}
    else:
        known |= {"mean": 0, "std": 1}
    if told.get("do_flip_channel_order"):
        known["color"] = "bgr"
    return Hint(PREPROCESSOR, known)


def _mean_and_std(mean: object, std: object) -> dict[str, Any]:
    """Keys of a card for lists of numbers, one for each channel; nothing where they are no such lists."""
    if not _are_numbers(mean) or not _are_numbers(std):
        return {}
    return {"mean": list(mean), "std": list(std)} if len(mean) == len(std) and all(each > 0 for each in std) else {}


def _sides(size: object) -> tuple[int, int] | None:
    """(height, width) of a size, as a number, as {height, width} or as timm's [channels, height, width]."""
    if isinstance(size, dict):
        size = [0, size.get("height"), size.get("width")]
    if _is_side(size):
        size = [0, size, size]
    if isinstance(size, list) and len(size) == 3 and _is_side(size[1]) and _is_side(size[2]):
        return size[1], size[2]
    return None


def as_size(sides: tuple[int, int]) -> int | list[int]:
    """Height and width as a card writes them: one number where they are equal."""
    return sides[0] if sides[0] == sides[1] else list(sides)


def _is_side(value: object) -> TypeGuard[int]:
    return type(value) is int and 1 <= value <= 4096


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _are_numbers(values: object) -> TypeGuard[list[float]]:
    return isinstance(values, list) and bool(values) and all(map(_is_number, values))
