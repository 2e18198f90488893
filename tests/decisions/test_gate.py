"""`onnxnoise gate`: verdicts on run files and models, its outputs, and what it refuses."""

from __future__ import annotations

import math
import re
import shutil
from itertools import pairwise
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import onnx
import pytest
from support import graphs, nets, processes
from support.command import Outcome, onnxnoise, refused, strict_json
from support.stores import edited

from onnxnoise.data.dealing import permutation
from onnxnoise.decisions.gating import gate as gating
from onnxnoise.decisions.gating.records import to_json
from onnxnoise.decisions.gating.rules import load_rules
from onnxnoise.results.run_hits import RunHits
from onnxnoise.spec import BenchSpec

ROOT = Path(__file__).parents[2]
PASSING = '[[rule]]\nname = "fine"\nsnr = 1000\nmin = 0.5\n'
FAILING = '[[rule]]\nname = "broken"\nsnr = 0.5\nmin = 0.9\n'


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> nets.Files:
    return nets.bench_files(tmp_path_factory.mktemp("gate"), count=300)


@pytest.fixture(scope="module")
def run(files: nets.Files, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run file with 12 draws of both sweeps at SNR 1000, 5 and 0.5."""
    path = tmp_path_factory.mktemp("run") / "run.sqlite"
    outcome = onnxnoise("bench", files.model, "--data", files.data, "--snr", "1000,5,0.5", "--draws", 12, "--out", path)
    assert outcome.code == 0, outcome.err
    return path


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder, outside of GitHub Actions."""
    monkeypatch.chdir(tmp_path)
    for name in ("GITHUB_ACTIONS", "GITHUB_STEP_SUMMARY"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def rules(text: str) -> None:
    Path("onnxnoise.toml").write_text(text, encoding="utf-8")


def rule(**keys: Any) -> str:
    shown = {key: str(value).lower() if isinstance(value, bool) else repr(value) for key, value in keys.items()}
    return "[[rule]]\n" + "".join(f"{key} = {value}\n" for key, value in shown.items())


def gated(run: Path, *arguments: object) -> Outcome:
    return onnxnoise("gate", run, *arguments)


@pytest.mark.parametrize(
    ("text", "code", "verdict"),
    [
        (PASSING, 0, "pass"),
        (FAILING, 1, "fail"),
        (rule(name="open", snr=1000, min=1.0), 5, "inconclusive"),
        (PASSING + FAILING, 1, "fail"),
        (PASSING + rule(name="open", snr=1000, min=1.0), 5, "inconclusive"),
        (FAILING + rule(name="open", snr=1000, min=1.0), 1, "fail"),
    ],
)
def test_verdicts_and_exit_codes(text: str, code: int, verdict: str, run: Path) -> None:
    rules(text)
    outcome = gated(run)
    assert outcome.code == code, outcome.err
    assert outcome.out.splitlines()[-1] == f"verdict: {verdict}"
    assert gated(run, "--json", "-").json["verdict"] == verdict


@pytest.mark.parametrize(("choice", "code"), [("pass", 0), ("fail", 1), ("5", 5)])
def test_what_inconclusive_exits_with(choice: str, code: int, run: Path) -> None:
    rules(rule(name="open", snr=1000, min=1.0))
    assert gated(run, "--on-inconclusive", choice).code == code
    rules(FAILING)
    assert gated(run, "--on-inconclusive", choice).code == 1


def test_json_has_every_rule_and_cell(run: Path) -> None:
    rules(
        rule(name="all", snr=5, min=0.2)
        + rule(name="mean", sweep="single", snr=5, min=0.2)
        + rule(name="one", layer=3, snr=5, relative_to="absolute", max_drop=0.9)
        + rule(name="some", layer="batchnorm", snr=5, max_drop=0.9)
        + rule(name="worst", layer="worst", snr=1000, min=0.5, confidence=0.9, metric="top5")
    )
    content = gated(run, "--json", "-").json
    assert content["schema"] == "onnxnoise/verdict/1"
    assert {"verdict", "model", "dataset", "run_file", "rules_file", "seed", "bn", "sigma_scope", "looks"} <= set(
        content
    )
    assert content["looks"] == [12]
    found = {each["name"]: each for each in content["rules"]}
    assert [len(each["cells"]) for each in found.values()] == [1, 1, 1, 2, 5]
    assert [cell["name"] for cell in found["some"]["cells"]] == ["stem_bn", "block_bn"]
    assert [cell["layer"] for cell in found["worst"]["cells"]] == [1, 2, 3, 4, 5]
    assert [each["quantity"] for each in found.values()] == [
        *("accuracy / clean",) * 2,
        "accuracy - clean",
        *("accuracy / clean",) * 2,
    ]
    for each in found.values():
        assert each["draws"] == 12
        assert each["low"] < each["value"] < each["high"]
    worst = min(found["worst"]["cells"], key=lambda cell: float(cell["value"]))
    assert found["worst"]["value"] == worst["value"]


def test_values_are_bench_s(files: nets.Files, run: Path) -> None:
    shutil.copy(run, "copy.sqlite")
    flags = ("--snr", "1000,5,0.5", "--draws", 12, "--out", "copy.sqlite")
    result = onnxnoise("bench", files.model, "--data", files.data, *flags, "--json", "-").json
    rules(
        rule(name="all", snr=5, min=0.2)
        + rule(name="mean", sweep="single", snr=5, min=0.2)
        + rule(name="worst", layer="worst", snr=5, min=0.2, metric="top5")
        + rule(name="absolute", snr=5, min=0.2, relative_to="absolute")
        + rule(name="drop", snr=5, max_drop=0.2, relative_to="absolute")
    )
    found = {each["name"]: each for each in gated(run, "--json", "-").json["rules"]}
    cells = {(cell["sweep"], cell["layer"], cell["snr"]): cell for cell in result["cells"]}
    whole = cells["all", None, 5]
    assert found["all"]["value"] == pytest.approx(whole["normalized_top1"]["mean"])
    (average,) = (each for each in result["a_avr"] if each["snr"] == 5)
    assert found["mean"]["value"] == pytest.approx(average["top1"]["mean"])
    assert [cell["value"] for cell in found["worst"]["cells"]] == pytest.approx(
        [cells["single", layer, 5]["normalized_top5"]["mean"] for layer in range(1, 6)]
    )
    hits = sum(draw["top1_hits"] for draw in whole["draws"]) / (12 * 300)
    assert found["absolute"]["value"] == pytest.approx(hits)
    assert found["drop"]["value"] == pytest.approx(hits - result["clean"]["top1_hits"] / 300)


def measured(path: Path) -> set[tuple[Any, ...]]:
    return set(processes.rows(path, "SELECT DISTINCT sweep, layer, level, draw FROM tally"))


def test_a_model_s_draws_are_measured_until_its_rules_are_decided(files: nets.Files) -> None:
    rules(PASSING + FAILING + rule(name="stem", layer="stem", snr=1000, min=1.0))
    flags = ("--data", files.data, "--out", "run.sqlite")
    outcome = onnxnoise("gate", files.model, *flags, "--json", "v.json", "--junit", "j.xml")
    assert outcome.code == 1, outcome.err
    content = strict_json(Path("v.json").read_text())
    found = {each["name"]: each for each in content["rules"]}
    assert found["broken"]["draws"] <= 15
    assert found["broken"]["e_fail"] >= 20 > found["broken"]["e_pass"]
    assert found["fine"]["draws"] <= 10
    assert found["fine"]["e_pass"] >= 20 > found["fine"]["e_fail"]
    assert (found["stem"]["draws"], found["stem"]["verdict"]) == (100, "inconclusive")
    looks = content["looks"]
    assert (looks[0], looks[-1]) == (5, 100)
    assert all(after - before in (2, before // 10) for before, after in pairwise(looks[:-1]))
    cells: dict[tuple[str, int, float], list[tuple[int, int]]] = {}
    for sweep, layer, snr, draw, start, *_ in processes.tallies(Path("run.sqlite")):
        cells.setdefault((sweep, layer, snr), []).append((draw, start))
    assert {cell: len(met) for cell, met in cells.items()} == {
        ("clean", 0, float("inf")): 20,
        ("all", 0, 1000.0): found["fine"]["draws"],
        ("all", 0, 0.5): found["broken"]["draws"],
        ("single", 1, 1000.0): 100,
    }, "only what open rules need"
    assert all(start == 15 * (draw % 20) for draw, start in cells["single", 1, 1000.0])
    times = [float(case.attrib["time"]) for case in ElementTree.parse("j.xml").iter("testcase")]
    assert times[2] > max(times[:2]) > 0, "the rule that stayed open longest took longest"
    again = onnxnoise("gate", files.model, *flags, "--json", "-", "-q")
    assert again.json["rules"] == content["rules"], "the same looks at the same draws"
    from_file = gated(Path("run.sqlite"), "--json", "-").json
    assert [each["verdict"] for each in from_file["rules"]] == ["pass", "fail", "inconclusive"]
    assert from_file["rules"][0]["e_pass"] == found["fine"]["e_pass"]


def test_the_evidence_is_that_of_bets_made_by_hand(files: nets.Files) -> None:
    """The oracle: one capital for each stake, multiplied chunk after chunk, from the bits in the run file."""
    rules(
        rule(name="ratio", snr=5, min=0.8)
        + rule(name="accuracy", snr=5, min=0.7, relative_to="absolute")
        + rule(name="drop", snr=5, max_drop=0.1, relative_to="absolute")
    )
    flags = ("--data", files.data, "--out", "run.sqlite", "--json", "-")
    onnxnoise("gate", files.model, *flags)
    found = {each["name"]: each for each in gated(Path("run.sqlite"), "--json", "-").json["rules"]}
    rows = processes.tallies(Path("run.sqlite"))
    clean = {row[4]: row for row in rows if row[0] == "clean"}
    met = sorted((row for row in rows if row[0] == "all"), key=lambda row: int(row[3]))
    for name, lost, won in (("ratio", 0.8, 1.0), ("accuracy", 0.7, 0.3), ("drop", 0.9, 1.1)):
        capitals, against, most = [1.0] * 40, [1.0] * 40, [0.0, 0.0]
        for row in met:
            images, hits, kept = row[5], bits(row[6]), bits(clean[row[4]][6])
            x = {"ratio": hits - 0.8 * kept, "accuracy": hits - 0.7 * images, "drop": hits - kept + 0.1 * images}[name]
            for j in range(40):
                capitals[j] *= 1 + (j + 1) / 41 / lost * x / images
                against[j] *= 1 - (j + 1) / 41 / won * x / images
            most = [max(most[0], sum(capitals) / 40), max(most[1], sum(against) / 40)]
        each = found[name]
        assert each["draws"] == len(met)
        assert (each["e_pass"], each["e_fail"]) == (pytest.approx(most[0]), pytest.approx(most[1]))
        assert each["verdict"] == ("fail" if most[1] >= 20 else "pass" if most[0] >= 20 else "inconclusive")


def test_noise_in_which_nothing_is_random_is_gated_by_its_images(files: nets.Files) -> None:
    """One chip meets all images; a bet on each of them, in a random order, is the evidence: the oracle makes these by hand."""
    rules(
        "[noise]\nnoise = 'quantize'\n"
        + rule(name="ratio", level=4, min=0.8)
        + rule(name="accuracy", level=2, min=0.9, relative_to="absolute")
        + rule(name="layers", level=3, layer="worst", min=0.5)
    )
    flags = ("--data", files.data, "--out", "run.sqlite")
    dry = onnxnoise("gate", files.model, "--data", files.data, "--dry-run", "--json", "-").json
    assert dry["draws"] == 1
    outcome = onnxnoise("gate", files.model, *flags, "--json", "-")
    assert outcome.code == 1, outcome.err
    found = {each["name"]: each for each in outcome.json["rules"]}
    again = {each["name"]: each for each in gated(Path("run.sqlite"), "--json", "-").json["rules"]}
    assert found == again
    rows = processes.tallies(Path("run.sqlite"))
    assert {row[3] for row in rows} == {0}

    def hits(sweep: str, level: float) -> list[int]:
        there = sorted(
            (row for row in rows if row[0] == sweep and level in (row[2], None)), key=lambda row: int(row[4])
        )
        found = [int(bit) for row in there for bit in np.unpackbits(np.frombuffer(row[6], np.uint8), count=row[5])]
        return [found[i] for i in permutation(300, 40)]

    clean = hits("clean", math.inf)
    for name, level, lost, won in (("ratio", 4.0, 0.8, 1.0), ("accuracy", 2.0, 0.9, 0.1)):
        capitals, against, most = [1.0] * 40, [1.0] * 40, [0.0, 0.0]
        for hit, kept in zip(hits("all", level), clean, strict=True):
            x = hit - 0.8 * kept if name == "ratio" else hit - 0.9
            for j in range(40):
                capitals[j] *= 1 + (j + 1) / 41 / lost * x
                against[j] *= 1 - (j + 1) / 41 / won * x
            most = [max(most[0], sum(capitals) / 40), max(most[1], sum(against) / 40)]
        each = found[name]
        assert each["draws"] == 1
        assert (each["e_pass"], each["e_fail"]) == (pytest.approx(most[0]), pytest.approx(most[1]))
        assert each["verdict"] == ("fail" if most[1] >= 20 else "pass" if most[0] >= 20 else "inconclusive")
        assert "on 300 images" in each["message"]
    assert found["accuracy"]["verdict"] == "fail"
    benched = onnxnoise("bench", files.model, *flags, "--noise", "quantize", "--levels", "4", "--json", "-")
    assert "with more levels, sweeps or images goes on" in benched.err, "more draws would be the same one"
    assert benched.code == 0, benched.err  # the same run file, of which all is there


def bits(packed: bytes) -> int:
    return sum(bin(byte).count("1") for byte in packed)


def test_from_python(files: nets.Files, run: Path) -> None:
    rules(PASSING + FAILING)
    verdict = gating.gate(run)
    assert (verdict.verdict, [each.verdict for each in verdict.rules]) == ("fail", ["pass", "fail"])
    assert strict_json(to_json(verdict)) == gated(run, "--json", "-").json
    spec = BenchSpec("", data=str(files.data), out="own.sqlite", limit=100)
    own = gating.gate(files.model, "onnxnoise.toml", spec)
    assert (own.verdict, own.run_file, own.dataset["images"]) == ("fail", "own.sqlite", 100)


def test_settings_are_the_file_s_unless_a_flag_says_otherwise(files: nets.Files) -> None:
    shutil.copy(files.data, "images.bin")
    rules(f'[bench]\ndata = "images.bin"\nbn = "affine"\nseed = 3\nlimit = 50\n{FAILING}')
    content = onnxnoise("gate", files.model, "--json", "-").json
    assert (content["bn"], content["seed"], content["dataset"]["images"]) == ("affine", 3, 50)
    content = onnxnoise(
        "gate", files.model, "--json", "-", "--bn", "clean", "--limit", 40, "--out", "other.sqlite"
    ).json
    assert (content["bn"], content["seed"], content["dataset"]["images"]) == ("clean", 3, 40)


def test_worst_fails_where_layers_do(files: nets.Files) -> None:
    rules(rule(name="worst", layer="worst", snr=0.5, min=0.9))
    outcome = onnxnoise("gate", files.model, "--data", files.data, "--json", "-")
    (found,) = outcome.json["rules"]
    assert outcome.code == 1
    cells = found["cells"]
    assert 20 <= found["e_fail"] <= max(cell["e_fail"] for cell in cells), "the mean over layers"
    failed = [cell for cell in cells if cell["verdict"] == "fail"]
    assert all(cell["e_fail"] >= 100 for cell in failed)
    lowest = min(failed or cells, key=lambda cell: float(cell["value"]))
    assert f"worst of 5 layers, layer {lowest['layer']} {lowest['name']}" in found["message"]


def test_worst_passes_where_every_layer_does_and_names_the_lowest(files: nets.Files) -> None:
    rules(rule(name="worst", layer="worst", snr=1000, min=0.6))
    outcome = onnxnoise("gate", files.model, "--data", files.data, "--json", "v.json")
    (found,) = strict_json(Path("v.json").read_text())["rules"]
    assert outcome.code == 0
    assert min(cell["e_pass"] for cell in found["cells"]) == found["e_pass"] >= 20
    lowest = min(found["cells"], key=lambda cell: float(cell["value"]))
    said = " ".join(outcome.out.split())
    assert f"worst of 5 layers, layer {lowest['layer']} {lowest['name']}" in said
    assert 'rule "worst" passes: evidence ' in said


def test_a_baseline(files: nets.Files, run: Path) -> None:
    shutil.copy(run, "before.sqlite")
    rules(
        rule(name="no worse", snr=5, relative_to="before.sqlite", min=0.9)
        + rule(name="each", layer="worst", snr=5, relative_to="before.sqlite", max_drop=0.2)
    )
    for each in gated(run, "--json", "-").json["rules"]:
        assert (each["value"], each["quantity"]) == (1.0, "accuracy / baseline")
        assert 0.2 < each["low"] < 20 ** (-1 / 12), "all that 12 draws can show"
    other = onnxnoise(
        "bench", files.model, "--data", files.data, "--snr", "5", "--draws", 12, "--seed", 7, "--out", "other.sqlite"
    )
    assert other.code == 0
    rules(rule(name="no worse", snr=5, relative_to="other.sqlite", min=0.9))
    (independent,) = gated(run, "--json", "-").json["rules"]
    with RunHits.opened(run) as mine, RunHits.opened(Path("other.sqlite")) as theirs:
        sides = [each.side("all", [None], 5.0, "top1", 300) for each in (mine, theirs)]
    assert sides[0] is not None
    assert sides[1] is not None
    assert independent["value"] == pytest.approx(sides[0][1].mean / sides[1][1].mean)


def test_a_worse_build_fails_against_its_baseline(files: nets.Files, run: Path) -> None:
    shutil.copy(run, "before.sqlite")
    rules(rule(name="no worse", snr=5, relative_to="before.sqlite", min=0.9))
    clean = "SELECT top1 FROM tally t WHERE t.sweep = 'clean' AND t.start = tally.start"
    edited(Path("before.sqlite"), f"UPDATE tally SET top1 = ({clean}) WHERE level = 5")
    (found,) = gated(run, "--json", "-").json["rules"]
    assert found["verdict"] == "fail", "the baseline lost nothing at all"


def test_a_baseline_of_either_design(files: nets.Files, run: Path) -> None:
    """The model on chunks against draws of its own on everything, and the other way round: both pair draw with draw."""
    shutil.copy(run, "crossed.sqlite")
    rules(rule(name="same", snr=5, min=0.5, relative_to="absolute"))
    onnxnoise("gate", files.model, "--data", files.data, "--out", "chunked.sqlite")
    rules(rule(name="same", snr=5, relative_to="chunked.sqlite", min=0.2))
    flags = ("--data", files.data, "--json", "-")
    (own,) = onnxnoise("gate", files.model, *flags).json["rules"]
    assert (own["value"], own["verdict"]) == (1.0, "pass"), "the same chunks and draws"
    rules(rule(name="same", snr=5, relative_to="crossed.sqlite", min=0.2))
    (other,) = onnxnoise("gate", files.model, *flags, "--out", "new.sqlite").json["rules"]
    assert (other["value"], other["draws"] <= 12) == (1.0, True), "the same images, found where they were dealt"
    rules(rule(name="same", snr=5, relative_to="chunked.sqlite", min=0.2))
    (last,) = gated(run, "--json", "-").json["rules"]
    assert last["value"] == 1.0


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--limit", 100), ["fewer than the 300 here", "--limit 100"]),
        (("--bn", "affine"), ["another batch-norm policy", "'affine' there, 'group' here"]),
        (("--sigma-scope", "layer"), ["another sigma scope"]),
        (("--snr", "7"), ["does not have the sweep all at SNR 5", "it has single at SNR 7, all at SNR 7"]),
    ],
)
def test_a_baseline_that_can_t_be_compared(
    flags: tuple[object, ...], words: list[str], files: nets.Files, run: Path
) -> None:
    given = ("--snr", "5") if "--snr" not in flags else ()
    onnxnoise("bench", files.model, "--data", files.data, "--draws", 2, *given, *flags, "--out", "base.sqlite")
    rules(rule(name="no worse", snr=5, relative_to="base.sqlite", min=0.9))
    refused(gated(run), 3, "base.sqlite", "'no worse'", *words)
    refused(onnxnoise("gate", files.model, "--data", files.data, "-q"), 3, "base.sqlite", "'no worse'", *words)


def test_few_draws_of_a_run_file_are_told(files: nets.Files) -> None:
    onnxnoise("bench", files.model, "--data", files.data, "--snr", "1000", "--draws", 3, "--out", "run.sqlite")
    rules(rule(name="a", snr=1000, min=0.9))
    outcome = gated(Path("run.sqlite"))
    assert outcome.code == 5
    assert "so few draws can't rule out rare chips that lose everything" in " ".join(outcome.out.split())
    rules(rule(name="a", snr=1000, min=0.2))
    assert gated(Path("run.sqlite")).code == 0, "clear whatever the distribution"
    rules(rule(name="a", snr=1000, min=0.9))
    onnxnoise("bench", files.model, "--data", files.data, "--snr", "1000", "--draws", 1, "--out", "one.sqlite")
    outcome = gated(Path("one.sqlite"))
    assert outcome.code == 5
    assert "in 1 draw can't be told from" in " ".join(outcome.out.split())


@pytest.mark.parametrize(
    ("text", "code", "words"),
    [
        (rule(name="x", snr=7, min=0.5), 3, ["run.sqlite", "'x'", "sweep all at SNR 7", "all at SNR 1000/5/0.5"]),
        (rule(name="x", sweep="cumulative", layer=2, snr=5, min=0.5), 3, ["sweep cumulative at SNR 5 for layer 2"]),
        (rule(name="x", layer="none*", snr=5, min=0.5), 2, ["'x'", "layer = 'none*' matches no layer", "1-5"]),
        (rule(name="x", snr=5, min=1.5), 3, ["min = 1.5"]),
        (rule(name="x", snr=5, minimum=0.5), 3, ["no key 'minimum'"]),
        ("", 3, ["has no rules"]),
        ("name: x", 3, ["not valid TOML"]),
    ],
)
def test_refused(text: str, code: int, words: list[str], run: Path) -> None:
    rules(text)
    refused(gated(run), code, *words)


def test_refused_flags_and_files(run: Path, folder: Path, files: nets.Files) -> None:
    refused(gated(run), 3, "no onnxnoise.toml and no pyproject.toml")
    refused(gated(run, "--rules", "none.toml"), 3, "none.toml", "can't be read")
    rules(PASSING)
    refused(gated(run, "--on-inconclusive", "maybe"), 2, "--on-inconclusive", "'maybe'", "pass, fail, 5")
    refused(gated(run, "--bn", "affine"), 2, "--bn", "is a run file")
    refused(gated(Path("none.sqlite")), 3, "none.sqlite", "no such run file")
    refused(gated(run, "--junit", folder), 3, "is a folder", "--junit")
    refused(gated(run, "--junit", "onnxnoise.toml/j.xml"), 3, "onnxnoise.toml is no folder")
    refused(gated(run, "--junit", run), 3, "is there and no XML, so it stays")
    refused(gated(run, "--json", run), 3, "is there and no JSON")
    refused(onnxnoise("gate", files.model, "--rules", "onnxnoise.toml", "--data", "none"), 3, "none")
    refused(gated(run, "--limit", "0"), 2, "--limit")


def test_chunks_that_were_not_dealt_at_random_are_refused(run: Path) -> None:
    shutil.copy(run, "nested.sqlite")
    edited(
        Path("nested.sqlite"), "UPDATE record SET json = json_set(json, '$.design', 'nested') WHERE name = 'identity'"
    )
    rules(PASSING)
    refused(gated(Path("nested.sqlite")), 3, "nested.sqlite", "how the files are sorted")


def test_a_run_s_first_images_can_be_gated(run: Path) -> None:
    rules(PASSING)
    assert gated(run, "--limit", 150, "--json", "-").json["dataset"]["images"] == 150
    refused(gated(run, "--limit", 1000), 3, "300 of 1,000 images", "--limit")


@pytest.mark.parametrize(
    ("setting", "word"),
    [
        ("bn = 'affine'", "bn = affine"),
        ("seed = 7", "seed = 7"),
        ("protocol = 'paper'", "sigma_scope"),
        ("data = 'cifar10-sample'", "data = cifar10-sample"),
        ("data = 'other/val'", "data = other/val"),
        ("output = 'probabilities'", "output = probabilities"),
        ("limit = 4000", "limit = 4000"),
        ("labels = 'clean'", "clean model's own answers"),
    ],
)
def test_a_run_measured_otherwise_than_the_rules_ask_is_refused(run: Path, setting: str, word: str) -> None:
    rules(f"[bench]\n{setting}\n{PASSING}")
    refused(gated(run), 3, word, str(run), "[bench] in onnxnoise.toml")


@pytest.mark.parametrize(
    "setting", ["data = 'elsewhere/{data}'", "data = '{data}'", "limit = 150", "output = '{output}'"]
)
def test_a_run_measured_as_the_rules_ask_is_gated_wherever_its_images_lie(
    files: nets.Files, run: Path, setting: str
) -> None:
    (output,) = (each.name for each in onnx.load(files.model).graph.output)
    rules(f"[bench]\n{setting.format(data=Path(files.data).name, output=output)}\n{PASSING}")
    assert gated(run).code == 0


def test_other_images_of_the_same_name_are_refused(files: nets.Files, run: Path) -> None:
    content = bytearray(Path(files.data).read_bytes())
    Path("here").mkdir()
    there = Path("here", Path(files.data).name)
    rules(f"[bench]\ndata = '{there}'\n{PASSING}")
    there.write_bytes(content)
    assert gated(run).code == 0, "the same images elsewhere"
    content[-1] ^= 1
    there.write_bytes(content)
    refused(gated(run), 3, str(run), "digest", str(there))
    there.write_bytes(b"no images")
    assert gated(run).code == 0, "what can't be opened is known by its name"


def test_a_run_with_noise_in_some_layers_passes_no_rule_about_all(files: nets.Files) -> None:
    asked = ("--layers", "2-3", "--snr", "1000", "--draws", 3, "--out", "some.sqlite")
    onnxnoise("bench", files.model, "--data", files.data, *asked)
    for about in ({}, {"layer": "worst"}, {"layer": "conv"}, {"sweep": "single"}, {"layer": "1-3"}):
        rules(rule(name="a", snr=1000, min=0.2, **about))
        refused(gated(Path("some.sqlite")), 3, "some.sqlite", "noise in 2 of 5 layers (--layers)", "'a'")
    rules(rule(name="a", snr=1000, min=0.2, layer="2-3"))
    assert gated(Path("some.sqlite")).code == 0


def test_an_unfinished_run_is_not_gated(run: Path, tmp_path: Path) -> None:
    part = tmp_path / "part.sqlite"
    shutil.copy(run, part)
    edited(part, "INSERT INTO chunk (start, images) SELECT max(start + images), 100 FROM chunk")
    rules(PASSING)
    refused(gated(part), 3, "images measured", "merge")


def test_github_actions(run: Path, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    rules(PASSING + FAILING + rule(name="open, %0A::x", snr=1000, min=1.0))
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(folder / "summary.md"))
    Path("summary.md").write_text("before\n")
    outcome = gated(run, "--junit", "report.xml")
    assert outcome.code == 1
    commands = [line for line in outcome.out.splitlines() if line.startswith("::")]
    stop, start, *annotations = commands
    token = re.fullmatch(r"::stop-commands::([0-9a-f]{32})", stop)
    assert token is not None
    assert start == f"::{token[1]}::"
    assert [line.split("::")[1] for line in annotations] == [
        "error title=fail%3A broken",
        "error title=inconclusive%3A open%2C %250A%3A%3Ax",
    ]
    text = Path("summary.md").read_text(encoding="utf-8")
    assert text.startswith("before\n### onnxnoise gate: ❌ fail")
    assert len([line for line in text.splitlines() if line.startswith("| ") and "verdict" not in line]) == 3
    gated(run, "--on-inconclusive", "pass")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(folder / "no" / "summary.md"))
    lost = gated(run)
    assert lost.code == 1, "the verdict stays"
    assert "summary can't be written" in lost.err
    monkeypatch.delenv("GITHUB_STEP_SUMMARY")
    outcome = gated(run, "--on-inconclusive", "pass")
    assert [line.split()[0] for line in outcome.out.splitlines() if " title=" in line] == ["::error", "::warning"]
    outcome = gated(run, "--json", "-")
    assert outcome.json["verdict"] == "fail", "standard output is JSON alone"
    assert len([line for line in outcome.err.splitlines() if line.startswith("::")]) == 4


@pytest.mark.parametrize("columns", [60, 80, 120])
def test_the_table_fits(columns: int, run: Path) -> None:
    long = "n" * 300
    rules(rule(name="[red]x[/red] :warning: \u202e|", snr=5, min=0.2) + rule(name=long, snr=1000, min=0.5) + PASSING)
    outcome = onnxnoise("gate", run, columns=columns)
    lines = outcome.out.splitlines()
    table = lines[lines.index("") + 1 :]
    table = table[: table.index("")]
    assert max(map(len, table)) <= max(columns, 66)
    assert "[red]x" in outcome.out
    assert "\u202e" not in outcome.out
    for line in lines:
        assert not line.startswith(("::", "[red]"))


def test_the_example_s_rules_run(tmp_path: Path) -> None:
    example = ROOT / "examples" / "gate" / "onnxnoise.toml"
    assert len(load_rules(example).rules) >= 3
    outcome = onnxnoise("gate", "resnet20-cifar10", "--rules", example, "--junit", "report.xml", "--json", "v.json")
    assert outcome.code == 0, outcome.out
    found = strict_json(Path("v.json").read_text())
    assert [each["name"] for each in found["rules"]] == [each.name for each in load_rules(example).rules]
    assert {each["verdict"] for each in found["rules"]} == {"pass"}
    assert Path("report.xml").stat().st_size > 0


def test_the_example_s_commands_are_the_command_line_s() -> None:
    help_text = onnxnoise("gate", "--help").out
    for name in ("README.md", "onnxnoise-gate.yml", "gitlab-ci.yml"):
        text = (ROOT / "examples" / "gate" / name).read_text(encoding="utf-8")
        commands = re.findall(r"onnxnoise gate [^`\n]*", text)
        assert commands, name
        for flag in {flag for command in commands for flag in re.findall(r"--[a-z-]+", command)}:
            assert flag in help_text


def test_files_that_are_sorted_by_difficulty_are_gated_alike(files: nets.Files, tmp_path: Path) -> None:
    """First all images that the network gets right: in the file's order the first chunks have no miss at all."""
    shutil.copy(files.model.with_suffix(".toml"), "sorted.toml")
    right = np.array(nets.hits(graphs.run(onnx.load(files.model), files.inputs), files.labels, 1))
    records = np.frombuffer(files.data.read_bytes(), np.uint8).reshape(len(right), -1)
    Path("sorted.bin").write_bytes(records[np.argsort(~right, kind="stable")].tobytes())
    assert 0.7 < right.mean() < 0.85
    rules(rule(name="a", snr=1000, min=0.93, relative_to="absolute"))
    outcome = onnxnoise("gate", files.model, "--data", "sorted.bin", "--json", "-")
    assert outcome.json["verdict"] == "fail"


def test_rules_are_checked_alone() -> None:
    rules(PASSING + rule(name="two", layer="worst", snr=5, max_drop=0.2, confidence=0.9))
    outcome = onnxnoise("gate", "--check", "onnxnoise.toml")
    assert outcome.code == 0, outcome.err
    assert "onnxnoise.toml: 2 rules, all can be used" in outcome.out
    assert "two: accuracy / clean of top-1 ≥ 0.8 (single, layer worst, snr 5, confidence 0.9)" in outcome.out
    for text, words in (
        ("[bench]\nnoise = 'gausian'\n" + PASSING, ["[bench] noise = 'gausian'", "did you mean gaussian?"]),
        ("[bench]\nprotocol = 'paper'\nbn = 'affine'\n" + PASSING, ["[bench] protocol = 'paper'", "bn affine"]),
        ("[bench]\nnoise = 'relative'\n" + PASSING, ["rule 'fine'", "snr is of gaussian noise"]),
        ("[[rule]]\nname = 'x'\nmin = 0.5\n", ["rule 1 ('x')", "needs snr"]),
        (
            "[noise]\nnoise = 'quantize:4'\n[[rule]]\nname = 'x'\nlevel = 6\nmin = 0.5\n",
            ["rule 'x'", "level is 6, but quantize:4 has its level written; write level = 4"],
        ),
    ):
        rules(text)
        refused(onnxnoise("gate", "--check", "onnxnoise.toml"), 3, "onnxnoise.toml", *words)
        refused(onnxnoise("gate", "resnet20-cifar10"), 3, "onnxnoise.toml", *words)
    refused(onnxnoise("gate"), 2, "--check FILE")
    refused(onnxnoise("gate", "--check", "none.toml"), 3, "none.toml")


def test_a_dry_run_tells_what_a_gate_may_measure(files: nets.Files, run: Path) -> None:
    rules(PASSING + rule(name="some", layer="batchnorm", snr=5, min=0.5))
    flags = ("--data", files.data, "--dry-run")
    outcome = onnxnoise("gate", files.model, *flags)
    assert outcome.code == 0, outcome.err
    assert "draws a cell: until each rule is decided, at most 100" in outcome.out
    told = onnxnoise("gate", files.model, *flags, "--json", "-").json
    assert (told["cells"], told["draws"], told["chunks"]) == (3, 100, 20)
    assert (told["least"]["passes"], told["most"]["passes"]) == (10 * 15 * (1 + 3), 15 * (20 + 100 * 3))
    assert list(Path().glob("*.sqlite")) == []
    refused(gated(run, "--dry-run"), 2, "--dry-run", "is a run file")


def test_a_gate_whose_time_is_over_is_inconclusive(files: nets.Files) -> None:
    rules(rule(name="far", layer="worst", snr=5, min=0.01) + rule(name="open", snr=1000, min=1.0))
    verdict = gating.gate(files.model, None, BenchSpec("", data=str(files.data), budget=0.001, out="run.sqlite"))
    assert [each.verdict for each in verdict.rules] == ["inconclusive", "inconclusive"]
    assert {each.message for each in verdict.rules} == {"not measured yet: no draw is complete"}
    assert strict_json(to_json(verdict))["rules"][0]["value"] is None
    more = onnxnoise("gate", files.model, "--data", files.data, "--workers", 2, "--out", "run.sqlite", "--json", "-")
    assert [each["verdict"] for each in more.json["rules"]] == ["pass", "inconclusive"], "the same file goes on"


def test_a_default_run_file_is_a_baseline_whatever_its_chunks(files: nets.Files, run: Path) -> None:
    """A model is gated in the baseline's chunks; a run file whose chunks are others is refused, and so are other images."""
    flags = ("--data", files.data, "--json", "-")
    bench = ("bench", files.model, "--data", files.data, "--sweep", "all", "--snr", 5)
    onnxnoise(*bench, "--max-draws", 40, "--out", "old.sqlite")
    sizes = {row[0] for row in processes.rows(Path("old.sqlite"), "SELECT images FROM chunk WHERE start < 280")}
    assert sizes <= {16, 18}, "not the gate's 15"
    rules(rule(name="same", snr=5, relative_to="old.sqlite", min=0.2))
    (own,) = onnxnoise("gate", files.model, *flags, "--out", "new.sqlite").json["rules"]
    assert (own["value"], own["verdict"]) == (1.0, "pass")
    rules(rule(name="same", snr=5, relative_to="old.sqlite", min=1.0))
    (open_,) = onnxnoise("gate", files.model, *flags, "--out", "new.sqlite").json["rules"]
    assert (open_["verdict"], open_["draws"]) == ("inconclusive", 40)
    assert "old.sqlite has no more draws" in open_["message"]
    with_room = len(processes.rows(Path("new.sqlite"), "SELECT * FROM tally WHERE sweep = 'all'"))
    assert with_room < 50, "no draws that the baseline lacks"
    rules(rule(name="target", snr=5, min=0.2))
    onnxnoise("gate", files.model, *flags, "--out", "other.sqlite")
    rules(rule(name="same", snr=5, relative_to="old.sqlite", min=0.2))
    refused(gated(Path("other.sqlite")), 3, "old.sqlite", "chunks have", "gate the model itself")
    refused(
        onnxnoise("gate", files.model, *flags, "--limit", 200), 3, "old.sqlite", "has dealt 300 images", "--limit 300"
    )


def test_draws_without_any_hit_wait_for_others(files: nets.Files, run: Path) -> None:
    """A gate looks after five draws on a few images: no hit among them, the baseline's or without noise, proves nothing."""
    rules(rule(name="same", snr=0.5, relative_to="base.sqlite", min=0.2))
    bench = ("bench", files.model, "--data", files.data, "--sweep", "all", "--snr", 0.5, "--out", "base.sqlite")
    assert onnxnoise(*bench, "--max-draws", 40).code == 0
    edited(Path("base.sqlite"), "UPDATE tally SET top1 = zeroblob(length(top1)) WHERE sweep = 'all' AND draw < 8")
    outcome = onnxnoise("gate", files.model, "--data", files.data, "--json", "-", "--out", "new.sqlite")
    assert outcome.json["rules"][0]["draws"] > 7
    edited(Path("base.sqlite"), "UPDATE tally SET top1 = zeroblob(length(top1)) WHERE sweep = 'all'")
    refused(gated(run), 3, "base.sqlite", "with some hits")
