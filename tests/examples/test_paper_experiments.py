"""The paper's experiments, on small networks under the names of its own: all that they print, keep and say."""

from __future__ import annotations

import gzip
import json
import shutil
import sys
from pathlib import Path
from types import ModuleType

import pytest
from support import nets

from onnxnoise.results.reading import open_run_file

EXAMPLES = Path(__file__).parents[2] / "examples"
NAMES = (
    "vgg16-slim-cifar10",
    "resnet18-slim-cifar10",
    "resnet50-slim-cifar10",
    "resnet50se-slim-cifar10",
    "shufflenetv2-x0.5-cifar10",
    "shufflenetv2-x0.25-cifar10",
)


@pytest.fixture
def experiments(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(EXAMPLES))
    import paper_experiments

    return paper_experiments


@pytest.fixture
def networks(tmp_path: Path) -> list[str]:
    """CARD=FILE of the same network under six names, with a card each."""
    files = nets.bench_files(tmp_path, 40)
    for name in NAMES:
        shutil.copy(files.model, tmp_path / f"{name}.onnx")
        shutil.copy(tmp_path / "tiny.toml", tmp_path / f"{name}.toml")
    return [f"{tmp_path / name}.toml={tmp_path / name}.onnx" for name in NAMES]


def run(experiments: ModuleType, monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr(sys, "argv", ["paper_experiments.py", *words])
    return int(experiments.main())


def test_the_page_says_of_each_statement_what_the_run_files_do(
    experiments: ModuleType, networks: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    words = [*networks, "--out", str(out), "--data", f"cifar10={tmp_path / 'test_batch.bin'}", "--draws", "2"]
    words += ["--snr", "5,1", "--settings", "group,seed40,seed30,quantize"]
    assert run(experiments, monkeypatch, *words) == 0
    page = (out / "README.md").read_text()
    asked = "--snr 5,1 --draws 2 --settings group,seed40,seed30,quantize --data cifar10=test_batch.bin"
    assert f"`python examples/paper_experiments.py {asked} {' '.join(NAMES)}`" in page
    rows = {row.split(" | ")[0].strip("| "): row for row in page.splitlines() if row.startswith("| ")}
    assert not [name for name, row in rows.items() if "not measured" in row]
    # six times the same network: no two of them can be told apart, whatever the noise
    for statement in ("VGG16 is the most robust", "Deeper networks of a family are more robust"):
        assert "**can't be told**" in rows[statement]
    assert rows[next(name for name in rows if name.startswith("Table III"))].count("in the paper)") == 4 * 3
    result = open_run_file(out / "group" / "vgg16-slim-cifar10.sqlite").result
    (cell,) = (cell for cell in result.cells if cell.sweep == "all" and cell.level == 5)
    mean = sum(draw.top1_hits for draw in cell.draws) / sum(draw.clean_top1_hits for draw in cell.draws)
    assert f"group, SNR 5: vgg16-slim-cifar10 {mean:.3f} [" in rows["VGG16 is the most robust"]
    packed = json.loads(gzip.decompress((out / "group" / "vgg16-slim-cifar10.json.gz").read_bytes()))
    assert packed["clean"]["top1_hits"] == result.clean.top1_hits
    kept = json.loads((out / "group" / "all-layers-cifar10.json").read_text())
    assert len(kept["differences"]) == 8 * 15 * 2 + 2 * 15 * 2, "pairs at all levels of all layers, and of A_avr"
    before = {path: path.read_bytes() for path in out.glob("*/*.sqlite")}
    assert run(experiments, monkeypatch, networks[0], *words[len(networks) :]) == 0
    assert {path: path.read_bytes() for path in out.glob("*/*.sqlite")} == before, "what is there is not measured again"


@pytest.mark.parametrize("snrs", ["0,5", "5,", "five"])
def test_levels_that_are_none_are_refused_before_anything_is_measured(
    experiments: ModuleType, snrs: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        run(experiments, monkeypatch, "--snr", snrs)
    assert stopped.value.code == 2
    assert f"{snrs!r} is no list of SNRs above 0" in capsys.readouterr().err


def test_networks_at_chance_are_not_told_apart() -> None:
    """Chance over a lower clean accuracy is a larger share of it."""
    page = (EXAMPLES / "paper" / "README.md").read_text()
    (row,) = (row for row in page.splitlines() if row.startswith("| Compression costs robustness"))
    assert "2 can't be told" in row, "both ShuffleNets are at chance under `group`"


def test_a_statement_holds_where_every_answer_that_can_be_told_is_yes(experiments: ModuleType) -> None:
    from paper_page import Answer, Statement

    said = {
        (): "not measured",
        (None, None): "**can't be told**",
        (True, True): "**holds**: 2 of 2",
        (True, None): "**holds**: 1 of 1, 1 can't be told",
        (True, False, None): "**depends**: 1 of 2, 1 can't be told",
        (False,): "**does not hold**: 0 of 1",
    }
    for answers, verdict in said.items():
        assert Statement("", [Answer("", answer, "") for answer in answers]).verdict == verdict
    asked = [Answer("group, SNR 5", yes, "") for yes in (False, False)]
    asked += [Answer("affine, SNR 5", yes, "") for yes in (True, None, False)]
    assert Statement("", asked).verdict == "**depends**: 0 of 2 under `group`, 1 of 2 under `affine`, 1 can't be told"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["vgg16"], "this card comes without weights; write vgg16=FILE"),
        (["--data", "test_batch.bin"], "names no data set"),
        (["--settings", "groups"], "'groups' is not known; use group"),
    ],
)
def test_what_can_t_be_asked_is_said(
    experiments: ModuleType,
    words: list[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    assert run(experiments, monkeypatch, *words, "--out", str(tmp_path)) == 2
    assert message in " ".join(capfd.readouterr().err.split())
