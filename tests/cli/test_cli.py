from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from support import nets, schema
from support.command import Outcome, onnxnoise, refused, strict_json

import onnxnoise as package
from onnxnoise import spec, words
from onnxnoise.cli.output import profile
from onnxnoise.errors import Interrupted, ProviderError
from onnxnoise.noise.models import headline
from onnxnoise.records import NoiseSetting
from onnxnoise.words import Policy

SMALL = ("--snr", "10,2", "--draws", "2")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> nets.Files:
    return nets.bench_files(tmp_path_factory.mktemp("cli"))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty working folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def bench(files: nets.Files, *arguments: object) -> Outcome:
    return onnxnoise("bench", files.model, "--data", files.data, *SMALL, *arguments)


def test_a_run_prints_its_profile_and_keeps_it(files: nets.Files, folder: Path) -> None:
    outcome = bench(files)
    assert outcome.code == 0
    assert outcome.out.splitlines()[0] == headline(NoiseSetting(bn="group", sigma_scope="tensor"))
    assert {line.split()[1] for line in outcome.out.splitlines() if "batchnorm" in line} == {"stem_bn", "block_bn"}
    assert outcome.err.splitlines()[0] == headline(NoiseSetting(bn="group", sigma_scope="tensor"))
    assert "warning: few draws (2)" in outcome.err
    (run_file,) = folder.iterdir()
    assert re.fullmatch(r"tiny-cifar10-test-[0-9a-f]{8}\.sqlite", run_file.name)
    again = bench(files)
    assert (again.code, again.out) == (0, outcome.out)
    assert "complete: nothing is left to measure" in again.err


def test_json_on_standard_output_is_alone_there(files: nets.Files, folder: Path) -> None:
    outcome = bench(files, "--json", "-", "--out", "run.sqlite")
    content = outcome.json
    schema.result(content)
    assert content["schema"] == "onnxnoise/result/1"
    assert content["model"]["name"] == "tiny"
    assert (content["bn"], content["sigma_scope"], content["seed"]) == ("group", "tensor", 40)
    assert [layer["name"] for layer in content["layers"]] == list(nets.LAYERS)
    assert {(cell["sweep"], cell["layer"], cell["snr"]) for cell in content["cells"]} == {
        (sweep, layer, snr)
        for snr in (10, 2)
        for sweep, layer in [("all", None), *(("single", index) for index in range(1, 6))]
    }
    assert "warning:" in outcome.err


def test_json_in_a_file_comes_with_the_tables(files: nets.Files, folder: Path) -> None:
    outcome = bench(files, "--json", "result.json", "--out", "run.sqlite")
    schema.result(strict_json(Path("result.json").read_text()))
    assert "A_avr" in outcome.out
    again = bench(files, "--json", "result.json", "--out", "run.sqlite", "--bn", "group")
    assert again.code == 0, "a JSON file may be replaced"


def test_quiet_is_silent_but_for_the_result(files: nets.Files, folder: Path) -> None:
    outcome = bench(files, "-q", "--bn", "affine")
    (line,) = outcome.err.splitlines()
    assert "tiny.toml sets no mean, std or preset" in line, "which changes what the figures mean"
    assert outcome.out.startswith(headline(NoiseSetting(bn="affine", sigma_scope="tensor")))
    assert bench(files, "-q", "--bn", "affine", "--json", "-").json["cells"]


@pytest.mark.parametrize("bn", get_args(Policy))
def test_every_output_names_policy_and_scope(bn: str, files: nets.Files, folder: Path) -> None:
    flags = ("--bn", bn, "--sigma-scope", "layer")
    outcome = onnxnoise("bench", files.model, "--data", files.data, "--snr", "10", "--draws", "1", *flags)
    line = headline(NoiseSetting(bn=bn, sigma_scope="layer"))
    assert (outcome.out.splitlines()[0], outcome.err.splitlines()[0]) == (line, line)
    assert onnxnoise("layers", files.model, *flags).out.splitlines()[0] == line


