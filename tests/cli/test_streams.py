"""Exit codes mean what they say, with any standard output: closed, full, or without a reader."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.runfiles import RunFile

FAILING = '[[rule]]\nname = "broken"\nsnr = 2.5\nmin = 0.999\n'
PASSING = '[[rule]]\nname = "fine"\nsnr = 10\nmin = 0.01\n'
PROGRAM = f"{sys.executable} -m onnxnoise"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("streams")
    RunFile(path / "run.sqlite", snrs=(10.0, 2.5), sweeps=("all",), draws=12)
    (path / "fail.toml").write_text(FAILING)
    (path / "pass.toml").write_text(PASSING)
    return path


def shell(folder: Path, command: str, rest: str, **environment: str) -> tuple[int, str]:
    """(exit code, standard error) of a command whose output goes where `rest` says; `| true` reads none of it."""
    told = subprocess.run(
        ["bash", "-c", f"( {PROGRAM} {command} {'' if rest.startswith('|') else rest} 2>err; echo $? >code ) {rest if rest.startswith('|') else ''}"],
        cwd=folder, env={**os.environ, **environment}, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert told.stderr == ""
    return int((folder / "code").read_text()), (folder / "err").read_text()


@pytest.mark.parametrize("rest", ["| true", ">&-", ">/dev/full"])
@pytest.mark.parametrize(
    ("command", "code"),
    [
        ("gate run.sqlite --rules fail.toml --json - -q", 1),
        ("gate run.sqlite --rules pass.toml", 0),
        ("gate none.sqlite --rules pass.toml", 3),
    ],
)
def test_a_verdict_is_what_was_decided(command: str, code: int, rest: str, folder: Path) -> None:
    found, said = shell(folder, command, rest, GITHUB_ACTIONS="true")
    assert found == code, said
    assert "Traceback" not in said
    assert "a bug" not in said


@pytest.mark.parametrize(
    ("rest", "code", "word"),
    [("| true", 0, ""), (">&-", 3, "error: standard output can't be written"), (">/dev/full", 3, "No space left")],
)
@pytest.mark.parametrize("command", ["compare run.sqlite other.sqlite --json -", "--help"])
def test_output_that_is_lost_is_said(command: str, rest: str, code: int, word: str, folder: Path) -> None:
    RunFile(folder / "other.sqlite", model="other", seed=1, snrs=(10.0,), sweeps=("all",))
    found, said = shell(folder, command, rest)
    assert (found, "Traceback" in said) == (code, False)
    assert word in said


def test_a_run_goes_on_when_nobody_listens(tmp_path: Path) -> None:
    command = "bench resnet20-cifar10 --limit 8 --draws 1 --snr 5 --sweep all --out run.sqlite 2>&1"
    done = subprocess.run(
        ["bash", "-c", f"( {PROGRAM} {command}; echo $? >code ) | true; {PROGRAM} report run.sqlite -o rows.csv 2>/dev/full"],
        cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert (done.returncode, done.stderr, (tmp_path / "code").read_text()) == (0, "", "0\n")
    assert len((tmp_path / "rows.csv").read_text().splitlines()) == 2


def test_python_s_own_warnings_are_not_shown(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import threading, warnings\n"
        "import onnxnoise.errors as errors\n"
        "old = errors.RunFileError.__init__\n"
        "def told(self, *words):\n    warnings.warn('old thing', DeprecationWarning, stacklevel=1)\n    warnings.warn('odd')\n    old(self, *words)\n"
        "errors.RunFileError.__init__ = told\n"
    )
    here = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    for flags, shown in ([], False), (["-W", "always"], True):
        command = [sys.executable, *flags, "-m", "onnxnoise", "report", "none.sqlite"]
        done = subprocess.run(command, env=here, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 3
        assert ("odd" in done.stderr) is shown, done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="file names there are text")
def test_paths_that_are_not_utf_8(tmp_path: Path) -> None:
    odd = tmp_path / os.fsdecode(b"fold\xe9r \xff")
    odd.mkdir()
    RunFile(odd / os.fsdecode(b"r\xfcn.sqlite"), snrs=(10.0, 2.5), sweeps=("all",), draws=12)
    (odd / os.fsdecode(b"\xe9.toml")).write_text(FAILING)
    for code, words in (
        (1, ["gate", b"r\xfcn.sqlite", "--rules", b"\xe9.toml", "--json", b"\xe8.json", "--junit", b"\xe8.xml"]),
        (0, ["report", b"r\xfcn.sqlite", "-o", b"r\xe8.html"]),
        (0, ["report", b"r\xfcn.sqlite", "-o", b"r\xe8.csv"]),
        (
            0,
            [
                "bench",
                "resnet20-cifar10",
                "--limit",
                "8",
                "--draws",
                "1",
                "--snr",
                "5",
                "--sweep",
                "all",
                "--out",
                b"b\xe9.sqlite",
            ],
        ),
        (3, ["report", b"n\xf6ne.sqlite"]),
    ):
        done = subprocess.run(
            [sys.executable, "-m", "onnxnoise", *words], cwd=odd, capture_output=True, check=False, timeout=120
        )  # fmt: skip
        assert done.returncode == code, done.stderr
        assert b"Traceback" not in done.stderr
        done.stdout.decode("utf-8")
        done.stderr.decode("utf-8")
    assert (odd / os.fsdecode(b"b\xe9.sqlite")).is_file()
