from __future__ import annotations

import math
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import schema
from support.command import strict_json
from support.runfiles import description, identity, packed

from onnxnoise.records import Estimate, LayerInfo, NoiseSetting, Notice, Result, Tally, Unattached, WithoutNoise
from onnxnoise.results.as_json import layers_json, to_json
from onnxnoise.results.question import Question
from onnxnoise.results.run_file.store import RunStore
from onnxnoise.results.summary import summarize
from onnxnoise.statistics import estimates
from onnxnoise.words import Sweep

INF = float("inf")
SNRS = (10.0, 2.5)
Key = tuple[str, int | None, float, int]


class Made:
    """A run file with random hits, and the same hits as plain lists: `top1[key][image]`, key (sweep, layer, snr, draw)."""

    def __init__(
        self, path: Path, *, layers: int = 3, draws: int = 3, chunks: tuple[int, ...] = (13, 8, 9), classes: int = 10
    ) -> None:
        self.path, self.images, self.draws = path, sum(chunks), draws
        self.indices = tuple(range(1, layers + 1))
        rng = np.random.default_rng(0)
        self.keys: list[Key] = [("clean", None, INF, 0)]
        cells: list[tuple[str, int | None]] = [("all", None), *(("single", layer) for layer in self.indices)]
        self.keys += [(sweep, layer, snr, draw) for (sweep, layer), snr, draw in product(cells, SNRS, range(draws))]
        self.top1: dict[Key, list[bool]] = {}
        self.top5: dict[Key, list[bool]] = {}
        self.nonfinite: dict[Key, list[bool]] = {}
        self.negative: dict[Key, int] = {}
        clean = rng.random(self.images) < 0.8
        for key in self.keys:
            sweep, layer, snr, draw = key
            noisy = clean if sweep == "clean" else clean ^ (rng.random(self.images) < 1 / snr)
            self.top1[key] = noisy.tolist()
            self.top5[key] = (noisy | (rng.random(self.images) < 0.5)).tolist()
            self.nonfinite[key] = (
                (~noisy & (rng.random(self.images) < 0.1)).tolist() if sweep != "clean" else [False] * self.images
            )
            self.negative[key] = 2 * draw if layer == 2 else 0
        self.classes = classes
        starts = np.cumsum([0, *chunks[:-1]]).tolist()
        self.chunks = [range(start, start + size) for start, size in zip(starts, chunks, strict=True)]
        with RunStore.open(path, identity(self.indices), description(self.indices)) as store:
            for chunk in self.chunks:
                store.lay_down(chunk.stop, chunk.__len__)
                store.append(self.tallies(chunk))

    def tallies(self, chunk: range) -> Iterator[Tally]:
        for key in self.keys:
            own = slice(chunk.start, chunk.stop)
            top5 = packed(self.top5[key][own]) if self.classes > 5 else b""
            top1, nonfinite = packed(self.top1[key][own]), packed(self.nonfinite[key][own])
            yield Tally(*key, chunk.start, len(chunk), top1, top5, nonfinite, self.negative[key])

    def question(self, **changed: Any) -> Question:
        return replace(Question(SNRS, ("single", "all"), self.draws, self.images, self.indices, "top1"), **changed)

    def result(self, **changed: Any) -> Result:
        with RunStore.existing(self.path) as store:
            result = summarize(store, self.question(**changed))
        assert result is not None
        return result

    def forget(self, condition: str) -> None:
        with RunStore.existing(self.path) as store:
            store.database._connection.execute(f"DELETE FROM tally WHERE {condition}")


def by_hand(made: Made, hits: dict[Key, list[bool]], keys: list[list[Key]], images: int) -> Fraction:
    """The mean over draws of the mean over layers of noisy hits / clean hits; `keys` are [draw][layer]."""
    clean = sum(hits["clean", None, INF, 0][:images])
    ratios = [sum(Fraction(sum(hits[key][:images]), clean) for key in draw) / len(draw) for draw in keys]
    return sum(ratios) / len(ratios)