def test_paper_s_protocol(files: nets.Files, folder: Path) -> None:
    content = onnxnoise(
        "bench", files.model, "--data", files.data, "--protocol", "paper", "--draws", "1", "--limit", "8", "--json", "-"
    ).json
    assert (content["bn"], content["sigma_scope"]) == ("group", "layer")
    assert {cell["snr"] for cell in content["cells"]} == {100, 10, 5, 2.5, 1.67, 1}


def test_infinite_snr_equals_clean(files: nets.Files, folder: Path) -> None:
    content = onnxnoise(
        "bench", files.model, "--data", files.data, "--snr", "inf,5", "--draws", "1", "--json", "-"
    ).json
    clean = content["clean"]
    cells = [cell for cell in content["cells"] if cell["snr"] == float("inf")]
    assert len(cells) == 6
    for cell in cells:
        (draw,) = cell["draws"]
        assert (draw["top1_hits"], draw["top5_hits"]) == (clean["top1_hits"], clean["top5_hits"])
        assert cell["normalized_top1"]["mean"] == 1


def test_layers_selected_keep_their_indices(files: nets.Files, folder: Path) -> None:
    content = bench(files, "--layers", "block*,5", "--sweep", "single", "--json", "-").json
    assert sorted({cell["layer"] for cell in content["cells"]}) == [3, 4, 5]
    assert {average["layers"] for average in content["a_avr"]} == {3}
    assert [layer["index"] for layer in content["layers"]] == [1, 2, 3, 4, 5]


def test_metric_of_the_tables(files: nets.Files, folder: Path) -> None:
    assert "top-5 accuracy / clean" in bench(files, "--metric", "top5").out
    assert "top-1 accuracy / clean" in bench(files).out, "the same run file serves both"


def test_verbose_shows_every_layer(files: nets.Files, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profile, "SHOWN_LAYERS", 1)
    assert "4 more, at least" in bench(files).out
    assert "more, at least" not in bench(files, "-v").out


def test_layers_needs_no_card(files: nets.Files, folder: Path) -> None:
    (folder / "alone.onnx").write_bytes(files.model.read_bytes())
    outcome = onnxnoise("layers", "alone.onnx")
    assert outcome.code == 0
    assert "alone: 5 noise layers (2 conv, 2 batchnorm, 1 dense), 1,594 parameters" in outcome.out
    assert list(folder.iterdir()) == [folder / "alone.onnx"], "it makes no files"
    content = onnxnoise("layers", "alone.onnx", "--json", "-").json
    schema.layer_list(content)
    assert [(layer["name"], layer["kind"], layer["parameters"]) for layer in content["layers"]] == [
        ("stem", "conv", 1152),
        ("stem_bn", "batchnorm", 24),
        ("block", "conv", 324),
        ("block_bn", "batchnorm", 24),
        ("head", "dense", 70),
    ]
    clean = onnxnoise("layers", "alone.onnx", "--bn", "clean", "--layers", "conv,4-5", "--json", "-").json
    assert [layer["index"] for layer in clean["layers"]] == [1, 3, 5]


@pytest.mark.parametrize("flag", ["--help", "-h"])
@pytest.mark.parametrize("command", [(), ("bench",), ("layers",)])
def test_help(flag: str, command: tuple[str, ...]) -> None:
    outcome = onnxnoise(*command, flag)
    assert (outcome.code, outcome.err) == (0, "")
    if not command:
        assert all(word in outcome.out for word in ("bench", "layers", "--version", "resnet20-cifar10"))
    assert max(map(len, outcome.out.splitlines())) <= 80


def test_help_names_every_flag_and_default_of_the_design() -> None:
    text = " ".join(onnxnoise("bench", "--help").out.split())
    flags = "card data snr sweep draws seed protocol layers bn sigma-scope metric limit provider out json output"
    for flag in flags.split():
        assert f"--{flag} " in text
    assert "-q, --quiet" in text
    assert "-v, --verbose" in text
    default = spec.BenchSpec("m")
    snrs = ",".join(f"{snr:g}" for snr in default.swept)
    for value in (snrs, ",".join(default.sweeps), "each chunk of images", default.seed, default.provider, default.bn):
        assert f"default: {value}" in text or f"{value}, the default" in text or f"paper's {value}" in text, value


