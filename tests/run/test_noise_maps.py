"""Noise maps: layers alike are `all`, one layer is its `single` cell, to the tally; and what is refused, with the right words."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from support import nets
from support.command import onnxnoise

from onnxnoise.engine.layer_noise import in_memory
from onnxnoise.errors import InputError, OnnxNoiseError, UsageError
from onnxnoise.records import DrawHits, Result
from onnxnoise.results.reading import results_of
from onnxnoise.run import runner
from onnxnoise.run.loading import open_model
from onnxnoise.spec import BenchSpec


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> nets.Files:
    return nets.bench_files(tmp_path_factory.mktemp("maps"), count=24)


def bench(files: nets.Files, out: Path, mapped: str = "", **asked: object) -> Result:
    spec = BenchSpec(str(files.model), data=str(files.data), out=str(out), draws=2)
    if mapped:
        path = out.with_suffix(".toml")
        path.write_text(f"[layers]\n{mapped}\n")
        spec = replace(spec, noise_map=str(path))
    return runner.bench(replace(spec, **asked))


def draws(result: Result, sweep: str, layer: int | None = None) -> list[tuple[DrawHits, ...]]:
    return [cell.draws for cell in result.cells if (cell.sweep, cell.layer) == (sweep, layer)]


def test_all_layers_alike_are_all(files: nets.Files, tmp_path: Path) -> None:
    plain = bench(files, tmp_path / "a.sqlite", noise="relative", levels=(0.3,))
    mapped = bench(files, tmp_path / "b.sqlite", '"*" = "relative:0.3"')
    for sweep, layer in (("all", None), ("single", 1), ("single", 5)):
        assert draws(mapped, sweep, layer) == draws(plain, sweep, layer)
    assert [cell.level for cell in mapped.cells if cell.sweep == "all"] == [1.0]
    assert {cell.snr for cell in mapped.cells} == {None}
    levels = bench(files, tmp_path / "c.sqlite", '"conv" = 0.3', noise="relative", levels=(0.3, 0.1))
    assert draws(levels, "all")[0] == draws(plain, "all")[0]


def test_one_layer_is_its_single_cell(files: nets.Files, tmp_path: Path) -> None:
    plain = bench(files, tmp_path / "a.sqlite", snrs=(2.0,))
    for layer, name in enumerate(nets.LAYERS, 1):
        mapped = bench(files, tmp_path / f"{layer}.sqlite", f'"{layer}" = "gaussian:2"\n"*" = "digital"')
        assert draws(mapped, "all") == draws(plain, "single", layer), name
        assert mapped.selected == (layer,)


def test_each_layer_has_its_own_noise_and_the_rest_the_run_s(files: nets.Files, tmp_path: Path) -> None:
    result = bench(
        files, tmp_path / "a.sqlite", '"1,2" = "relative:0.1"\n"1-3" = "digital"', snrs=(4.0, 2.0), analog="all"
    )
    noise = results_of(tmp_path / "a.sqlite").noise
    assert noise == result.noise
    assert result.selected == (1, 2, 4, 5)
    subject = open_model(str(files.model))
    for layer in subject.layers:
        own = "relative:0.1" if layer.index < 3 else "gaussian"
        alone = BenchSpec("m", noise=own, analog="all").setting
        for level in (4.0, 2.0):
            one, other = (in_memory(layer, subject.network.constants, each, 1).at(level)[0] for each in (noise, alone))
            if layer.index != 3:
                assert all((one[name] == other[name]).all() for name in other)


@pytest.mark.parametrize(
    ("mapped", "kind", "words"),
    [
        ('"nothing" = "digital"', UsageError, ["--noise-map", "'nothing'", "matches no layer"]),
        ('"stem,nothing" = "digital"', UsageError, ["'nothing'"]),
        ('"*" = "digital"', UsageError, ["all layers are digital"]),
        ('"stem" = "gausian:3"', InputError, [".toml", "gausian", "did you mean gaussian"]),
        ('"stem" = "relative"', InputError, [".toml", "'stem'", "SNR is swept, not eta", "relative:0.01"]),
        ('"stem" = -3', InputError, [".toml", "'stem'", "-3"]),
        ('"stem" = true', InputError, [".toml", "'stem'", "digital"]),
        ('stem.x = "digital"', InputError, [".toml", "'stem'", "in quotes"]),
        ('"stem" = ', InputError, [".toml", "not even TOML"]),
        ("a." * 400_000 + "a = 1", InputError, [".toml", "is no noise map", "a key of 400,000 dots"]),
        ("".join(f"a{i} = 1\n" for i in range(30_000)), InputError, [".toml", "over 20,000 keys and tables"]),
        ('"conv,dense,batchnorm" = 5', UsageError, ["no SNR is left to sweep", '"*"']),
        ("", InputError, [".toml", "has no layers"]),
        ('"1" = 5\n[more]\n', InputError, [".toml", "'more'"]),
    ],
)
def test_what_is_refused(
    mapped: str, kind: type[OnnxNoiseError], words: list[str], files: nets.Files, tmp_path: Path
) -> None:
    with pytest.raises(OnnxNoiseError) as error:
        bench(files, tmp_path / "a.sqlite", mapped or "\n")
    assert type(error.value) is kind
    assert all(word in str(error.value) for word in words), error.value


def test_a_swept_level_beside_a_whole_map_is_refused(files: nets.Files, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="gives every layer its level"):
        bench(files, tmp_path / "a.sqlite", '"*" = 5', snrs=(3.0,))
    with pytest.raises(InputError, match="can't be read"):
        BenchSpec("m", noise_map=str(tmp_path / "none.toml"))


def test_a_changed_map_is_another_run(files: nets.Files, tmp_path: Path) -> None:
    flags = ("bench", files.model, "--data", files.data, "--sweep", "all", "--draws", 1, "--out", tmp_path / "r.sqlite")
    path = tmp_path / "map.toml"
    path.write_text('[layers]\n"*" = 5\n')
    assert onnxnoise(*flags, "--noise-map", path).code == 0
    path.write_text('[layers]\n"*" = 6\n')
    outcome = onnxnoise(*flags, "--noise-map", path)
    assert outcome.code == 3
    assert "another noise map sha256" in outcome.err


def test_a_chip_has_the_mapped_noise(files: nets.Files, tmp_path: Path) -> None:
    path = tmp_path / "map.toml"
    path.write_text('[layers]\n"conv" = "digital"\n"*" = "gaussian:3"\n')
    outcome = onnxnoise("apply", files.model, "--noise-map", path, "-o", tmp_path / "chip.onnx")
    assert outcome.code == 0, outcome.err
    assert "as mapped" in outcome.out
    assert "3 layers" in outcome.out
