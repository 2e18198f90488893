"""`onnxnoise cards`, `cards show`, `cards check`, as a shell sees them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from support import nets
from support.command import onnxnoise

from onnxnoise.data.cards import bundled_names


def test_the_list_names_every_card() -> None:
    cards, networks = onnxnoise("cards", columns=80).out.split("What their networks keep")
    lines = {line.split()[0]: line.split()[1:] for line in cards.splitlines()[3:] if line.strip()}
    assert set(lines) == set(bundled_names()), "each on a line of its own at 80 columns"
    assert lines["resnet20-cifar10"] == ["yes", "cifar10", "ResNet-20", "v1"]
    assert lines["resnet50-se"][0] == "imagenet", "the weights are the user's"
    assert "…" not in cards + networks
    assert max(map(len, (cards + networks).partition("SNR 10, SNR 5:")[0].splitlines())) <= 80
    assert re.search(r"vgg16-slim-cifar10 +84\.96% +affine +0\.980 ", networks)
    cards, networks = onnxnoise("cards", columns=120).out.split("What their networks keep")
    assert re.search(r"resnet20-cifar10 +yes +cifar10 +41 +ResNet-20", cards)
    assert re.search(r"vgg16-slim-cifar10 +16 +1,254,618 +84\.96% ", networks)


def test_show_fills_presets_in() -> None:
    shown = onnxnoise("cards", "show", "template-torchvision").out
    assert "input.resize: 256" in shown
    assert "input.crop: 224" in shown


def test_show_takes_a_file(tmp_path: Path) -> None:
    card = tmp_path / "own.toml"
    card.write_text('[model]\nname = "\\u001b[31mred"\n[input]\ndataset = "cifar10"\n')
    outcome = onnxnoise("cards", "show", card)
    assert outcome.code == 0
    assert "\x1b" not in outcome.out
    assert onnxnoise("cards", "show", "nix").code == 3


def test_check_agrees_with_the_bundled_model_and_its_images() -> None:
    outcome = onnxnoise("cards", "check", "resnet20-cifar10", "--data", "cifar10-sample", "--limit", 100)
    assert outcome.code == 0, outcome.err
    assert "clean top1" in outcome.out
    assert outcome.out.splitlines()[-1] == "file and card agree"


def test_check_shows_both_values_where_they_differ(tmp_path: Path) -> None:
    files = nets.bench_files(tmp_path)
    card = files.model.with_suffix(".toml")
    counted = json.loads(onnxnoise("layers", files.model, "--json", "-").out)["layers"]
    card.write_text(f"{nets.CARD}[structure]\nlayers = {len(counted) + 2}\n")
    outcome = onnxnoise("cards", "check", files.model)
    assert outcome.code == 1
    (line,) = [line for line in outcome.out.splitlines() if line.startswith("layers ")]
    assert line.split() == ["layers", str(len(counted) + 2), str(len(counted)), "differs"]
    card.write_text(f'{nets.CARD}[measured]\nmetric = "top1"\nclean = 0.05\n')
    outcome = onnxnoise("cards", "check", files.model, "--data", files.data)
    assert outcome.code == 1
    assert "99.9 %" in outcome.out


@pytest.mark.parametrize("arguments", [("show",), ("check",), ("nix",), ("check", "nix.onnx")])
def test_bad_use(arguments: tuple[str, ...]) -> None:
    outcome = onnxnoise("cards", *arguments)
    assert outcome.code in (2, 3)
    assert outcome.error.startswith("error: ")