def same(estimate: Estimate | None, expected: Estimate, mean: Fraction) -> None:
    assert estimate == expected
    assert estimate is not None
    assert math.isclose(estimate.mean, mean, rel_tol=1e-12)


@pytest.mark.parametrize("images", [30, 29, 21, 17, 1], ids=["all", "29", "two chunks", "within a chunk", "one"])
def test_counts_and_ratios_are_those_of_the_lists(images: int, tmp_path: Path) -> None:
    made = Made(tmp_path / "run.sqlite")
    if images == 1:
        made.top1["clean", None, INF, 0][0] = True
        made.forget("sweep = 'clean'")
        with RunStore.existing(made.path) as store:
            store.append(tally for chunk in made.chunks for tally in made.tallies(chunk) if tally.sweep == "clean")
    result = made.result(images=images)
    clean = ("clean", None, INF, 0)
    counts = (sum(made.top1[clean][:images]), sum(made.top5[clean][:images]))
    assert (result.clean.images, result.clean.top1_hits, result.clean.top5_hits, result.clean.nonfinite) == (
        images,
        *counts,
        0,
    )
    assert len(result.cells) == len(SNRS) * 4
    assert result.measured == result.planned == len(SNRS) * 4 * made.draws
    for cell in result.cells:
        keys = [(cell.sweep, cell.layer, cell.snr, draw) for draw in range(made.draws)]
        for key, draw in zip(keys, cell.draws, strict=True):
            assert (draw.draw, draw.images, draw.clean_top1_hits, draw.clean_top5_hits) == (key[3], images, *counts)
            assert draw.top1_hits == sum(made.top1[key][:images])
            assert draw.top5_hits == sum(made.top5[key][:images])
            assert draw.nonfinite == sum(made.nonfinite[key][:images])
            assert draw.negative_variances == made.negative[key]
        for hits, found in ((made.top1, cell.normalized_top1), (made.top5, cell.normalized_top5)):
            stacked = np.array([hits[key][:images] for key in keys])
            expected = estimates.ratio(stacked, np.array(hits[clean][:images]), 0.95)
            same(found, expected, by_hand(made, hits, [[key] for key in keys], images))
        for hits, whole, relative in (
            (made.top1, cell.accuracy_top1, cell.normalized_top1),
            (made.top5, cell.accuracy_top5, cell.normalized_top5),
        ):
            absolute = estimates.accuracy(np.array([hits[key][:images] for key in keys]))
            share = sum(hits[clean][:images]) / images
            reached = relative and relative.target_yield
            assert reached is not None
            assert whole is not None
            assert replace(whole, target_yield=None) == absolute
            assert whole.target_yield == replace(reached, target=pytest.approx(0.95 * share))
    assert [(a.sweep, a.snr, a.layers) for a in result.a_avr] == [("single", snr, 3) for snr in SNRS]
    for average in result.a_avr:
        for hits, found in ((made.top1, average.top1), (made.top5, average.top5)):
            keys = [[("single", layer, average.snr, draw) for layer in made.indices] for draw in range(made.draws)]
            stacked = np.array([[hits[draw[i]][:images] for draw in keys] for i in range(len(made.indices))])
            expected = estimates.average(stacked, np.array(hits[clean][:images]), 0.95)
            same(found, expected, by_hand(made, hits, keys, images))


@pytest.mark.parametrize(
    ("changed", "cells", "averages"),
    [
        ({"levels": (2.5,)}, 4, 1),
        ({"sweeps": ("all",)}, 2, 0),
        ({"sweeps": ("single",)}, 6, 2),
        ({"draws": 2}, 8, 2),
        ({"layers": (2,)}, 4, 2),
    ],
)
def test_a_part_of_what_is_there(changed: dict[str, Any], cells: int, averages: int, tmp_path: Path) -> None:
    made = Made(tmp_path / "run.sqlite")
    result, whole = made.result(**changed), made.result()
    assert (len(result.cells), len(result.a_avr)) == (cells, averages)
    known = {(c.sweep, c.layer, c.snr): c for c in whole.cells}
    for cell in result.cells:
        assert cell.draws == known[cell.sweep, cell.layer, cell.snr].draws[: len(cell.draws)]


