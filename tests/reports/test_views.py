"""Labels, metrics, chance and depth of runs as a report shows them, held against lists and hits laid down by hand."""

from __future__ import annotations

import math
from pathlib import Path

from support.reports import ratio, seen
from support.runfiles import RunFile

from onnxnoise.reports.views import depths, views
from onnxnoise.results.falls import falls
from onnxnoise.results.reading import open_run_file
from onnxnoise.statistics.correlation import spearman


class TestChance:
    """Cumulative curves whose accuracies are laid down by hand."""

    def falls(
        self, path: Path, right: list[list[int]], dataset: str = "cifar10"
    ) -> list[tuple[int | None, int | None, int | None]]:
        """`right`: hits of 100 images by draw and L. Of each SNR: the L from which chance is reached, the last one surely above,
        the first from which on all are surely below twice chance.
        """
        made = RunFile(
            path / "run.sqlite",
            names="abcdef"[: len(right[0])],
            chunks=(100,),
            draws=len(right),
            snrs=(5.0,),
            sweeps=("cumulative",),
            dataset=dataset,
        )
        made.path.unlink()
        for draw, hits in enumerate(right):
            for layer, count in enumerate(hits, 1):
                made.top1["cumulative", layer, 5.0, draw] = [i < count for i in range(100)]
        made.top1["clean", None, math.inf, 0] = [True] * 100
        made.write()
        (view,) = seen(made)
        return [
            (fall.cell and fall.cell.layer, fall.above, fall.below)
            for fall in falls(view.result, view.metric, view.chance)
        ]

    def test_where_the_interval_reaches_it_for_good(self, tmp_path: Path) -> None:
        assert self.falls(tmp_path, [[90, 50, 10, 40, 9, 11], [91, 51, 12, 41, 10, 9], [90, 50, 11, 42, 11, 10]]) == [
            (5, 4, 5)
        ]

    def test_never(self, tmp_path: Path) -> None:
        assert self.falls(tmp_path, [[90, 80], [91, 81], [90, 79]]) == [(None, 2, None)]

    def test_at_once(self, tmp_path: Path) -> None:
        assert self.falls(tmp_path, [[9, 11], [10, 10], [11, 9]]) == [(1, None, 1)]

    def test_few_draws_that_differ_can_not_tell(self, tmp_path: Path) -> None:
        assert self.falls(tmp_path, [[90, 90], [90, 10]]) == [(2, 1, None)]

    def test_one_draw_has_no_interval(self, tmp_path: Path) -> None:
        assert self.falls(tmp_path, [[90, 11, 10, 9]]) == [(3, 2, 2)]

    def test_of_more_classes(self, tmp_path: Path) -> None:
        assert self.falls(tmp_path, [[90, 11, 2, 1]], dataset="cifar100") == [(4, 3, 4)]

    def test_no_chance_without_the_classes(self, tmp_path: Path) -> None:
        assert self.falls(tmp_path, [[90, 11]], dataset="own") == []


def test_depth_is_the_rank_correlation_of_the_table(run: RunFile) -> None:
    (view,) = seen(run)
    found = list(depths(view))
    assert [each.level for each in found] == [10.0, 2.5]
    for each in found:
        layers = [1.0, 2.0, 3.0, 4.0]
        assert each.correlation == spearman(layers, [ratio(run, "single", i, each.level).mean for i in (1, 2, 3, 4)])
        for draw, rho in enumerate(each.draws):
            alone = spearman(layers, [float(sum(run.top1["single", i, each.level, draw])) for i in (1, 2, 3, 4)])
            assert alone is not None
            assert rho == alone.rho


def test_labels_are_distinct(run: RunFile, tmp_path: Path) -> None:
    twin = tmp_path / "twin.sqlite"
    twin.write_bytes(run.path.read_bytes())
    found = views([open_run_file(path) for path in (run.path, twin)])
    assert [view.label for view in found] == ["net [1: net.sqlite]", "net [2: twin.sqlite]"]


def test_top5(run: RunFile, tmp_path: Path) -> None:
    (view,) = views([open_run_file(run.path)], "top5")
    assert view.clean == sum(run.top5["clean", None, math.inf, 0]) / run.images
    assert view.chance == 0.5
    few = RunFile(tmp_path / "run.sqlite", classes=5)
    assert views([open_run_file(few.path)], "top5")[0].metric == "top1"
