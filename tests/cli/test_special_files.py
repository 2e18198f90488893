"""Pipes, devices and sockets in the place of files are refused at once: reading one may never end."""

from __future__ import annotations

import os
import socket
import threading
from pathlib import Path

import pytest
from support import nets
from support.command import onnxnoise

OWN = '[input]\ndataset = "own"\nclasses = 10\nsize = 32\n'
RULE = '[[rule]]\nname = "a"\nsnr = 10\nmin = 0.5\n'
BENCH = ("bench", "tiny.onnx", "--provider", "cpu", "--draws", "1", "--snr", "10", "--data")


@pytest.fixture(params=["pipe", "socket", "device"])
def special(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a file that is none, beside a model, a card and rules."""
    nets.bench_files(tmp_path)
    monkeypatch.chdir(tmp_path)
    Path("own.toml").write_text(OWN)
    Path("rules.toml").write_text(RULE)
    if request.param == "device":
        return "/dev/zero"
    if request.param == "pipe":
        os.mkfifo("special")
    else:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind("special")
    return "special"


@pytest.mark.parametrize(
    "command",
    [
        ("layers", "{}"),
        (*BENCH, "{}"),
        (*BENCH, "{}", "--card", "own.toml"),
        (*BENCH, "test_batch.bin", "--card", "{}"),
        ("gate", "tiny.onnx", "--rules", "{}"),
        ("gate", "{}", "--rules", "rules.toml"),
        ("cards", "show", "{}"),
        (*BENCH, "test_batch.bin", "--out", "{}"),
    ],
)
def test_named_on_the_command_line(command: tuple[str, ...], special: str) -> None:
    outcome = within_seconds(*(word.format(special) for word in command))
    assert outcome.code == 3
    assert f"{special}: " in outcome.error
    assert "regular file" in outcome.error


@pytest.mark.parametrize("name", ["a.tar", "a.npz", "a.npy", "val.txt", "cls/a/x.png", "test_batch.bin"])
def test_inside_of_data(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nets.bench_files(tmp_path)
    monkeypatch.chdir(tmp_path)
    Path("own.toml").write_text(OWN.replace("10", '["a", "b"]') if "cls" in name else OWN)
    nets.saved(nets.residual(nets.weights(classes=2 if "cls" in name else 10)))
    path = Path("data") / name
    path.parent.mkdir(parents=True)
    os.mkfifo(path)
    given = "data/cls" if "cls" in name else "data" if name in ("a.tar", "test_batch.bin") else path
    card = ("--card", "own.toml") if name != "test_batch.bin" else ()
    outcome = within_seconds(*BENCH, given, *card)
    assert outcome.code == 3, outcome.err


def within_seconds(*words: object):
    """The outcome of a command, which a thread would open the pipe for if the command waited for a writer."""
    done = threading.Event()

    def rescue() -> None:
        if not done.wait(30):
            os.kill(os.getpid(), 2)

    watch = threading.Thread(target=rescue, daemon=True)
    watch.start()
    try:
        return onnxnoise(*words)
    finally:
        done.set()
        watch.join()
