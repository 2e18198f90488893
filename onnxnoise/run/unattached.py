"""Refuses a network of which too many parameters would stay without noise, since no layer holds them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from onnxnoise.errors import ModelError
from onnxnoise.model.network import Network
from onnxnoise.records import Unattached, WithoutNoise
from onnxnoise.text import counted, shortened

MOST = 0.01
"""The largest share of all parameters that may stay without noise, a fraction of 1."""

_NAMED = 3
_NOTICE = re.compile(r"([\d,]+) (?:tensors|initializers), ([\d.]+)\s?% of all parameters")
"""The notice by which run files tell of it that were written before their description had the count."""


def check_attached(network: Network, model: str, *, allowed: bool) -> None:
    """Raise ModelError where more than MOST of a network's parameters belong to no layer, unless that is `allowed`."""
    if network.unattached_share > MOST and not allowed:
        raise ModelError(
            f"{model}: {_said(without_noise(network))} would stay without noise, so its accuracy would be another network's; "
            "export it so that each weight is a constant operand of its layer's own operator (unrolled, not scripted; before "
            "quantization and fusion), or measure the rest with --allow-unattached, which a gate never does"
        )


def without_noise(network: Network) -> WithoutNoise:
    """The part of a network that belongs to no layer."""
    largest = sorted(network.unattached, key=lambda each: -each.elements)
    return WithoutNoise(sum(each.elements for each in largest), network.unattached_share, tuple(largest))


def refused_by_gate(description: Mapping[str, Any]) -> str | None:
    """Why no gate may pass a run file of this description: what stayed without noise in it; None where one may."""
    kept = description.get("without_noise")
    if kept is not None:
        found = WithoutNoise(
            kept["elements"], kept["share"], tuple(Unattached(**each) for each in kept["initializers"])
        )
        return _said(found) if found.share > MOST else None
    for notice in description["notices"]:
        told = _NOTICE.match(notice["message"]) if notice["code"] == "unattached" else None
        if told and float(told[2]) > 100 * MOST:
            return f"{told[1]} initializers, {told[2]} % of its parameters, that belong to no noise layer"
    return None


def _said(found: WithoutNoise) -> str:
    tensors = found.initializers
    named = ", ".join(f"{shortened(each.name, 60)} into {shortened(each.operator, 40)}" for each in tensors[:_NAMED])
    more = f" and {len(tensors) - _NAMED:,} more" if len(tensors) > _NAMED else ""
    return (
        f"{counted(len(tensors), 'initializer')} of {found.elements:,} values, {100 * found.share:.3g} % of its "
        f"parameters, that belong to no noise layer ({named}{more})"
    )
