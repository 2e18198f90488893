"""Results as JSON documents: strict JSON in ASCII that every reader takes."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from onnxnoise.noise.models import level_of
from onnxnoise.records import LayerInfo, Measured, MeasuredAt, NoiseSetting, Notice, Result, WithoutNoise

SCHEMA = "onnxnoise/result/1"
LAYERS_SCHEMA = "onnxnoise/layers/1"


def to_json(result: Result) -> str:
    """The result as one JSON document, schema `onnxnoise/result/1`."""
    return measured_json(SCHEMA, result)


def measured_json(schema: str, record: Measured) -> str:
    """A record of something measured as one JSON document: its fields, with the noise setting as flat keys."""
    return strict_json({"schema": schema, **flat(record)})


def flat(record: Measured) -> dict[str, Any]:
    """A record's fields for JSON, with the noise setting as flat keys."""
    own = {"snr": record.snr} if isinstance(record, MeasuredAt) else {}
    return {**asdict(record), **own, **_setting(record.noise)}


def _setting(setting: NoiseSetting) -> dict[str, Any]:
    level = level_of(setting)
    return {**setting.whole(), "level_name": level.name, "less_noise": level.less}


def layers_json(
    model: Mapping[str, str],
    setting: NoiseSetting,
    layers: Sequence[LayerInfo],
    notices: Sequence[Notice],
    without: WithoutNoise,
) -> str:
    """A model's noise layers as one JSON document, in the result's form; `without` is what belongs to none of them."""
    return strict_json(
        {
            "schema": LAYERS_SCHEMA,
            "model": dict(model),
            **_setting(setting),
            "layers": [asdict(layer) for layer in layers],
            "without_noise": asdict(without),
            "warnings": [asdict(notice) for notice in notices],
        }
    )


_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|Infinity')


def strict_json(content: dict[str, Any], indent: int | None = 1) -> str:
    """The content as strict JSON in ASCII; an infinite level is written 1e999, which readers take for infinite or very large."""
    text = json.dumps(content, indent=indent)
    return _TOKEN.sub(lambda token: "1e999" if token[0] == "Infinity" else token[0], text) + "\n"