def test_version() -> None:
    outcome = onnxnoise("--version")
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out.split()[0] == "onnxnoise"


def test_nothing_asked_for_shows_what_there_is() -> None:
    outcome = onnxnoise()
    assert (outcome.code, outcome.out) == (2, "")
    assert "Usage: onnxnoise" in outcome.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["bench"], ["MODEL", "onnxnoise bench --help"]),
        (["layers"], ["MODEL", "onnxnoise layers --help"]),
        (["bench", "m", "extra"], ["extra", "onnxnoise bench --help"]),
        (["bench", "m", "--bogus"], ["--bogus", "onnxnoise bench --help"]),
        (["bench", "m", "--snr"], ["--snr", "--help"]),
        (["bogus"], ["bogus", "onnxnoise --help"]),
        (["benhc"], ["benhc", "bench"]),
        (["--bogus"], ["--bogus", "onnxnoise --help"]),
        (["bench", "m", "--draws", "abc"], ["--draws", "'abc'", "--draws 10"]),
        (["bench", "m", "--limit", "-1"], ["--limit", "-1", "from 1"]),
        (["bench", "m", "--snr", "-5"], ["--snr", "-5", "above 0"]),
        (["layers", "m", "--bn", "\x1b[31m[bold]"], ["--bn", "group, raw"]),
    ],
)
def test_usage_errors_are_one_line(arguments: list[str], words: list[str]) -> None:
    outcome = onnxnoise(*arguments)
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err == outcome.error + "\n"
    assert [word for word in words if word not in outcome.error] == []
    assert "\x1b" not in outcome.err


