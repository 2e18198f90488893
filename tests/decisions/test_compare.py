"""`onnxnoise compare`: rankings, ties and crossings of models and run files, and what it refuses."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import graphs, nets
from support.command import Outcome, onnxnoise, refused
from support.stores import edited

from onnxnoise.decisions.comparing import compare as measured
from onnxnoise.decisions.comparing.ranking import Asked, compare
from onnxnoise.decisions.comparing.records import Difference
from onnxnoise.decisions.comparing.ties import crossings
from onnxnoise.errors import RunFileError
from onnxnoise.noise.models import level_of
from onnxnoise.records import NoiseSetting
from onnxnoise.results.run_hits import RunHits
from onnxnoise.spec import BenchSpec

IMAGES = 300
SNRS = "1000,5,2"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> nets.Files:
    return nets.bench_files(tmp_path_factory.mktemp("compare"), count=IMAGES)


@pytest.fixture(scope="module")
def models(files: nets.Files) -> list[Path]:
    """The tiny network; its twin with a little other weights, so of the same layers; and one without batch norms."""
    rng = np.random.default_rng(5)
    twin = {
        name: value + np.float32(0.02) * rng.standard_normal(value.shape).astype(np.float32)
        if name.endswith("weight")
        else value
        for name, value in files.weights.items()
    }
    folder = files.model.parent
    second = graphs.saved(nets.residual(twin), folder, "twin.onnx")
    biases = {f"{name}_bias": np.zeros(6, np.float32) for name in ("stem", "block")}
    plain = nets.balanced({**files.weights, **biases}, nets.pictures(IMAGES)) | biases
    third = graphs.saved(nets.residual(plain, folded=True), folder, "plain.onnx")
    for model in (second, third):
        model.with_suffix(".toml").write_text(nets.CARD)
    return [files.model, second, third]


@pytest.fixture(scope="module")
def runs(files: nets.Files, models: list[Path], tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("runs")
    for model in models:
        flags = ("--data", files.data, "--snr", SNRS, "--draws", 6, "--out", folder / f"{model.stem}.sqlite")
        outcome = onnxnoise("bench", model, *flags)
        assert outcome.code == 0, outcome.err
    return [folder / f"{model.stem}.sqlite" for model in models]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def compared(*arguments: object) -> Outcome:
    return onnxnoise("compare", *arguments)


def test_models_and_their_run_files_give_the_same_answer(
    files: nets.Files, models: list[Path], runs: list[Path]
) -> None:
    flags = ("--data", files.data, "--snr", SNRS, "--draws", 6, "--out", ".", "--json", "-")
    fresh = compared(*models, *flags).json
    kept = compared(*runs, "--json", "-").json
    for content in (fresh, kept):
        for model in content["models"]:
            model.pop("run_file")
    assert fresh == kept
    assert len(list(Path().glob("*.sqlite"))) == 3
    mixed = compared(models[0], *runs[1:], *flags[:-2], "--json", "-").json
    assert mixed["figures"] == kept["figures"]


def test_json(runs: list[Path]) -> None:
    content = compared(*runs, "--json", "-").json
    assert content["schema"] == "onnxnoise/comparison/1"
    assert (content["bn"], content["sigma_scope"], content["metric"]) == ("group", "tensor", "top1")
    assert content["dataset"]["images"] == IMAGES
    assert [model["label"] for model in content["models"]] == ["tiny", "twin", "plain"]
    assert [(model["layers"], model["parameters"]) for model in content["models"]] == [(5, 1594), (5, 1594), (3, 1558)]
    places = {(each["quantity"], each["snr"]) for each in content["figures"]}
    assert places == {(quantity, snr) for quantity in ("all", "a_avr") for snr in (1000, 5, 2)}
    assert len(content["figures"]) == 3 * 6
    assert len(content["differences"]) == 3 * 2 * 6
    pairs = {(each["first"], each["second"]): each["paired"] for each in content["differences"]}
    assert pairs == {("tiny", "twin"): "image and draw", ("tiny", "plain"): "image", ("twin", "plain"): "image"}


def test_means_are_bench_s(files: nets.Files, models: list[Path], runs: list[Path]) -> None:
    content = compared(*runs, "--json", "-").json
    found = {(each["model"], each["quantity"], each["snr"]): each for each in content["figures"]}
    for model, path in zip(models, runs, strict=True):
        shutil.copy(path, path.name)
        flags = ("--data", files.data, "--snr", SNRS, "--draws", 6, "--out", path.name, "--json", "-")
        result = onnxnoise("bench", model, *flags).json
        for cell in result["cells"]:
            if cell["sweep"] == "all":
                figure = found[model.stem, "all", cell["snr"]]
                hits = sum(draw["top1_hits"] for draw in cell["draws"]) / (6 * IMAGES)
                assert figure["absolute"]["mean"] == pytest.approx(hits)
                for name in ("mean", "fixed", "sampled"):
                    assert figure["normalized"][name] == pytest.approx(cell["normalized_top1"][name])
        for average in result["a_avr"]:
            figure = found[model.stem, "a_avr", average["snr"]]
            assert figure["normalized"]["sampled"] == pytest.approx(average["top1"]["sampled"])
            clean = result["clean"]["top1_hits"] / IMAGES
            assert figure["absolute"]["mean"] == pytest.approx(average["top1"]["mean"] * clean)


def test_ranks_follow_from_differences_that_are_no_ties(runs: list[Path]) -> None:
    content = compared(*runs, "--json", "-").json
    assert {each["tied"] for each in content["differences"]} == {True, False}, "both are seen"
    for figure in content["figures"]:
        for scale in ("normalized", "absolute"):
            ahead, tied = 0, set()
            for each in content["differences"]:
                here = (each["quantity"], each["scale"], each["snr"]) == (figure["quantity"], scale, figure["snr"])
                if here and figure["model"] in (each["first"], each["second"]):
                    other = each["second"] if each["first"] == figure["model"] else each["first"]
                    lead = each["mean"] if each["first"] == figure["model"] else -each["mean"]
                    assert each["tied"] == (each["p_holm"] > 0.05)
                    if each["tied"]:
                        tied.add(other)
                    elif lead < 0:
                        ahead += 1
            assert (figure[scale]["rank"], set(figure[scale]["tied"])) == (ahead + 1, tied)


def test_holm_goes_over_the_comparisons_of_a_ranking(runs: list[Path]) -> None:
    content = compared(*runs, "--json", "-").json
    for quantity in ("all", "a_avr"):
        for scale in ("normalized", "absolute"):
            family = [each for each in content["differences"] if (each["quantity"], each["scale"]) == (quantity, scale)]
            assert len(family) == 9
            family.sort(key=lambda each: float(each["p"]))
            adjusted = 0.0
            for place, each in enumerate(family):
                adjusted = max(adjusted, min(1.0, (9 - place) * each["p"]))
                assert each["p_holm"] == pytest.approx(adjusted)


def test_the_order_of_models_only_turns_signs(runs: list[Path]) -> None:
    forth, back = compare(runs), compare(runs[::-1])
    assert {each.model: each for each in forth.figures if each.snr == 5.0 and each.quantity == "all"}.keys() == {
        "tiny",
        "twin",
        "plain",
    }
    lookup = {(d.first, d.second, d.quantity, d.scale, d.snr): d for d in back.differences}
    for each in forth.differences:
        other = lookup[each.second, each.first, each.quantity, each.scale, each.snr]
        assert (other.mean, other.p, other.tied) == (pytest.approx(-each.mean), pytest.approx(each.p), each.tied)


def test_the_same_model_twice_is_a_tie(files: nets.Files, runs: list[Path]) -> None:
    shutil.copy(runs[0], "again.sqlite")
    found = compare([runs[0], Path("again.sqlite")])
    assert all(each.tied and each.mean == 0.0 for each in found.differences)
    assert {each.absolute.rank for each in found.figures} == {1}
    assert len({model.label for model in found.models}) == 2
    assert found.crossings == ()


def test_only_what_is_asked_for(runs: list[Path]) -> None:
    content = compared(
        *runs, "--snr", "5", "--sweep", "all", "--draws", 4, "--limit", 200, "--metric", "top5", "--json", "-"
    ).json
    assert {(each["quantity"], each["snr"], each["draws"]) for each in content["figures"]} == {("all", 5, 4)}
    assert (content["dataset"]["images"], content["metric"]) == (200, "top5")


def test_images_and_draws_that_all_have(files: nets.Files, models: list[Path], runs: list[Path]) -> None:
    flags = ("--data", files.data, "--snr", "5", "--draws", 3, "--limit", 100, "--out", "small.sqlite")
    onnxnoise("bench", models[1], *flags)
    outcome = compared(runs[0], "small.sqlite", "--json", "-")
    assert outcome.json["dataset"]["images"] == 100
    assert [each["draws"] for each in outcome.json["figures"] if each["quantity"] == "all"] == [6, 3]
    assert "only the first 100 of its 300 images" in outcome.err
    by_hand = []
    for path in (runs[0], Path("small.sqlite")):
        with RunHits.opened(path) as run:
            found = run.side("all", [None], 5.0, "top1", 100)
        assert found is not None
        by_hand.append(found[1].first(3).mean)
    (difference,) = (
        each for each in outcome.json["differences"] if (each["quantity"], each["scale"]) == ("all", "absolute")
    )
    assert difference["mean"] == pytest.approx(by_hand[0] - by_hand[1]), "paired by draw: the three that both have"


def test_noise_in_which_nothing_is_random_needs_no_more_draws(files: nets.Files, models: list[Path]) -> None:
    noise = ("--noise", "quantize", "--levels", 4, "--sweep", "all")
    outcome = compared(*models[:2], "--data", files.data, *noise, "--json", "-")
    assert outcome.code == 0
    assert "nothing of quantize is random: one draw is every chip" in outcome.err
    assert "--draws" not in outcome.err


def test_one_draw_ranks_without_ties(files: nets.Files, models: list[Path]) -> None:
    outcome = compared(*models, "--data", files.data, "--snr", "5", "--draws", 1, "--json", "-")
    assert {each["tied"] for each in outcome.json["differences"]} == {None}
    figures = [each for each in outcome.json["figures"] if each["quantity"] == "all"]
    assert sorted(each["absolute"]["rank"] for each in figures) == [1, 2, 3]
    assert {each["absolute"]["sampled"] for each in figures} == {None}
    assert "one draw: ties can't be told" in outcome.err
    assert "nothing shows which differences are ties" in " ".join(
        compared(*sorted(Path().glob("*.sqlite"))).out.split()
    )


def test_from_python(files: nets.Files, models: list[Path], runs: list[Path], tmp_path: Path) -> None:
    kept = measured.compare(runs)
    assert kept == compare(runs)
    spec = BenchSpec("", data=str(files.data), snrs=(5.0,), sweeps=("all",), draws=4)
    fresh = measured.compare([models[0], runs[1]], spec, folder=str(tmp_path))
    assert {(each.quantity, each.snr, each.draws) for each in fresh.figures} == {("all", 5.0, 4)}
    assert [model.name for model in fresh.models] == ["tiny", "twin"]


def a_difference(snr: float, mean: float, tied: bool | None) -> Difference:
    return Difference("a", "b", "all", "absolute", snr, "image", mean, (mean - 0.1, mean + 0.1), 0.01, 0.01, tied)


@pytest.mark.parametrize(
    ("curve", "found"),
    [
        ([(100, 0.1, False), (10, -0.1, False)], [("a", "b", 100, 10, True)]),
        ([(100, -0.1, False), (10, 0.05, True), (5, 0.1, False)], [("b", "a", 100, 5, True)]),
        ([(100, 0.1, True), (10, -0.1, True)], [("a", "b", 100, 10, False)]),
        ([(100, 0.1, False), (10, 0.1, False)], []),
        ([(100, 0.0, True), (10, -0.1, False)], []),
        ([(100, 0.1, False), (10, -0.1, False), (5, 0.1, False)], [("a", "b", 100, 10, True), ("b", "a", 10, 5, True)]),
        ([(100, 0.1, None), (10, -0.1, None)], [("a", "b", 100, 10, False)]),
    ],
)
def test_crossings(curve: list[tuple[float, float, bool | None]], found: list[tuple[Any, ...]]) -> None:
    rows, snr = [a_difference(*point) for point in curve], level_of(NoiseSetting(seed=40))
    for order in (rows, rows[::-1]):
        seen = [
            (each.better_above, each.better_below, each.high, each.low, each.clear) for each in crossings(order, snr)
        ]
        assert seen == found


def altered(path: Path, key: str, value: object) -> Path:
    copy = Path(f"{key}.sqlite")
    shutil.copy(path, copy)
    change = f"UPDATE record SET json = json_set(json, '$.{key}', json(?)) WHERE name = 'identity'"
    edited(copy, change, values=(value,))
    selected = (
        "SELECT each.value FROM record, json_each(record.json, '$.layers') AS each WHERE record.name = 'identity'"
    )
    edited(copy, f"DELETE FROM tally WHERE layer > 0 AND layer NOT IN ({selected})")
    return copy


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("data", '"e0e0e0e0e0"', ["differ in data", "e0e0e0e0"]),
        ("bn", '"affine"', ["differ in batch-norm policy", "'group' and 'affine'"]),
        ("sigma_scope", '"layer"', ["differ in sigma scope", "'tensor' and 'layer'"]),
        ("seed", "41", ["differ in seed: 40 and 41", "--seed"]),
        ("layers", "[1, 2]", ["layers (--layers)"]),
        ("layers", "3", ["damaged: in its table record the row of identity: layers can't be 3", "measure it again"]),
        ("design", '"nested"', ["every draw on every image", "bench both with --draws, or both without"]),
    ],
)
def test_what_differs_is_refused(key: str, value: str, words: list[str], runs: list[Path]) -> None:
    refused(compared(runs[0], altered(runs[1], key, value)), 3, f"{key}.sqlite", *words)


def test_another_seed_is_no_matter_between_networks_of_other_layers(runs: list[Path]) -> None:
    assert compared(runs[0], altered(runs[2], "seed", "41")).code == 0


def test_refused(runs: list[Path], models: list[Path], files: nets.Files, folder: Path) -> None:
    refused(compared(runs[0]), 2, "needs two models")
    refused(compared(runs[0], runs[0]), 2, "given twice")
    refused(compared(runs[0], "none.sqlite"), 3, "none.sqlite", "no such run file")
    refused(compared(*runs, "--bn", "affine"), 2, "--bn", "only run files are given")
    refused(compared(*runs, "--snr", "7"), 3, "not all of them SNR 7 in the sweep all or single", "all at SNR 1000/5/2")
    refused(compared(*runs, "--snr", "5,7"), 3, "not all of them SNR 7")
    refused(compared(models[0], models[0], "--data", files.data), 2, "given twice")
    refused(compared(*runs, "--sweep", "cumulative"), 2, "--sweep")
    refused(compared(*models[:2], "--card", "a.toml", "--card", "b.toml"), 2, "--card", "MODEL=CARD")
    refused(compared(models[0], "none.onnx", "--data", files.data, "-q", "--snr", "5", "--draws", 1), 3, "none.onnx")
    Path("none").write_text("")
    refused(
        compared(*models, "--data", files.data, "--out", "none", "-q"), 3, "none/", "its folder can't be made", "--out"
    )
    Path("empty.sqlite").touch()
    refused(compared(runs[0], "empty.sqlite"), 3, "empty.sqlite")
    with pytest.raises(RunFileError, match="not all of them SNR 7 in the sweep all"):
        compare(runs, Asked(levels=(5.0, 7.0), quantities=("all",)))


def test_cards_of_single_models(files: nets.Files, models: list[Path]) -> None:
    alone = Path("alone.onnx")
    shutil.copy(models[1], alone)
    flags = ("--data", files.data, "--snr", "5", "--draws", 1, "--sweep", "all", "-q")
    refused(compared(models[0], alone, *flags), 3, "alone.onnx", "no card")
    assert compared(models[0], alone, *flags, "--card", f"alone.onnx={models[0].with_suffix('.toml')}").code == 0
    assert compared(models[0], alone, *flags, "--card", models[0].with_suffix(".toml")).code == 0


@pytest.mark.parametrize("columns", [60, 80, 120])
def test_tables(columns: int, runs: list[Path]) -> None:
    outcome = onnxnoise("compare", *runs, columns=columns)
    lines = outcome.out.splitlines()
    assert lines[0].startswith("weight noise, SNR = sigma_w / sigma_noise")
    rows = [line for line in lines if any(name in line for name in ("tiny", "twin", "plain")) and "leads" not in line]
    assert len(rows) == 3 + 2 * 3 * 3
    assert max(map(len, rows)) <= columns
    assert ("[" in rows[4]) == (columns >= 72)
    for quantity in ("All layers noisy together", "A_avr"):
        assert any(line.startswith(quantity) for line in lines)


def test_hostile_names(runs: list[Path]) -> None:
    name = "[red]x[/red] \u202e \x1b[31m" + "n" * 300
    shutil.copy(runs[1], "hostile.sqlite")
    change = "UPDATE record SET json = json_set(json, '$.model', ?) WHERE name = 'description'"
    edited(Path("hostile.sqlite"), change, values=(name,))
    outcome = compared(runs[0], "hostile.sqlite")
    assert outcome.code == 0
    assert "[red]x" in outcome.out
    assert not any(character in outcome.out for character in "\x1b\u202e")
    assert compared(runs[0], "hostile.sqlite", "--json", "-").json["models"][1]["name"] == name
