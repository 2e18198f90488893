"""Mutated files for as long as asked: models, with `--what runs` run files, with `--what data` images: `python tests/fuzz.py --minutes 30`.

Files that it does not take as it should are kept in `--keep`, with what happened; the exit code is 1 then.
"""

from __future__ import annotations

import argparse
import itertools
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from support.fuzz_data import damaged
from support.fuzz_runs import mutated, small, wrong
from support.fuzzing import failures
from support.model_mutants import mutants


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=int(time.time()), help="of the mutations (default: the time)")
    parser.add_argument("--keep", type=Path, default=Path("fuzz-failures"), help="where files that fail are kept")
    parser.add_argument("--what", choices=("models", "runs", "data"), default="models", help="which files are mutated")
    options = parser.parse_args()
    if options.what == "runs":
        return _runs(options.seed, 60 * options.minutes, options.keep)
    if options.what == "data":
        return _data(options.seed, 60 * options.minutes, options.keep)
    end, tried, failed = time.monotonic() + 60 * options.minutes, 0, 0

    def until() -> Iterator[tuple[str, bytes]]:
        nonlocal tried
        for each in mutants(options.seed):
            if time.monotonic() > end:
                return
            tried += 1
            yield each

    with tempfile.TemporaryDirectory() as folder:
        for found in failures(until(), Path(folder)):
            failed += 1
            options.keep.mkdir(exist_ok=True)
            (options.keep / f"{options.seed}-{tried}.onnx").write_bytes(found.content)
            print(f"{options.seed}-{tried}.onnx: {found.what}: {found.how}", flush=True)
    print(f"seed {options.seed}: {tried} files, {failed} not taken as they should be")
    return 1 if failed else 0


def _runs(first: int, seconds: float, keep: Path) -> int:
    """Mutated run files, with every command that reads one."""
    end, seed, failed = time.monotonic() + seconds, first, 0
    with tempfile.TemporaryDirectory() as folder:
        good = small(Path(folder) / "good.sqlite")
        while time.monotonic() < end:
            own = Path(folder) / str(seed)
            own.mkdir()
            mutant = own / "run.sqlite"
            done = mutated(good, mutant, seed)
            if how := wrong(mutant, good, own):
                failed += 1
                keep.mkdir(exist_ok=True)
                shutil.copyfile(mutant, keep / f"run-{seed}.sqlite")
                print(f"run-{seed}.sqlite: {done}: {how}", flush=True)
            shutil.rmtree(own)
            seed += 1
    print(f"seeds {first} to {seed - 1}: {seed - first} run files, {failed} not taken as they should be")
    return 1 if failed else 0


def _data(first: int, seconds: float, keep: Path) -> int:
    """Mutated data files of every layout, with `bench`."""
    end, failed, seed = time.monotonic() + seconds, 0, first
    with tempfile.TemporaryDirectory() as folder:
        for found in damaged(
            itertools.takewhile(lambda _: time.monotonic() < end, itertools.count(first)), Path(folder)
        ):
            seed = found.seed
            if found.how:
                failed += 1
                shutil.copytree(found.folder, keep / f"data-{found.seed}", dirs_exist_ok=True)
                print(f"data-{found.seed}: {found.what}: {found.how}", flush=True)
            shutil.rmtree(found.folder)
    print(f"seeds {first} to {seed}: {failed} not taken as they should be")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