@pytest.mark.parametrize(
    ("gone", "cells", "averages"),
    [
        ("sweep = 'single' AND layer = 2 AND level = 10 AND draw = 1", 7, 1),
        ("sweep = 'single' AND layer = 2 AND level = 10 AND draw = 1 AND start = 13", 7, 1),
        ("sweep = 'all'", 6, 2),
        ("sweep != 'clean'", 0, 0),
    ],
)
def test_what_is_not_complete_is_left_out(gone: str, cells: int, averages: int, tmp_path: Path) -> None:
    made = Made(tmp_path / "run.sqlite")
    made.forget(gone)
    result = made.result()
    assert (len(result.cells), len(result.a_avr)) == (cells, averages)
    assert (result.measured, result.planned) == (cells * made.draws, 8 * made.draws)


def test_nothing_before_the_clean_pass(tmp_path: Path) -> None:
    made = Made(tmp_path / "run.sqlite")
    made.forget("sweep = 'clean' AND start = 13")
    with RunStore.existing(made.path) as store:
        assert summarize(store, made.question()) is None
        assert summarize(store, made.question(images=13)) is not None


def test_no_clean_hit_is_said(tmp_path: Path) -> None:
    made = Made(tmp_path / "run.sqlite")
    made.top1["clean", None, INF, 0] = [False] * 30
    made.forget("sweep = 'clean'")
    with RunStore.existing(made.path) as store:
        store.append(tally for chunk in made.chunks for tally in made.tallies(chunk))
        result = summarize(store, made.question())
    assert result is not None
    assert {cell.normalized_top1 for cell in result.cells} == {None}
    assert result.a_avr == ()
    assert next(n.message for n in result.warnings if n.code == "no_clean_hits").startswith("none of 30 images")


def test_one_draw_has_no_interval(tmp_path: Path) -> None:
    result = Made(tmp_path / "run.sqlite").result(draws=1)
    found = [e for c in result.cells for e in (c.normalized_top1, c.normalized_top5)]
    found += [e for a in result.a_avr for e in (a.top1, a.top5)]
    assert {(e.fixed, e.sampled) for e in found if e} == {(None, None)}
    assert [n.code for n in result.warnings if "draw" in n.code] == ["one_draw"]


@pytest.mark.parametrize(("draws", "code"), [(2, ["few_draws"]), (9, ["few_draws"]), (10, [])])
def test_few_draws_are_said(draws: int, code: list[str], tmp_path: Path) -> None:
    result = Made(tmp_path / "run.sqlite", draws=draws, layers=1).result()
    assert [n.code for n in result.warnings if "draws" in n.code] == code


def test_no_top5_of_five_classes(tmp_path: Path) -> None:
    result = Made(tmp_path / "run.sqlite", classes=5).result(metric="top5")
    content = strict_json(to_json(result))
    schema.result(content)
    assert content["clean"]["top5_hits"] is None
    assert {cell["normalized_top5"] for cell in content["cells"]} == {None}
    assert {
        draw[name] for cell in content["cells"] for draw in cell["draws"] for name in ("top5_hits", "clean_top5_hits")
    } == {None}
    assert {average["top5"] for average in content["a_avr"]} == {None}


