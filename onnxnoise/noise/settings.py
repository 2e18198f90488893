"""Reads the noise setting of a run back from the identity that its run file keeps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from onnxnoise.errors import UsageError
from onnxnoise.noise.maps import kept_map
from onnxnoise.noise.models import parse_chain
from onnxnoise.records import NoiseSetting


def setting_of(identity: Mapping[str, Any]) -> NoiseSetting:
    """The setting that `NoiseSetting.flat` wrote, as a run file's identity keeps it.

    Raises KeyError or ValueError where the identity holds no setting.
    """
    try:
        steps = parse_chain(identity.get("noise", "gaussian"), identity.get("noise_files", ()))
        mapped = kept_map(identity.get("noise_map"), steps)
    except UsageError as error:
        raise ValueError(str(error)) from error
    return NoiseSetting(
        steps,
        identity["seed"],
        identity["bn"],
        identity["sigma_scope"],
        identity.get("scale", "tensor"),
        identity.get("analog", "all"),
        identity.get("compensate", "none"),
        identity.get("calibration", 0),
        mapped,
    )
