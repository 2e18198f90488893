"""Make the bundled `cifar10-sample`: the first 100 images of each class of the CIFAR-10 test set, in the set's order.

python examples/make_cifar10_sample.py cifar-10-batches-bin/test_batch.bin datasets/cifar10-sample.bin.gz
"""

from __future__ import annotations

import gzip
import hashlib
import sys
from pathlib import Path

import numpy as np

PER_CLASS = 100


def main(source: Path, target: Path) -> None:
    records = np.fromfile(source, np.uint8).reshape(-1, 3073)
    chosen = np.sort(np.concatenate([np.flatnonzero(records[:, 0] == label)[:PER_CLASS] for label in range(10)]))
    content = records[chosen].tobytes()
    target.write_bytes(gzip.compress(content, compresslevel=9, mtime=0))
    print(f"{target}: {len(chosen)} images, sha256 of the records {hashlib.sha256(content).hexdigest()}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
