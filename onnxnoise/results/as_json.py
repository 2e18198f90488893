"""Results as JSON documents: strict JSON in ASCII that every reader takes."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from onnxnoise.records import LayerInfo, Notice, Policy, Result, SigmaScope

SCHEMA = "onnxnoise/result/1"
LAYERS_SCHEMA = "onnxnoise/layers/1"


def to_json(result: Result) -> str:
    """The result as one JSON document, schema `onnxnoise/result/1`."""
    return strict_json({"schema": SCHEMA, **asdict(result)})


def layers_json(
    model: Mapping[str, str],
    bn: Policy,
    sigma_scope: SigmaScope,
    layers: Sequence[LayerInfo],
    notices: Sequence[Notice],
) -> str:
    """A model's noise layers as one JSON document, in the result's form."""
    return strict_json(
        {
            "schema": LAYERS_SCHEMA,
            "model": dict(model),
            "bn": bn,
            "sigma_scope": sigma_scope,
            "layers": [asdict(layer) for layer in layers],
            "warnings": [asdict(notice) for notice in notices],
        }
    )


_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|Infinity')


def strict_json(content: dict[str, Any]) -> str:
    """Strict JSON in ASCII; an infinite SNR is written 1e999, which every reader takes for infinite or its largest number."""
    text = json.dumps(content, indent=1)
    return _TOKEN.sub(lambda token: "1e999" if token[0] == "Infinity" else token[0], text) + "\n"
