"""`onnxnoise init-gate`: rules and pipeline jobs to start from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from onnxnoise.cli.options import Printer
from onnxnoise.fields import flag
from onnxnoise.flags import Given, from_flags


@dataclass(frozen=True, kw_only=True)
class InitGateFlags:
    """The flags that say for which model, and where the files go."""

    model: str = flag("", "MODEL", "An ONNX file, or a bundled model's name")
    out: str = flag("--out", "FOLDER", "Where the files go; it is made", default=".")


def init_gate(own: InitGateFlags, given: Given, printer: Printer) -> None:
    """Write rules, a GitHub workflow and a GitLab job to start from, with a target that a quick profile of the model suggests.

    The flags given here stand in the rules' [bench].
    """
    from onnxnoise.cli.output import verdicts
    from onnxnoise.decisions.gating import starting

    made = starting.start(from_flags(own.model, **given), given, Path(own.out), printer.progress)
    verdicts.started(printer.shown, made)
