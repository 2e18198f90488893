"""Run files of the chunked design, where each chunk of images meets draws of its own: figures, rounds, what is said of them."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import schema
from support.command import strict_json
from support.runfiles import description, identity, packed

from onnxnoise.records import Result, Tally
from onnxnoise.results.as_json import to_json
from onnxnoise.results.chunked import next_draws
from onnxnoise.results.question import Question
from onnxnoise.results.run_file.store import RunStore
from onnxnoise.results.summary import summarize
from onnxnoise.statistics.clustered import ChunkHits, estimate_chunks, estimate_chunks_accuracy, estimate_layers
from onnxnoise.statistics.stopping import half_width

INF = float("inf")
CHUNK = 30
KEYS = (("all", None), ("single", 1), ("single", 2), ("cumulative", 1), ("cumulative", 2))


class Made:
    """A run file of the chunked design: draw d meets chunk d; how often a cell's images are misread varies with `spread`."""

    def __init__(self, path: Path, *, chunks: int = 64, classes: int = 10) -> None:
        self.path, self.classes = path, classes
        random = np.random.default_rng(1)
        self.clean = random.random((chunks, CHUNK)) < 0.9
        self.spread = {("all", None): 2.0, ("single", 1): 0.02, ("single", 2): 0.2}
        self.bits: dict[tuple[str, int | None, float, int], Any] = {}
        for (sweep, layer), snr, draw in itertools.product(KEYS, (10.0, 2.5), range(chunks)):
            rate = random.random() * self.spread.get((sweep, layer), 0.1) / snr
            self.bits[sweep, layer, snr, draw] = self.clean[draw] ^ (random.random(CHUNK) < rate)
        with RunStore.open(path, identity((1, 2)) | {"design": "nested"}, description((1, 2))) as store:
            store.lay_down(chunks * CHUNK, lambda: CHUNK)

    def tally(self, sweep: str, layer: int | None, snr: float, draw: int) -> Tally:
        hits = self.clean[draw] if sweep == "clean" else self.bits[sweep, layer, snr, draw]
        top5 = packed((hits | (np.arange(CHUNK) % 2 == 0)).tolist()) if self.classes > 5 else b""
        nonfinite = packed((~hits & (np.arange(CHUNK) == 0)).tolist())
        number = 0 if sweep == "clean" else draw
        return Tally(sweep, layer, snr, number, draw * CHUNK, CHUNK, packed(hits.tolist()), top5, nonfinite, number % 2)

    def measure(self, draws: Callable[[str, int | None, float], range]) -> None:
        with RunStore.existing(self.path) as store:
            known = {key[4] // CHUNK for key in store.done()}
            for (sweep, layer), snr in itertools.product(KEYS, (10.0, 2.5)):
                own = draws(sweep, layer, snr)
                store.append(self.tally("clean", None, INF, draw) for draw in set(own) - known)
                store.append(self.tally(sweep, layer, snr, draw) for draw in own)

    def question(self, **changed: Any) -> Question:
        asked = Question((10.0, 2.5), ("single", "cumulative", "all"), 64, 64 * CHUNK, (1, 2), "top1", precision=0.02)
        return replace(asked, **changed)

    def result(self, **changed: Any) -> Result:
        with RunStore.existing(self.path) as store:
            result = summarize(store, self.question(**changed))
        assert result is not None
        return result

    def next(self, **changed: Any) -> dict[tuple[str, int | None, float], int]:
        with RunStore.existing(self.path) as store:
            found = next_draws(store, self.question(**changed))
        assert all(draws == list(range(len(draws))) for draws in found.values())
        return {cell: len(draws) for cell, draws in found.items()}

    def expected(self, key: tuple[str, int | None, float], draws: range, images: int = 10**9) -> dict[int, ChunkHits]:
        cell = {}
        for draw in draws:
            own = min(CHUNK, images - draw * CHUNK)
            if own > 0:
                noisy, clean = self.bits[*key, draw][:own].tolist(), self.clean[draw][:own].tolist()
                pairs = list(zip(clean, noisy, strict=True))
                cell[draw * CHUNK] = ChunkHits(
                    own, sum(clean), 1, pairs.count((True, False)), pairs.count((False, True))
                )
        return cell


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Cells with different numbers of draws, as when some stop before others."""
    made = Made(tmp_path_factory.mktemp("nested") / "run.sqlite")
    made.measure(lambda sweep, layer, snr: range(32 if snr == 10 else 48 if layer == 2 else 64))
    return made


@pytest.mark.parametrize("images", [64 * CHUNK, 20 * CHUNK + 7])
def test_a_nested_run_file_s_figures_are_those_of_the_lists(images: int, made: Made) -> None:
    result = made.result(images=images)
    assert (result.design, result.precision, len(result.cells)) == ("nested", 0.02, 10)
    for cell in result.cells:
        key = (cell.sweep, cell.layer, cell.snr)
        draws = range(32 if cell.snr == 10 else 48 if cell.layer == 2 else 64)
        expected = made.expected(key, draws, images)
        assert cell.normalized_top1 == estimate_chunks(expected)
        assert cell.accuracy_top1 == estimate_chunks_accuracy(expected)
        assert cell.precise == (half_width(estimate_chunks(expected)) <= 0.02)
        for draw, (start, chunk) in zip(cell.draws, expected.items(), strict=True):
            assert (draw.draw, draw.images, draw.clean_top1_hits) == (start // CHUNK, chunk.images, chunk.clean)
            assert draw.top1_hits == chunk.clean - chunk.lost + chunk.gained
            top5 = made.bits[*key, draw.draw] | (np.arange(CHUNK) % 2 == 0)
            assert draw.top5_hits == int(top5[: chunk.images].sum())
            assert draw.nonfinite == int(~made.bits[*key, draw.draw][0])
            assert draw.negative_variances == draw.draw % 2
        assert cell.normalized_top5 is not None
        top5_hits = [(draw.top5_hits or 0, draw.clean_top5_hits or 0) for draw in cell.draws]
        assert cell.normalized_top5.mean == pytest.approx(sum(a for a, _ in top5_hits) / sum(b for _, b in top5_hits))
    for average in result.a_avr:
        draws = [range(32 if average.snr == 10 else most) for most in (64, 48)]
        layers = [made.expected(("single", i + 1, average.snr), own, images) for i, own in enumerate(draws)]
        assert (average.layers, average.top1) == (2, estimate_layers(layers))
        singles = [
            c.normalized_top1.mean
            for c in result.cells
            if c.sweep == "single" and c.snr == average.snr and c.normalized_top1
        ]
        assert average.top1.mean == pytest.approx(np.mean(singles))
    assert [(average.sweep, average.snr) for average in result.a_avr] == [("single", 10.0), ("single", 2.5)]
    seen = made.clean.ravel()[:images]
    assert (result.clean.images, result.clean.top1_hits) == (images, int(seen.sum()))
    schema.result(strict_json(to_json(result)))


def test_a_part_of_a_nested_run(made: Made) -> None:
    result = made.result(draws=20, sweeps=("all",), levels=(10.0,), precision=None)
    assert [len(cell.draws) for cell in result.cells] == [20]
    assert result.cells[0].normalized_top1 == estimate_chunks(made.expected(("all", None, 10.0), range(20)))
    assert (result.cells[0].precise, result.precision) == (None, None)


def test_five_classes_have_no_top5(tmp_path: Path) -> None:
    made = Made(tmp_path / "run.sqlite", chunks=3, classes=5)
    assert made.next() == {(sweep, layer, snr): 32 for (sweep, layer), snr in itertools.product(KEYS, (10.0, 2.5))}
    with RunStore.existing(made.path) as store:
        assert summarize(store, made.question()) is None, "before the first clean pass"
    made.measure(lambda *_: range(3))
    result = made.result(metric="top5")
    assert {(cell.normalized_top5, cell.accuracy_top5) for cell in result.cells} == {(None, None)}
    assert {average.top5 for average in result.a_avr} == {None}
    assert {notice.code for notice in result.warnings} >= {"few_draws"}
    assert next(n.message for n in result.warnings if n.code == "few_draws").startswith("few draws in 10 of 10 cells")
    schema.result(strict_json(to_json(result)))


def test_cells_go_on_until_they_are_precise_or_have_the_most(tmp_path: Path) -> None:
    made = Made(tmp_path / "run.sqlite")
    rounds = []
    while wanted := made.next():
        rounds.append(wanted)
        result = made.result() if len(rounds) > 1 else None
        if result is not None:
            assert result.planned == sum(
                {**{(c.sweep, c.layer, c.snr): len(c.draws) for c in result.cells}, **wanted}.values()
            )
        made.measure(lambda *key: range(wanted.get(key, 0)))
    assert (set(rounds[0].values()), len(rounds[0])) == ({32}, 10)
    assert all(set(after) <= set(before) for before, after in itertools.pairwise(rounds))
    result = made.result()
    assert result.measured == result.planned
    draws = {(cell.sweep, cell.layer, cell.snr): len(cell.draws) for cell in result.cells}
    assert (draws["single", 1, 10.0], draws["all", None, 2.5]) == (32, 64)
    short = [cell for cell in result.cells if cell.precise is False]
    assert {len(cell.draws) for cell in short} == {64}
    message = next(notice.message for notice in result.warnings if notice.code == "not_precise")
    assert message.startswith(f"{len(short)} of 10 cells are not known to +-0.02 after 64 draws: ")
    assert "all layers at SNR 2.5 (+-" in message
    assert "; the draws are the limit: --max-draws " in message


def test_a_gap_in_the_draws_is_filled_first(made: Made, tmp_path: Path) -> None:
    """A worker that was killed leaves one; what it lacks decides, not what comes after it."""
    other = Made(tmp_path / "run.sqlite")
    other.measure(lambda sweep, layer, snr: range(64))
    with RunStore.existing(other.path) as store:
        store.database._connection.execute("DELETE FROM tally WHERE sweep = 'all' AND level = 2.5 AND draw = 20")
    assert other.next(sweeps=("all",), levels=(2.5,)) == {("all", None, 2.5): 32}


def test_streams_of_shards_are_looked_at_apart(made: Made, tmp_path: Path) -> None:
    """Each has every second chunk, 32 draws before its first look, and a precision that two of them together make the whole's."""
    other = Made(tmp_path / "run.sqlite")
    cell: tuple[Any, ...] = ("all", None, 2.5)
    asked = other.question(sweeps=("all",), levels=(2.5,), streams=2, draws=192)
    with RunStore.existing(other.path) as store:
        assert next_draws(store, asked) == {cell: [*range(0, 64, 2), *range(1, 64, 2)]}
        assert next_draws(store, asked, 1) == {cell: list(range(1, 64, 2))}
    other.measure(lambda *key: range(0, 64, 2) if key == cell else range(0))
    with RunStore.existing(other.path) as store:
        found = next_draws(store, asked)[cell]
        assert found[-32:] == list(range(1, 64, 2)), "the other shard's are lacking"
        width = half_width(estimate_chunks(other.expected(cell, range(0, 64, 2))))
        calm = replace(asked, precision=width / 2**0.5 * 1.001)
        assert next_draws(store, calm) == {cell: list(range(1, 64, 2))}
        assert len(next_draws(store, replace(asked, precision=width / 2**0.5 * 0.999))[cell]) > 64
