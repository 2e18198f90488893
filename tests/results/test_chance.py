"""Chance: a model that knows nothing is never called robust, whatever command looks at it."""

from __future__ import annotations

import json
from fractions import Fraction
from math import comb
from pathlib import Path

import pytest
from support import nets
from support.command import onnxnoise, refused

from onnxnoise.records import Chance
from onnxnoise.results.chance import SURE, at_chance, is_at_chance, largest_classes
from onnxnoise.results.reading import open_run_file
from onnxnoise.statistics.distributions import at_least

QUICK = ("--snr", "10", "--draws", "2", "--sweep", "all", "--provider", "cpu")
BLIND = '[input]\ndataset = "cifar10"\nmean = 1e6\n'
"""A card after which every image looks the same to the model."""


def tail(hits: int, images: int, share: Fraction) -> float:
    """P(X >= hits), summed in exact fractions."""
    return float(sum(comb(images, k) * share**k * (1 - share) ** (images - k) for k in range(hits, images + 1)))


@pytest.mark.parametrize(("images", "share"), [(1, Fraction(1, 2)), (7, Fraction(1, 7)), (60, Fraction(1, 10))])
def test_the_tail_is_the_sum_of_its_masses(images: int, share: Fraction) -> None:
    for hits in range(images + 1):
        assert at_least(hits, images, float(share)) == pytest.approx(tail(hits, images, share), rel=1e-9)
    assert at_least(images + 1, images, float(share)) == 0.0


def test_the_line_between_chance_and_more() -> None:
    share = Fraction(1, 10)
    told = [hits for hits in range(101) if not is_at_chance(hits, 100, 0.1)]
    assert told == [hits for hits in range(101) if tail(hits, 100, share) <= SURE]
    assert is_at_chance(100, 100, 1.0), "where all labels are the same, nothing can be shown"
    assert largest_classes([3, 1, 3, 2, 3, 1, 0, 4, 5, 6]) == [3, 2, 1, 1, 1]


def test_where_every_image_is_right_the_labels_are_the_cause() -> None:
    """As under --labels clean: no preprocessing is to blame for that."""
    said = at_chance(20, 20, Chance(0.9, 1.0), "top1")
    assert said is not None
    assert "100.0% of 20 images, can't be told from chance (90.0%" in said
    assert said.endswith("take more images, or such of more classes")
    assert "the labels count the classes in another order" in (at_chance(19, 20, Chance(0.9, 1.0), "top1") or "")
    assert at_chance(20, 20, Chance(0.5, 1.0), "top1") is None


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    nets.bench_files(tmp_path)
    (tmp_path / "blind.toml").write_text(BLIND)
    (tmp_path / "rules.toml").write_text('[[rule]]\nname = "any"\nsnr = 10\nmin = 0.5\n')
    monkeypatch.chdir(tmp_path)
    return tmp_path


def most_frequent(count: int) -> int:
    """The number of images of the most frequent class among the first records."""
    labels = list(Path("test_batch.bin").read_bytes()[:: 3072 + 1][:count])
    return max(labels.count(label) for label in labels)


def test_bench_says_so_and_a_gate_refuses(folder: Path) -> None:
    blind = ("tiny.onnx", "--card", "blind.toml", "--data", "test_batch.bin")
    outcome = onnxnoise("bench", *blind, *QUICK, "--out", "run.sqlite", "--json", "run.json")
    assert outcome.code == 0
    assert "can't be told from chance" in outcome.err
    result = json.loads(Path("run.json").read_text())
    assert "chance" in [each["code"] for each in result["warnings"]]
    assert result["chance"]["top1"] == most_frequent(40) / 40
    assert f"chance: {most_frequent(40) / 40:.2%}" in outcome.out
    refused(onnxnoise("gate", "run.sqlite", "--rules", "rules.toml"), 3, "chance", "mean, std, scale, color or layout")
    refused(onnxnoise("gate", *blind, "--rules", "rules.toml", "--out", "new.sqlite"), 3, "chance", "untrained")
    view = open_run_file("run.sqlite")
    assert [notice.code for notice in view.result.warnings].count("chance") == 1


def test_every_command_warns(folder: Path) -> None:
    blind = ("tiny.onnx", "--card", "blind.toml", "--data", "test_batch.bin", "--draws", 2)
    margin = onnxnoise("margin", *blind, "--json", "-", "--out", "m.sqlite", "--range", "5,10")
    plan = onnxnoise("plan", *blind, "--snr", 10, "--json", "-", "--out", "p.sqlite", "--fresh-draws", 2)
    for outcome in (margin, plan):
        assert "chance" in [each["code"] for each in outcome.json["warnings"]], outcome.err
        assert outcome.json["chance"] >= 1
    onnxnoise("bench", "tiny.onnx", "--data", "test_batch.bin", *QUICK, "--out", "good.sqlite")
    onnxnoise("bench", "tiny.onnx", "--data", "test_batch.bin", *QUICK, "--card", "blind.toml", "--out", "blind.sqlite")
    compared = onnxnoise("compare", "good.sqlite", "blind.sqlite", "--json", "-").json
    (said,) = [each["message"] for each in compared["warnings"] if each["code"] == "chance"]
    assert "blind.sqlite" in said


def test_a_good_model_is_told_from_chance_on_few_images(folder: Path) -> None:
    result = onnxnoise("bench", "tiny.onnx", "--data", "test_batch.bin", *QUICK, "--limit", 12, "--json", "-").json
    assert "chance" not in [each["code"] for each in result["warnings"]]
    assert result["chance"]["top1"] == most_frequent(12) / 12
    assert "card_without_numbers" in [each["code"] for each in result["warnings"]], "its card has a scale only"
    (folder / "tiny.toml").write_text(nets.CARD + "mean = 0\n")
    told = onnxnoise("bench", "tiny.onnx", "--data", "test_batch.bin", *QUICK, "--out", "b.sqlite", "--json", "-").json
    assert "card_without_numbers" not in [each["code"] for each in told["warnings"]]