@pytest.mark.parametrize("sweeps", [("single", "all"), ("single",), ("all",)])
def test_what_the_noise_did_to_variances_and_outputs_is_said(sweeps: tuple[Sweep, ...], tmp_path: Path) -> None:
    made = Made(tmp_path / "run.sqlite")
    messages = {notice.code: notice.message for notice in made.result(sweeps=sweeps).warnings}
    lost = sum(sum(made.nonfinite[key]) for key in made.keys if key[0] in sweeps)
    assert messages["nonfinite"].startswith(f"{lost} noisy outputs")
    if "single" in sweeps:
        assert (
            "in 1 layer, in 2 of 3 draws, in up to 4 channels at once; such a variance is stored as 0 (--bn group)"
            in messages["negative_variances"]
        )
    else:
        assert "negative_variances" not in messages, "none of the whole-network cells had any"


HOSTILE = 'net": Infinity, "x": NaN \\" \x1b[31mred\x1b[0m [bold]\n\u202egnp.exe <b>&amp;|`$(x)`\udcff : Infinity'


def test_json_is_strict_and_complete_whatever_the_names(tmp_path: Path) -> None:
    path = tmp_path / "run.sqlite"
    made = Made(path)
    path.unlink()
    with RunStore.open(path, identity(made.indices), description(made.indices, HOSTILE)) as store:
        for chunk in made.chunks:
            store.lay_down(chunk.stop, chunk.__len__)
            store.append(made.tallies(chunk))
    made.keys = [(sweep, layer, INF, draw) for sweep, layer, snr, draw in made.keys if snr == 10]
    for sweep, layer, _, draw in made.keys:
        for table in (made.top1, made.top5, made.nonfinite):
            table[sweep, layer, INF, draw] = table[sweep, layer, 10.0, draw]
        made.negative[sweep, layer, INF, draw] = 0
    with RunStore.existing(path) as store:
        store.append(tally for chunk in made.chunks for tally in made.tallies(chunk))
    text = to_json(made.result(levels=(10.0, INF)))
    assert text.isascii()
    content = strict_json(text)
    schema.result(content)
    assert content["schema"] == "onnxnoise/result/1"
    assert content["model"] == {"name": HOSTILE, "sha256": "a" * 64}
    assert {layer["name"] for layer in content["layers"]} == {HOSTILE}
    assert content["warnings"][0] == {"code": "tied_kernels", "message": f"about {HOSTILE}"}
    assert {cell["snr"] for cell in content["cells"]} == {10.0, INF}
    assert '"snr": 1e999' in text


def test_json_of_layers() -> None:
    infos = [LayerInfo(1, HOSTILE, "conv", 0, 0.0, ())]
    content = strict_json(
        layers_json(
            {"name": HOSTILE, "sha256": ""},
            NoiseSetting(bn="affine", sigma_scope="layer"),
            infos,
            [Notice("code", HOSTILE)],
            WithoutNoise(3, 0.25, (Unattached(HOSTILE, "Max", 3),)),
        )
    )
    schema.layer_list(content)
    assert content["without_noise"]["initializers"] == [{"name": HOSTILE, "operator": "Max", "elements": 3}]
    assert (content["bn"], content["sigma_scope"], content["layers"][0]["name"]) == ("affine", "layer", HOSTILE)


def test_a_large_run_is_never_unpacked_at_once(tmp_path: Path) -> None:
    layers, draws, images = tuple(range(1, 81)), 5, 16_000
    rng = np.random.default_rng(0)
    with RunStore.open(tmp_path / "run.sqlite", identity(layers), description(layers)) as store:
        store.lay_down(images, lambda: images)
        for layer in (0, *layers):
            keys = [("single", layer, 10.0, draw) for draw in range(draws)] if layer else [("clean", None, INF, 0)]
            bits = rng.bytes(images // 8)
            store.append(Tally(*key, 0, images, bits, bits, bits, 0) for key in keys)
        tracemalloc.start()
        result = summarize(store, Question((10.0,), ("single",), draws, images, layers, "top1"))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert result is not None
    assert len(result.cells) == len(layers)
    assert peak < 2 * len(layers) * draws * images / 3, "a byte a decision would be twice the product"
