"""Mutated model files for `onnxnoise layers`, for as long as asked: `python tests/fuzz.py --minutes 30`.

Files that it does not take as it should are kept in `--keep`, with what happened; the exit code is 1 then.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from support.fuzzing import failures
from support.model_mutants import mutants


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=int(time.time()), help="of the mutations (default: the time)")
    parser.add_argument("--keep", type=Path, default=Path("fuzz-failures"), help="where files that fail are kept")
    options = parser.parse_args()
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


if __name__ == "__main__":
    sys.exit(main())
