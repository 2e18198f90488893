"""The image pipeline against plain Pillow: decode, resize and crop on the same number of threads, in turn."""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from onnxnoise.data.cards import load_bundled
from onnxnoise.data.pixels import preprocess
from onnxnoise.data.sources.imagenet.images import open_wordnet_folders
from onnxnoise.data.sources.items import ImageItems
from onnxnoise.machine import cores

_ROUNDS, _IMAGES, _CHUNK = 11, 200, 50
_CARDS = ("template-torchvision", "template-keras-tf", "template-tensorpack")


def loader(options: argparse.Namespace) -> None:
    """Images a second from files on disk to pixels, and the ratio to a thread pool that only calls Pillow.

    On the JPEGs of `--data` if it is an ImageNet folder, else on pictures of ImageNet's mean size made here. Wall time counts
    on a quiet machine; the ratio of processor time holds on a busy one too.
    """
    with tempfile.TemporaryDirectory() as scratch:
        given = Path(options.data) if options.data else None
        folder = given if given is not None and any(given.glob("n*/*.JPEG")) else _made(Path(scratch))
        threads = cores().threads
        print(
            f"loader: {len(list(folder.glob('n*/*')))} JPEGs, {_IMAGES} a round, {_ROUNDS} rounds in turn, {threads} threads"
        )
        for name in _CARDS:
            card = load_bundled(name)
            spec = card.input
            source = open_wordnet_folders(folder, card.dataset, spec)
            files = [item.file for item in source.items]
            rounds: dict[str, list[tuple[float, float]]] = {"onnxnoise": [], "Pillow": []}
            for _ in range(_ROUNDS):
                rounds["onnxnoise"].append(_timed(_ours, source, threads))
                rounds["Pillow"].append(_timed(_pillow, files, spec, threads))
            wall, processor = (
                statistics.median(
                    raw[k] / own[k] for own, raw in zip(rounds["onnxnoise"], rounds["Pillow"], strict=True)
                )
                for k in (0, 1)
            )
            rates = {each: _IMAGES / statistics.median(wall for wall, _ in times) for each, times in rounds.items()}
            print(
                f"  {name:<22} {rates['onnxnoise']:6.0f} images/s, Pillow alone {rates['Pillow']:6.0f}: "
                f"{wall:.2f} of it, {processor:.2f} by processor time"
            )


def _made(folder: Path) -> Path:
    random = np.random.default_rng(0)
    for k in range(50):
        small = Image.fromarray(random.integers(0, 256, (24, 32, 3), np.uint8))
        fine = random.normal(0, 12, (375, 500, 3))
        pixels = np.clip(np.asarray(small.resize((500, 375), Image.Resampling.BICUBIC)) + fine, 0, 255).astype(np.uint8)
        (folder / "n01440764").mkdir(exist_ok=True)
        Image.fromarray(pixels).save(folder / "n01440764" / f"{k:03}.JPEG", quality=90)
    return folder


def _timed(run: Callable[..., None], *given: Any) -> tuple[float, float]:
    """(wall seconds, processor seconds of all threads)."""
    wall, processor = time.perf_counter(), time.process_time()
    run(*given)
    return time.perf_counter() - wall, time.process_time() - processor


def _ours(source: ImageItems, threads: int) -> None:
    count, ranges = len(source), []
    for start in range(0, _IMAGES, _CHUNK):
        first = start % max(count - _CHUNK + 1, 1)
        ranges.append(range(first, min(first + _CHUNK, count)))
    for chunk in source.chunks(ranges, threads=threads):
        assert chunk.pixels.any()


def _pillow(files: list[Path], spec: Any, threads: int) -> None:
    """What a user would write; the resize is Pillow's own also where the card asks for OpenCV's."""
    kernel = preprocess.PILLOW.get(spec.interpolation, Image.Resampling.BICUBIC)

    def one(file: Path) -> Any:
        with Image.open(file) as image:
            rgb = image.convert("RGB")
        rgb = rgb.resize(preprocess.resized(rgb.width, rgb.height, spec), kernel)
        left, top = (rgb.width - spec.size) // 2, (rgb.height - spec.size) // 2
        return np.asarray(rgb.crop((left, top, left + spec.size, top + spec.size)))

    wanted = []
    for start in range(0, _IMAGES, _CHUNK):
        first = start % max(len(files) - _CHUNK + 1, 1)
        wanted += files[first : first + _CHUNK]
    with ThreadPoolExecutor(threads) as pool:
        for pixels in pool.map(one, wanted):
            assert pixels.any()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default=os.environ.get("ONNXNOISE_JPEGS"))
    loader(parser.parse_args())
