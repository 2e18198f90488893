"""Runs the real command line in this process, as a shell would see it."""

from __future__ import annotations

import io
import json
import sys
import unicodedata
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from typing import Any
from unittest import mock

from onnxnoise.cli.app import main


def strict_json(text: str) -> Any:
    """As the standard has it: no NaN, no Infinity."""

    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is no JSON")

    return json.loads(text, parse_constant=refuse)


@dataclass(frozen=True)
class Outcome:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Standard output, which has nothing but JSON on it."""
        return strict_json(self.out)

    @property
    def error(self) -> str:
        """The one line of standard error that begins with `error:`, with no traceback around it."""
        (line,) = [line for line in self.err.splitlines() if line.startswith("error:")]
        assert "Traceback" not in self.err
        return line


def onnxnoise(*arguments: object, columns: int = 80) -> Outcome:
    """`onnxnoise ARGUMENTS`, standard output and error no terminals."""
    out, err = io.StringIO(), io.StringIO()
    argv = ["onnxnoise", *map(str, arguments)]
    with (
        redirect_stdout(out),
        redirect_stderr(err),
        mock.patch.object(sys, "argv", argv),
        mock.patch.dict("os.environ", {"COLUMNS": str(columns)}),
    ):
        try:
            main()
            code: object = 0
        except SystemExit as exit_:
            code = exit_.code
    return Outcome(code if isinstance(code, int) else 0 if code is None else 1, out.getvalue(), err.getvalue())


def refused(outcome: Outcome, code: int, *words: str) -> None:
    """The exit code, nothing on standard output, and one line of error with all these words."""
    assert (outcome.code, outcome.out) == (code, ""), outcome.err
    assert [word for word in words if word not in outcome.error] == [], outcome.error
    assert len(outcome.error) < 900
    assert not any(unicodedata.category(c) in ("Cc", "Cf", "Cs") for line in outcome.err.splitlines() for c in line)
