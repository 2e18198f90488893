"""Which layers to keep digital: the plan does what it says, on draws that a run of its own repeats."""

from __future__ import annotations

from pathlib import Path

import pytest
from support import nets
from support.command import onnxnoise, refused

from onnxnoise.decisions.design import digital_layers as digital
from onnxnoise.errors import Interrupted
from onnxnoise.results.run_file.store import RunStore
from onnxnoise.run import runner
from onnxnoise.run.loading import open_model
from onnxnoise.selection import index_ranges
from onnxnoise.spec import BenchSpec


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> nets.Files:
    return nets.bench_files(tmp_path_factory.mktemp("digital"), count=80)


def spec(files: nets.Files, out: Path, **changed: object) -> BenchSpec:
    asked = {"draws": 3, "target": 0.9, "bn": "affine", **changed}
    return BenchSpec(str(files.model), data=str(files.data), out=str(out), **asked)  # type: ignore[arg-type]


def whole(files: nets.Files, out: Path, layers: str | None, seed: int, draws: int) -> object:
    asked = spec(files, out, snrs=(20.0,), sweeps=("all",), layers=layers, seed=seed, draws=draws)
    return runner.bench(asked).cells[0].normalized_top1


def _flags(files: nets.Files, out: Path, fresh_draws: int) -> tuple[str | Path, ...]:
    few = ("--target", "0.9", "--draws", "3", "--fresh-draws", str(fresh_draws), "--bn", "affine")
    return ("--data", files.data, "--out", out, *few)


def test_a_plan_is_what_bench_measures(files: nets.Files, tmp_path: Path) -> None:
    made = digital.plan(spec(files, tmp_path / "run"), snr=20.0, fresh_draws=6)
    assert made.met
    assert 0 < len(made.digital) < 5
    assert sorted([*made.noisy, *(layer.index for layer in made.digital)]) == [1, 2, 3, 4, 5]
    assert made.fresh_seed != made.seed
    assert made.verified == whole(files, tmp_path / "a", index_ranges(made.noisy), made.fresh_seed, 6)
    assert made.verified.mean >= 0.9 > made.without.mean
    assert made.without == whole(files, tmp_path / "b", None, 40, 3)
    path = tmp_path / "map.toml"
    path.write_text(digital.as_map(made))
    asked = spec(files, tmp_path / "c", sweeps=("all",), seed=made.fresh_seed, draws=6, noise_map=str(path))
    assert runner.bench(asked).cells[0].normalized_top1 == made.verified
    total = sum(layer.parameters for layer in open_model(str(files.model), bn="affine").layers)
    assert made.share == pytest.approx(sum(layer.parameters for layer in made.digital) / total)


def test_nothing_is_kept_where_nothing_is_needed(files: nets.Files, tmp_path: Path) -> None:
    made = digital.plan(spec(files, tmp_path / "run"), snr=1000.0, fresh_draws=3)
    assert (made.digital, made.share, made.met, made.noisy) == ((), 0.0, True, (1, 2, 3, 4, 5))


def test_all_is_kept_where_no_noise_is_bearable(files: nets.Files, tmp_path: Path) -> None:
    made = digital.plan(spec(files, tmp_path / "run", target=1.0), snr=0.05, fresh_draws=3)
    assert (len(made.digital), made.share, made.verified.mean, made.met) == (5, 1.0, 1.0, True)
    assert "all_digital" in [notice.code for notice in made.warnings]


@pytest.mark.parametrize(("noise", "levels"), [("quantize", (3.0,)), ("relative:0.4", None)])
def test_layers_are_rated_at_levels_that_the_noise_has(
    files: nets.Files, tmp_path: Path, noise: str, levels: tuple[float, ...] | None
) -> None:
    made = digital.plan(
        spec(files, tmp_path / "run", noise=noise, levels=levels, draws=2, target=1.0, bn="clean"), fresh_draws=2
    )
    assert made.digital


def test_where_nothing_is_random_one_draw_is_every_chip(files: nets.Files, tmp_path: Path) -> None:
    asked = ("--data", files.data, "--out", tmp_path / "run", "--noise", "quantize", "--levels", 3, "--target", 0.9)
    outcome = onnxnoise("plan", files.model, *asked)
    assert "the plan meets the target on these images; nothing is random" in outcome.out
    assert "fresh" not in outcome.out
    assert "--draws" not in outcome.err, "more draws would be the same one"
    assert onnxnoise("plan", files.model, *asked, "--json", "-").json["fresh_draws"] == 1


