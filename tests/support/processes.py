"""Real `onnxnoise` processes for tests that stop and kill them, and their run files."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from support import nets

_LOADED = [
    "onnxnoise.run.runner",
    "onnxnoise.cli.output.progress",
    "onnxnoise.cli.output.profile",
    "onnxnoise.cli.output.shards",
    "onnx_ir.passes",
]
PATIENCE = 120.0
"""Seconds for what should take one or two, on a machine that has other things to do."""


def arguments(files: nets.Files, out: Path, *flags: object) -> list[str]:
    """`bench` of the tiny network, its 40 images in five chunks of 8."""
    return [str(each) for each in ("bench", files.model, "--data", files.data, "--out", out, "--memory", "2MB", *flags)]


def started(arguments: list[str], **options: Any) -> subprocess.Popen[str]:
    """`onnxnoise ARGUMENTS`."""
    command = [sys.executable, "-m", "onnxnoise", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


def ended(run: subprocess.Popen[str]) -> tuple[int, str, str]:
    """(exit code, standard output, standard error)."""
    out, err = run.communicate(timeout=PATIENCE)
    return run.returncode, out, err


def forked(arguments: list[str]) -> BaseProcess:
    """The same, from a process that has loaded everything already: it starts at once. Its output goes nowhere."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_LOADED)
    process = context.Process(target=_command, args=(arguments,))
    process.start()
    return process


def _command(arguments: list[str]) -> None:
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)
    from onnxnoise.cli.app import main

    sys.argv = ["onnxnoise", *arguments]
    main()


def tallies(path: Path) -> list[tuple[Any, ...]]:
    """All of them, byte for byte."""
    return rows(path, "SELECT * FROM tally ORDER BY sweep, layer, level, draw, start")


def rows(path: Path, query: str) -> list[tuple[Any, ...]]:
    connection = sqlite3.connect(path, timeout=30)
    try:
        return connection.execute(query).fetchall()
    finally:
        connection.close()


def count(path: Path) -> int:
    """How many tallies are there; 0 before the file is."""
    try:
        return int(rows(path, "SELECT count(*) FROM tally")[0][0]) if path.exists() else 0
    except sqlite3.OperationalError:
        return 0


def until(condition: Callable[[], object]) -> None:
    """Wait for it."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < PATIENCE, "it never came"
        time.sleep(0.005)


def children(pid: int) -> list[int]:
    """Processes that `pid` has started, but for multiprocessing's own helper."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text(errors="replace").rpartition(")")[2].split()
            command = (stat.parent / "cmdline").read_bytes()
        except OSError:
            continue
        if int(fields[1]) == pid and fields[0] not in "ZX" and b"resource_tracker" not in command:
            found.append(int(stat.parent.name))
    return found


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
