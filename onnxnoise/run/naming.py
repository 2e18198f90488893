"""The usual name of a run file, which tells apart the runs that one file can't hold."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path

from onnxnoise.records import NoiseSetting
from onnxnoise.run.experiment import Experiment
from onnxnoise.run.jobs import identity
from onnxnoise.selection import index_ranges
from onnxnoise.words import DEFAULT_SEED

_LONGEST_PART, _LONGEST_RANGES, _LONGEST = 24, 12, 72
_PREFIXES = {"sigma_scope": "sigma-", "seed": "seed-"}
"""Prefixes of the parts of a noise setting whose value alone says little."""


def run_path(experiment: Experiment, folder: Path | None = None) -> Path:
    """The path of an experiment's run file: the one of its spec, else the usual name in `folder`, by default here."""
    return Path(experiment.spec.out) if experiment.spec.out else (folder or Path()) / usual_name(experiment)


def usual_name(experiment: Experiment) -> str:
    """The model's name, what is unusual about the run, and 8 digits of the digest of all that a run file's tallies share.

    So two runs have the same name exactly where one file can hold them both.
    """
    kept = json.dumps(identity(experiment), sort_keys=True)
    digest = hashlib.sha256(kept.encode()).hexdigest()[:8]
    unusual = "-".join(filter(None, map(_plain, _unusual(experiment))))[:_LONGEST].strip("-")
    return "-".join(filter(None, (experiment.subject.network.name, unusual, digest))) + ".sqlite"


def _unusual(experiment: Experiment) -> Iterator[str]:
    """The readable parts: the data's name, the noise where it is not the usual one, the layers where they are chosen."""
    network, setting = experiment.subject.network, experiment.spec.setting
    if experiment.images.name != f"{experiment.card.input.dataset}-sample":
        yield experiment.images.name
    if experiment.spec.by_clean:
        yield "clean-labels"
    usual = NoiseSetting(analog="all" if setting.chain == "gaussian" else "kernels", seed=DEFAULT_SEED).whole()
    for name, value in setting.whole().items():
        if value != usual[name]:
            yield f"{_PREFIXES.get(name, '')}{value}"
    layers = [layer.index for layer in experiment.subject.layers]
    if len(layers) < len(network.layers):
        ranges = index_ranges(layers)
        yield f"layers-{ranges}" if len(ranges) <= _LONGEST_RANGES else f"{len(layers)}-layers"
    if experiment.spec.chunked:
        yield "chunks"
    if experiment.provider.name != "CPUExecutionProvider":
        yield experiment.provider.name.removesuffix("ExecutionProvider").lower()


def _plain(part: str) -> str:
    """A part as every file system takes it and no shell needs quotes for."""
    return re.sub(r"[^A-Za-z0-9._]+", "-", part)[:_LONGEST_PART].strip("-.")
