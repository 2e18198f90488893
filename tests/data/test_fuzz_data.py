"""Cards, rules, tars and pickles of any content are read or refused: in 10 seconds, in 1 GiB, with no other error and no crash."""

from __future__ import annotations

import contextlib
import resource
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import pytest
from support import data_mutants, fuzz_data
from support.imaging import card, write

from onnxnoise.data.images import open_images

SECONDS = 10
CASES = {"card": 120, "rules": 120, "tar": 200, "pickle": 300}


@pytest.mark.parametrize("kind", CASES)
def test_files_of_any_content(kind: str) -> None:
    child = subprocess.run(
        [
            sys.executable,
            "-c",
            "from data.test_fuzz_data import survive; survive()",
            kind,
            *map(str, range(CASES[kind])),
        ],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={"PYTHONPATH": ":".join(sys.path), "PATH": "/usr/bin:/bin"},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30)),
    )
    assert child.stdout.splitlines()[-1:] == ["done"], f"{kind} {child.stdout.split()[-1:]}: {child.stderr[-1000:]}"


def survive() -> None:
    """Read the files that the command line names by kind and numbers; print each number first, for a crash says nothing."""
    from onnxnoise.data.cards import load_card
    from onnxnoise.data.datasets import Dataset
    from onnxnoise.data.sources.cifar.pickles import unpickle
    from onnxnoise.data.sources.tars import list_tars
    from onnxnoise.decisions.gating.rules import load_rules
    from onnxnoise.errors import InputError

    signal.signal(signal.SIGALRM, _too_long)
    kind, *numbers = sys.argv[1:]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "file"
        tried: dict[str, tuple[Callable[[int], bytes], Callable[[bytes], object]]] = {
            "card": (lambda seed: data_mutants.toml_file(data_mutants.CARD, seed), lambda _: load_card(path)),
            "rules": (lambda seed: data_mutants.toml_file(data_mutants.RULES, seed), lambda _: load_rules(path)),
            "tar": (data_mutants.tar_file, lambda _: [item.read() for item in list_tars([path], Dataset("signs", 3))]),
            "pickle": (data_mutants.pickle_file, unpickle),
        }
        make, read = tried[kind]
        for number in map(int, numbers):
            print(number, flush=True)
            content = make(number)
            path.write_bytes(content)
            signal.alarm(SECONDS)
            with contextlib.suppress(InputError):
                read(content)
            signal.alarm(0)
    print("done")


def _too_long(_number: int, _frame: FrameType | None) -> None:
    raise TimeoutError(f"it took over {SECONDS} s")


def test_good_files_of_every_layout_are_taken(tmp_path: Path) -> None:
    """Those that are damaged below."""
    hits = set()
    (tmp_path / "card").mkdir()
    for number, (files, data) in enumerate(fuzz_data.layouts().values()):
        folder = write(tmp_path / str(number), files)
        path = data.replace("python:", f"python:{folder}/") if data.startswith("python:") else folder / data
        source = open_images(path, card(tmp_path / "card", fuzz_data.CARD))
        hits.add(len(next(iter(source.chunks([range(len(source))]))).labels))
    assert hits == {fuzz_data.COUNT, 10}


def test_damaged_files_of_every_layout_are_taken_or_refused_with_a_reason(tmp_path: Path) -> None:
    """As `python tests/fuzz.py --what data` does for as long as asked."""
    failed = [found for found in fuzz_data.damaged(iter(range(10)), tmp_path) if found.how]
    assert failed == []
