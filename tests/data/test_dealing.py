"""Images are dealt to chunks in a random order that the seed decides, whatever the order of the file, and nothing else is read."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from support import graphs, nets
from support.imaging import card, flat_color, write

from onnxnoise.data.dealing import dealt, permutation
from onnxnoise.data.images import open_images
from onnxnoise.data.sources.base import ImageSource
from onnxnoise.results.run_file.store import RunStore
from onnxnoise.run import runner
from onnxnoise.run.experiment import Experiment
from onnxnoise.run.opening import open_run
from onnxnoise.spec import BenchSpec

COUNT, CLASSES = 60, 6
IMAGES = np.arange(0, 4 * COUNT, 4, dtype=np.uint8)[:, None, None, None] * np.ones((1, 8, 8, 3), np.uint8)
LABELS = np.arange(COUNT) * CLASSES // COUNT


def npz(folder: Path) -> Path:
    np.savez(folder / "plain.npz", x=IMAGES, y=LABELS)
    return folder / "plain.npz"


def compressed(folder: Path) -> Path:
    np.savez_compressed(folder / "small.npz", x=IMAGES, y=LABELS)
    return folder / "small.npz"


def class_folders(folder: Path) -> Path:
    names = [f"images/{label}/{number:02}.png" for number, label in enumerate(LABELS)]
    write(folder, {name: flat_color(int(image[0, 0, 0])) for name, image in zip(names, IMAGES, strict=True)})
    return folder / "images"


def opened(data: Path) -> ImageSource:
    names = ",".join(f'"{label}"' for label in range(CLASSES))
    return open_images(data, card(data.parent, f'[input]\ndataset = "signs"\nclasses = [{names}]\nsize = 8'))


@pytest.mark.parametrize("kept", [npz, compressed, class_folders])
def test_every_chunk_is_read_from_where_it_was_dealt(kept: Callable[[Path], Path], tmp_path: Path) -> None:
    source = opened(kept(tmp_path))
    pile = dealt(source, 50, seed=3)
    assert (len(pile), pile.digest, pile.name) == (50, source.digest, source.name)
    in_order = next(iter(source.chunks([range(COUNT)]))).pixels
    positions = permutation(50, 3)
    assert sorted(positions) == list(range(50))
    for ranges in ([range(7), range(7, 20), range(20, 50)], [range(31, 33)]):
        chunks = list(pile.chunks(ranges, threads=2))
        assert [chunk.start for chunk in chunks] == [each.start for each in ranges]
        for chunk, asked in zip(chunks, ranges, strict=True):
            for row, place in enumerate(asked):
                assert np.array_equal(chunk.pixels[row], in_order[positions[place]])
                assert chunk.labels[row] == source.labels[positions[place]] == pile.labels[place]


def test_only_the_images_of_the_chunks_asked_for_are_read(tmp_path: Path) -> None:
    source = opened(class_folders(tmp_path))
    pile = dealt(source, COUNT, seed=3)
    first, later = (next(iter(pile.chunks([asked]))) for asked in (range(10), range(10, 20)))
    names = {int(chunk.pixels[row, 0, 0, 0]) // 4 for chunk in (first, later) for row in range(10)}
    for number, label in enumerate(LABELS):
        if number not in names:
            (tmp_path / f"images/{label}/{number:02}.png").unlink()
    again = list(pile.chunks([range(10), range(10, 20)]))
    assert np.array_equal(np.concatenate([each.pixels for each in again]), np.concatenate([first.pixels, later.pixels]))


def test_the_order_of_the_file_does_not_matter() -> None:
    labels = np.repeat(np.arange(10), 400)
    for seed in range(5):
        positions = permutation(4000, seed)
        counts = np.array([np.bincount(labels[positions[at : at + 50]], minlength=10) for at in range(0, 4000, 50)])
        chi_square = np.square(counts - 5).sum(axis=1) / 5  # of nine degrees of freedom
        assert abs(chi_square.mean() - 9) < 4 * np.sqrt(18 / len(counts))
        halves = np.array([positions[:2000].mean(), positions[2000:].mean()])
        assert np.abs(halves - 1999.5).max() < 4 * 4000 / np.sqrt(12 * 2000)


def test_the_order_is_the_same_for_ever() -> None:
    assert permutation(12, 40).tolist() == [9, 10, 2, 3, 0, 11, 4, 6, 7, 8, 1, 5]
    assert permutation(12, 41).tolist() != permutation(12, 40).tolist()


def test_an_older_chunked_run_goes_on_in_the_order_of_the_data(tmp_path: Path) -> None:
    files = nets.bench_files(tmp_path, count=320)
    right = np.array(nets.hits(graphs.run(onnx.load(files.model), files.inputs), files.labels, 1))
    asked = BenchSpec(str(files.model), data=str(files.data), snrs=(20.0,), sweeps=("all",), budget=60.0, max_draws=4)
    for name, order in (("old", np.arange(320)), ("new", permutation(320, 40))):
        spec = replace(asked, out=str(tmp_path / name))
        if name == "old":
            open_run(Experiment.opened(spec, kept={"design": "nested"})).store.close()
        runner.bench(spec)
        with ThreadPoolExecutor(1) as executor:
            runner.bench(replace(spec, max_draws=6), executor=executor)
        with RunStore.existing(tmp_path / name) as store:
            size = len(store.chunks()[0])
            assert store.identity.get("order") == (None if name == "old" else "dealt")
            clean = [tally.top1 for tally in store.tallies("clean")]
        assert clean == [np.packbits(right[order][at : at + size]).tobytes() for at in range(0, 6 * size, size)]
