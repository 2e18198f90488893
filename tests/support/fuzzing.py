"""Gives mutated files to the command line in a child process with limits, and tells what no file may cause."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ALLOWED = (0, 3)
"""A table, or a reason."""


@dataclass(frozen=True)
class Failure:
    """A file on which the command line did what it must not: `how` says it."""

    what: str
    how: str
    content: bytes


class Child:
    """A process that reads one file after the other; after its death another takes its place."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "model.onnx"
        self._process: subprocess.Popen[str] | None = None

    def ask(self, content: bytes) -> str | None:
        """What is wrong with how the command line takes this file; None where it takes or refuses it as it should."""
        self.path.write_bytes(content)
        return self.run("layers", str(self.path))

    def run(self, *command: str) -> str | None:
        """What is wrong with how the command line takes a command; None where it does or refuses it as it should."""
        process = self._started()
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(command) + "\n")
        process.stdin.flush()
        line = process.stdout.readline()
        if not line:
            code = process.wait()
            process.stdin.close()
            process.stdout.close()
            self._process = None
            return f"ended the process with {code}"
        code, said, _ = json.loads(line)
        if code not in ALLOWED:
            return f"exit code {code}: {said}"
        return None if code == 0 or said.startswith("error: ") else f"no reason: {said}"

    def _started(self) -> subprocess.Popen[str]:
        if self._process is None:
            here: dict[str, Any] = {**os.environ}
            here["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parents[1]), here.get("PYTHONPATH", "")])
            self._process = subprocess.Popen(
                [sys.executable, "-m", "support.fuzz_child"],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=here,
            )  # fmt: skip
        return self._process

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            assert self._process.stdin is not None
            self._process.stdin.close()
            self._process.wait()
            if self._process.stdout is not None:
                self._process.stdout.close()


def failures(files: Iterable[tuple[str, bytes]], folder: Path) -> Iterator[Failure]:
    """The files among `files`, (what was done, content), that the command line does not take as it should."""
    child = Child(folder)
    try:
        for what, content in files:
            if how := child.ask(content):
                yield Failure(what, how, content)
    finally:
        child.close()
