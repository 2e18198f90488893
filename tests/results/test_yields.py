"""The yield in words, against draws counted by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from support import nets

from onnxnoise.records import Result
from onnxnoise.results.yields import yield_of
from onnxnoise.run.runner import bench
from onnxnoise.spec import BenchSpec


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> Result:
    folder: Path = tmp_path_factory.mktemp("yields")
    files = nets.bench_files(folder)
    spec = BenchSpec(str(files.model), data=str(files.data), snrs=(20.0, 2.0), sweeps=("single", "all"), draws=6)
    return bench(replace(spec, target=0.9, layers="1-2", out=str(folder / "run.sqlite")))


def test_it_counts_the_chips_on_these_images(result: Result) -> None:
    said = yield_of(result)
    assert said is not None
    assert said.startswith("yield of these images, the share of chips that keep 0.9 of the clean accuracy: ")
    for cell in result.cells:
        if cell.sweep == "all":
            kept = [draw.top1_hits / draw.clean_top1_hits for draw in cell.draws]
            share = sum(one >= 0.9 for one in kept) / 6
            assert f"{share:.2f} [" in said
            assert f", the worst {min(kept):.2f}, at SNR {cell.level:g}" in said


def test_where_no_cell_has_all_layers_noisy_there_is_none(result: Result) -> None:
    assert yield_of(replace(result, cells=tuple(cell for cell in result.cells if cell.sweep == "single"))) is None


def test_where_every_chip_is_the_same_there_is_none(result: Result) -> None:
    assert yield_of(replace(result, noise=BenchSpec("", noise="quantize").setting)) is None
