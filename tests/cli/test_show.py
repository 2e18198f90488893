"""`show` and `ls`: finished runs looked at without a model, the cumulative table and the curve against slow counts."""

from __future__ import annotations

import fcntl
import json
import os
import re
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean

import pytest
from support import nets
from support.command import onnxnoise, refused
from support.runfiles import HOSTILE, RunFile

from onnxnoise.results.reading import results_of

NAMES = tuple(f"layer{i}" for i in range(1, 13))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_show_prints_what_bench_printed(folder: Path) -> None:
    files = nets.bench_files(folder)
    command = ("bench", files.model, "--data", files.data, "--snr", "10,2", "--draws", "2", "--out", "run.sqlite")
    benched = onnxnoise(*command, "--sweep", "single,cumulative,all")
    assert "`onnxnoise show run.sqlite`" in benched.err
    files.model.unlink()
    files.data.unlink()
    shown = onnxnoise("show", "run.sqlite")
    assert (shown.code, shown.out) == (0, benched.out)
    assert onnxnoise("show", "run.sqlite", "--json", "-").json["schema"] == "onnxnoise/result/1"
    refused(onnxnoise("bench", "run.sqlite"), 3, "`onnxnoise show run.sqlite`")
    refused(onnxnoise("show", "none.sqlite"), 3, "no such run file")
    refused(onnxnoise("show", "run.sqlite", "run.sqlite", "--json", "-"), 2, "--json", "one at a time")


def test_the_cumulative_table_by_slow_counts(folder: Path) -> None:
    run = RunFile(folder / "run.sqlite", names=NAMES, snrs=(100.0, 5.0, 1.0), draws=12, chunks=(60, 60))
    for columns in (80, 120):
        lines = onnxnoise("show", "run.sqlite", columns=columns).out.splitlines()
        at = next(i for i, line in enumerate(lines) if line.startswith("Noise in layers 1 to L"))
        assert max(map(len, lines[at : at + 9])) <= columns
        depths = [int(text) for text in re.findall(r"L=(\d+)", lines[at + 2])]
        assert (depths[0], depths[-1]) == (1, 12)
        for line in lines[at + 4 : at + 7]:
            snr, nine, five, _, *shares = line.split()
            means = {}
            for layer in range(1, 13):
                hits = [sum(run.top1["cumulative", layer, float(snr), draw]) for draw in range(12)]
                means[layer] = fmean(hits) / sum(run.top1["clean", None, float("inf"), 0])
            assert [f"{means[layer]:.2f}" for layer in depths] == shares
            for found, share in ((nine, 0.9), (five, 0.5)):
                first = next((layer for layer in means if means[layer] <= share), None)
                assert found == ("-" if first is None else str(first))


def test_fewer_images_than_asked_for_are_said(folder: Path) -> None:
    RunFile(folder / "run.sqlite", names=NAMES, snrs=(5.0,), draws=2, chunks=(60, 60))
    result = results_of("run.sqlite")
    assert " on 120 images of " in result.about(str, 120)
    assert " on 60 of 120 images of " in result.about(str, 60)


@pytest.mark.parametrize("columns", [80, 120])
def test_a_terminal_breaks_no_word(folder: Path, columns: int) -> None:
    RunFile(folder / "run.sqlite", names=NAMES, snrs=(100.0, 5.0, 1.0), draws=12, chunks=(60, 60))
    ours, its = os.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    command = [sys.executable, "-m", "onnxnoise", "show", "run.sqlite"]
    environment = {key: text for key, text in os.environ.items() if key not in ("COLUMNS", "NO_COLOR")} | {
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "TERM": "xterm",
    }
    with subprocess.Popen(command, stdout=its, stderr=its, env=environment) as running:
        os.close(its)
        shown = b""
        try:
            while piece := os.read(ours, 65536):
                shown += piece
        except OSError:  # how Linux says that the other end is closed
            pass
    os.close(ours)
    assert running.returncode == 0
    lines = re.sub(r"\x1b\[[0-9;]*m", "", shown.decode()).splitlines()
    assert max(map(len, lines)) <= columns
    piped = onnxnoise("show", "run.sqlite", columns=columns)
    assert " ".join(lines).split() == (piped.out + piped.err).split()


def test_the_curve_is_as_long_as_the_accuracy(folder: Path) -> None:
    run = RunFile(folder / "run.sqlite", snrs=(100.0, 1.0), sweeps=("all",), draws=12, chunks=(60, 60))
    clean = sum(run.top1["clean", None, float("inf"), 0])
    lines = onnxnoise("show", "run.sqlite").out.splitlines()
    for snr in (100, 1):
        (line,) = [line for line in lines if re.match(rf" *SNR {snr} [█┊]", line)]
        mean = fmean(sum(run.top1["all", None, float(snr), draw]) for draw in range(12)) / clean
        assert line.endswith(f" {mean:.2f}")
        assert line.count("█") == pytest.approx(60 * mean, abs=2)
    RunFile(folder / "one.sqlite", snrs=(100.0,), sweeps=("all",))
    assert "█" not in onnxnoise("show", "one.sqlite").out, "one level is no curve"


def test_the_list_of_a_folder(folder: Path) -> None:
    assert "no run files in ." in onnxnoise("ls").out
    RunFile(folder / "a.sqlite", snrs=(10.0,), sweeps=("all",), model=HOSTILE[5], dataset="cifar10")
    RunFile(folder / "b.sqlite", snrs=(10.0,), sweeps=("single",), bn="affine")
    (folder / "notes.txt").write_text("no run")
    (folder / "c.sqlite").write_bytes((folder / "a.sqlite").read_bytes()[:2000])
    outcome = onnxnoise("ls", folder)
    assert outcome.code == 0
    assert [line for line in outcome.out.splitlines() if line.endswith(".sqlite")] == [
        "a.sqlite",
        "b.sqlite",
        "c.sqlite",
    ]
    assert "not readable" in outcome.out
    assert "batch norms: affine" in outcome.out
    assert "with noise in all layers: " in outcome.out
    assert "A_avr: " in outcome.out
    assert "\x1b" not in outcome.out
    listed = onnxnoise("ls", folder, "--json", "-").json
    assert [bool(each["problem"]) for each in listed["runs"]] == [False, False, True]
    assert json.dumps(listed)
    refused(onnxnoise("ls", "a.sqlite"), 3, "is no folder", "onnxnoise show a.sqlite")


def test_quiet_keeps_warnings_that_change_the_meaning(folder: Path) -> None:
    files = nets.bench_files(folder)
    command = ("bench", files.model, "--data", files.data, "--snr", "0.5", "--draws", "2", "--sweep", "all")
    loud, quiet = onnxnoise(*command), onnxnoise(*command, "-q")
    assert "few draws" in loud.err
    assert "few draws" not in quiet.err
    assert [line for line in quiet.err.splitlines() if "negative" in line]


def test_the_list_of_commands_is_not_cut() -> None:
    for text in (onnxnoise("--help").out, onnxnoise("cards", "--help").out):
        assert "..." not in text.partition("Commands:")[2]