def failing(error: BaseException) -> Any:
    def fail(*_: object) -> None:
        raise error

    return fail


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (ProviderError("no such thing; use cpu"), 4, ["no such thing; use cpu"]),
        (KeyboardInterrupt(), 130, ["interrupted"]),
        (Interrupted("kept in run.sqlite"), 130, ["interrupted; kept in run.sqlite"]),
        (MemoryError("Unable to allocate 7.45 GiB for an array"), 3, ["7.45 GiB", "MiB", "--memory", "--limit"]),
        (MemoryError(), 3, ["memory ran out", "--memory"]),
        (FileNotFoundError(2, "No such file or directory", "gone.bin"), 3, ["gone.bin", "No such file", "check"]),
        (RuntimeError("surprise"), 70, ["a bug in onnxnoise", "RuntimeError: surprise", "report"]),
        (SystemExit(0), 70, ["a bug in onnxnoise", "sys.exit(0) was called"]),
        (GeneratorExit("surprise"), 70, ["a bug in onnxnoise", "GeneratorExit('surprise')"]),
    ],
)
def test_exit_codes(
    error: BaseException, code: int, words: list[str], files: nets.Files, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("onnxnoise.run.runner.bench", failing(error))
    outcome = bench(files)
    assert outcome.code == code
    assert [word for word in words if word not in outcome.error] == []


WAITED_FOR = """
import threading
from onnxnoise import cli
from onnxnoise.cli import app
def interrupted(**_):
    threading.Thread(target=threading.Event().wait).start()
    raise KeyboardInterrupt
app.app = interrupted
cli.main()
"""


def test_no_thread_holds_an_interrupted_command() -> None:
    """Python itself would wait for a thread that waits for ever for work which the interrupt has ended."""
    ended = subprocess.run([sys.executable, "-c", WAITED_FOR], check=False, capture_output=True, text=True, timeout=50)
    assert (ended.returncode, ended.stderr) == (130, "error: interrupted\n")


def test_a_bug_shows_its_traceback_where_asked(files: nets.Files, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onnxnoise.run.runner.bench", failing(RuntimeError("surprise")))
    monkeypatch.setenv("ONNXNOISE_TRACEBACK", "1")
    outcome = bench(files)
    assert outcome.code == 70
    assert "Traceback" in outcome.err


@pytest.mark.parametrize(
    ("target", "found"),
    [
        ("precious.txt/x.json", "precious.txt is no folder"),
        (".", "is a folder"),
        ("precious.txt", "no JSON result"),
        ("/proc/x.json", "can't be written"),
    ],
)
def test_json_that_can_t_be_written_is_said(target: str, found: str, files: nets.Files, folder: Path) -> None:
    Path("precious.txt").write_text("precious")
    outcome = bench(files, "--json", target)
    assert outcome.code == 3
    assert f"{target}: " in outcome.error
    assert found in outcome.error
    assert "--json" in outcome.error
    assert Path("precious.txt").read_text() == "precious"


def test_json_never_replaces_the_run_file(files: nets.Files, folder: Path) -> None:
    outcome = bench(files, "--out", "one", "--json", "one")
    assert outcome.code == 3
    assert "one: is there and no JSON result" in outcome.error
    assert bench(files, "--out", "one").err.count("nothing is left to measure") == 1


def process(*arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *map(str, arguments)], capture_output=True, text=True, timeout=60, check=False, **options
    )


def test_help_and_import_load_nothing_heavy() -> None:
    done = process("-X", "importtime", "-m", "onnxnoise", "--help")
    assert (done.returncode, "Usage: onnxnoise" in done.stdout) == (0, True)
    loaded = {line.rsplit("|", 1)[-1].strip() for line in done.stderr.splitlines()}
    assert "typer" in loaded
    assert not loaded & {"numpy", "onnx", "onnxruntime", "onnx_ir", "rich", "PIL", "sqlite3"}
    seconds = int(done.stderr.splitlines()[-1].split("|")[1]) / 1e6
    assert seconds < 0.5


def test_completion(files: nets.Files) -> None:
    def completed(line: str) -> list[str]:
        env = {
            **os.environ,
            "_ONNXNOISE_COMPLETE": "complete_bash",
            "COMP_WORDS": line,
            "COMP_CWORD": str(len(line.split())),
        }
        return process("-m", "onnxnoise", env=env).stdout.split()

    assert completed("onnxnoise bench m --bn ") == list(words.POLICIES)
    assert completed("onnxnoise bench m --sweep ") == list(words.SWEEPS)
    assert (
        "--sigma-scope"
        in process(
            "-m",
            "onnxnoise",
            env={
                **os.environ,
                "_ONNXNOISE_COMPLETE": "complete_bash",
                "COMP_WORDS": "onnxnoise bench --si",
                "COMP_CWORD": "2",
            },
        ).stdout
    )


def test_a_reader_that_leaves_stops_nothing(files: nets.Files, folder: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "onnxnoise",
        "bench",
        files.model,
        "--data",
        files.data,
        *SMALL,
        "--json",
        "r.json",
    ]
    run = subprocess.Popen([*map(str, command)], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert run.stdout is not None
    assert run.stderr is not None
    run.stdout.close()
    run.stderr.close()
    assert run.wait(timeout=60) == 0
    schema.result(json.loads((folder / "r.json").read_text()))


def test_the_package_s_names() -> None:
    assert set(package.__all__) <= set(dir(package))
    assert package.BenchSpec is spec.BenchSpec
    for name in package.__all__:
        assert getattr(package, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = package.nothing  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("words", "help_of"),
    [
        (("gate", "M", "--rules"), "onnxnoise gate --help"),
        (("cards", "new", "--limit"), "onnxnoise cards new --help"),
        (("noise", "show", "--frob"), "onnxnoise noise show --help"),
        (("ls", "a", "b"), "onnxnoise ls --help"),
        (("frob",), "onnxnoise --help"),
    ],
)
def test_what_cannot_be_parsed_names_the_command_s_help(words: tuple[str, ...], help_of: str) -> None:
    refused(onnxnoise(*words), 2, f"`{help_of}` shows what it takes")


@pytest.mark.parametrize("command", [(), ("bench",), ("cards",), ("noise",), ("report",), ("merge",), ("compare",)])
def test_help_is_whole_and_says_no_types(command: tuple[str, ...]) -> None:
    text = onnxnoise(*command, "--help", columns=80).out
    assert max(map(len, text.splitlines())) <= 80
    assert not [
        mark for mark in ("...\n", "<str>", "list[", "{") if mark in text.replace("ARGS]...\n", "").partition("\n")[2]
    ]
