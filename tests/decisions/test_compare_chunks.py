"""Models measured chunk by chunk, compared: the law of a difference against a jackknife, and the command on two networks."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
from support import nets
from support.command import onnxnoise, refused

from onnxnoise.statistics.clustered import ChunkHits, Chunks, contrast_layers, estimate_chunks


def cells(seed: int, size: int, images: int = 6400) -> tuple[dict[int, ChunkHits], dict[int, ChunkHits]]:
    """Two models' chunks of the same images: both lose more where the block of 64 is a hard one."""
    random = np.random.default_rng(seed)
    hard = np.repeat(random.random(images // 64), 64 // size)
    found = []
    for cost in (0.2, 0.25):
        lost = random.binomial(size, np.clip(cost * (0.5 + hard), 0, 1))
        found.append({i * size: ChunkHits(size, size, 1, int(each), 0) for i, each in enumerate(lost)})
    return found[0], found[1]


def ratio(chunks: Chunks) -> float:
    return 1 - sum(one.lost for one in chunks.values()) / sum(one.clean * one.draws for one in chunks.values())


@pytest.mark.parametrize("sizes", [(32, 32), (16, 64), (64, 32)])
def test_a_difference_is_paired_by_blocks(sizes: tuple[int, int]) -> None:
    first, second = cells(1, sizes[0])[0], cells(1, sizes[1])[1]
    block = max(sizes)
    value, law = contrast_layers([first], [second], block)
    assert value == pytest.approx(ratio(first) - ratio(second))
    left_out = [
        ratio({start: one for start, one in first.items() if start // block != gone})
        - ratio({start: one for start, one in second.items() if start // block != gone})
        for gone in range(6400 // block)
    ]
    error = (len(left_out) - 1) ** 0.5 * float(np.std(left_out))
    assert law is not None
    low, high = law.interval()
    assert (high - low) / 2 == pytest.approx(scipy.stats.t.ppf(0.975, len(left_out) - 1) * error, rel=0.03)
    _, alone = contrast_layers([first])
    assert alone is not None
    assert alone.interval() == pytest.approx(estimate_chunks(first).sampled)


def test_equal_models_differ_by_nothing_and_one_chunk_says_nothing() -> None:
    chunks, _ = cells(2, 32)
    value, law = contrast_layers([chunks], [chunks], 32)
    assert value == 0.0
    assert law is not None
    assert law.interval()[0] < 0.0 < law.interval()[1], "the rule of three remains"
    assert contrast_layers([{0: ChunkHits(9, 9, 1, 1, 0)}])[1] is None


def test_the_command_in_both_designs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = nets.bench_files(tmp_path, count=128)
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b"):
        shutil.copy(files.model, f"{name}.onnx")
        Path(f"{name}.toml").write_text(nets.CARD)
    flags = ("--data", files.data, "--snr", "5", "--layers", "1-3")
    for name in ("a", "b"):
        assert onnxnoise("bench", f"{name}.onnx", *flags, "--out", f"{name}.sqlite").code == 0
    found = onnxnoise("compare", "a.sqlite", "b.sqlite", "--json", "-").json
    assert {each["tied"] for each in found["differences"]} == {True}
    assert {each["mean"] for each in found["differences"]} == {0.0}
    assert {each["paired"] for each in found["differences"]} == {"image and draw"}
    shown = onnxnoise("bench", "a.onnx", *flags, "--out", "a.sqlite", "--json", "-").json
    (cell,) = [each for each in shown["cells"] if each["sweep"] == "all"]
    (placing,) = [
        each for each in found["figures"] if each["quantity"] == "all" and each["model"] == found["models"][0]["label"]
    ]
    assert placing["normalized"]["mean"] == pytest.approx(cell["normalized_top1"]["mean"])
    assert placing["normalized"]["sampled"] == pytest.approx(cell["normalized_top1"]["sampled"])
    assert placing["normalized"]["fixed"] is None
    assert found["models"][0]["clean_hits"] == shown["clean"]["top1_hits"]
    assert onnxnoise("bench", "b.onnx", *flags, "--draws", "2", "--out", "every.sqlite").code == 0
    refused(onnxnoise("compare", "a.sqlite", "every.sqlite"), 3, "every draw on every image", "without")
    assert onnxnoise("bench", "b.onnx", *flags, "--seed", "7", "--out", "seed.sqlite").code == 0
    refused(onnxnoise("compare", "a.sqlite", "seed.sqlite"), 3, "seed", "7")