def test_a_share_that_is_too_small(files: nets.Files, tmp_path: Path) -> None:
    total = sum(value.size for value in files.weights.values())
    largest = 30 / total  # one batch norm at most
    made = digital.plan(spec(files, tmp_path / "run"), snr=0.5, fresh_draws=3, max_share=largest)
    assert not made.met
    assert made.share <= largest
    flags = _flags(files, tmp_path / "run", fresh_draws=3)
    outcome = onnxnoise("plan", files.model, *flags, "--snr", "0.5", "--max-share", largest)
    assert outcome.code == 1
    assert "miss the target" in outcome.out


def test_the_command(files: nets.Files, tmp_path: Path) -> None:
    flags = _flags(files, tmp_path / "run", fresh_draws=6)
    outcome = onnxnoise("plan", files.model, *flags, "--snr", "20", columns=120)
    assert outcome.code == 0, outcome.err
    assert "of 5 layers digital" in outcome.out
    assert "fresh draws meet the target" in outcome.out
    assert "rating each layer alone" in outcome.err
    written = onnxnoise("plan", files.model, *flags, "--snr", "20", "--json", "-", "-q")
    assert written.json["schema"] == "onnxnoise/plan/1"
    assert "digital" not in written.err
    assert written.json["met"] is True


def test_a_plan_that_was_stopped_goes_on(files: nets.Files, tmp_path: Path) -> None:
    """Nothing is measured twice: the second time all that the first one told of comes from the files."""
    told: list[str] = []

    def stop(text: str) -> None:
        told.append(text)
        if len(told) == 3:
            raise KeyboardInterrupt

    asked = spec(files, tmp_path / "run.sqlite")
    with pytest.raises(Interrupted, match=r"kept in .*run\.sqlite and .*run\.plan: the same command goes on"):
        digital.plan(asked, snr=20.0, fresh_draws=3, tell=stop)
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "run.plan").iterdir()}
    assert kept
    began: list[str] = []
    made = digital.plan(asked, snr=20.0, fresh_draws=3, tell=began.append)
    assert began[:3] == told
    assert made == digital.plan(spec(files, tmp_path / "other.sqlite"), snr=20.0, fresh_draws=3)
    for path in kept:
        with RunStore.existing(path) as store:
            assert len(store.runs()) == 1, "it was measured once"


def test_bad_input(files: nets.Files, tmp_path: Path) -> None:
    flags = (files.model, "--data", files.data, "--out", tmp_path / "run")
    refused(onnxnoise("plan", *flags, "--snr", "5", "--target", "1.5"), 2, "--target", "1.5")
    refused(onnxnoise("plan", *flags, "--snr", "inf"), 2, "--snr")
    refused(onnxnoise("plan", *flags, "--snr", "5,2"), 2, "--snr", "2 are given", "takes one")
    refused(onnxnoise("plan", *flags, "--snr", "5", "--max-share", "2"), 2, "--max-share")
    refused(onnxnoise("plan", *flags, "--snr", "5", "--fresh-draws", "1"), 2, "--fresh-draws")
    assert not (tmp_path / "run").exists()


def test_a_dry_run_says_at_least_and_at_most(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = nets.bench_files(tmp_path, count=40)
    monkeypatch.chdir(tmp_path)
    asked = ("plan", files.model, "--data", files.data, "--snr", 3, "--draws", 2, "--fresh-draws", 4)
    told = onnxnoise(*asked, "--dry-run", "--json", "-").json
    layers, images, sets = told["layers"], 40, 2 * (3 + 5)
    assert layers == 5
    assert told["least"]["passes"] == images * (1 + 2) * (1 + 2)
    ratings = images * (1 + 3 * layers * 2)
    assert told["most"]["passes"] == images * (1 + 2) * (1 + 3 * (sets + 2)) + ratings
    assert 0 < told["least"]["seconds"] < told["most"]["seconds"]
    assert not list(tmp_path.glob("*.sqlite")) + list(tmp_path.glob("*.plan"))
    shown = onnxnoise(*asked, "--dry-run").out
    assert "sets of noisy layers, at most: " in shown
    assert "expected time: " in shown
