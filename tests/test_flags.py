"""Texts of flags as values; and that everything that says a flag says it from one source."""

from __future__ import annotations

import inspect
import math
import re
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer
from support.command import onnxnoise

import onnxnoise as package
from onnxnoise.cli.commands.apply import ApplyFlags
from onnxnoise.cli.commands.margin import MarginFlags
from onnxnoise.cli.commands.plan import PlanFlags
from onnxnoise.cli.options import Commands, add
from onnxnoise.decisions.gating.rules import load_rules
from onnxnoise.errors import UsageError
from onnxnoise.fields import Flag, flag, flags_of
from onnxnoise.flags import bench_flags, from_flags
from onnxnoise.spec import BenchSpec
from onnxnoise.words import PAPER_SNRS


def test_flags_become_a_spec() -> None:
    spec = from_flags(
        "m",
        card="c",
        snrs="100, 1e1,inf",
        sweeps="all,single",
        draws="7",
        seed="0",
        limit="12",
        bn="affine",
        metric="top5",
    )
    assert spec == BenchSpec("m", "c", snrs=(100, 10, math.inf), draws=7, seed=0, limit=12, bn="affine", metric="top5")


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ({}, ("tensor", "group")),
        ({"protocol": "paper"}, ("layer", "group")),
        ({"protocol": "paper", "bn": "group", "sigma_scope": "layer"}, ("layer", "group")),
    ],
)
def test_protocol(flags: dict[str, str], expected: tuple[str, str]) -> None:
    spec = from_flags("m", **flags)
    assert (spec.sigma_scope, spec.bn, spec.swept) == (*expected, PAPER_SNRS)


def test_protocol_takes_fewer_snrs() -> None:
    assert from_flags("m", protocol="paper", snrs="10").snrs == (10,)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"snrs": "0"}, ["--snr", "0", "above 0"]),
        ({"snrs": "-5"}, ["--snr", "-5", "above 0"]),
        ({"snrs": "nan"}, ["--snr", "nan", "above 0"]),
        ({"snrs": "1e-400"}, ["--snr", "above 0"]),
        ({"snrs": "abc"}, ["--snr", "'abc'", "--snr 100,10,5"]),
        ({"snrs": ""}, ["--snr", "''", "--snr 100,10,5"]),
        ({"snrs": "10,"}, ["--snr", "''"]),
        ({"snrs": "10,10.0"}, ["--snr", "10.0", "twice"]),
        ({"sweeps": "double"}, ["--sweep", "'double'", "single, cumulative, all"]),
        ({"sweeps": ""}, ["--sweep", "''", "single, cumulative, all"]),
        ({"sweeps": "all,all"}, ["--sweep", "all", "twice"]),
        ({"draws": "abc"}, ["--draws", "'abc'", "whole number"]),
        ({"draws": "2.5"}, ["--draws", "'2.5'", "whole number"]),
        ({"draws": "0"}, ["--draws", "0", "from 1"]),
        ({"draws": "9" * 5000}, ["--draws", "999", "..."]),
        ({"seed": "-1"}, ["--seed", "-1", "from 0"]),
        ({"limit": "-1"}, ["--limit", "-1", "from 1"]),
        ({"limit": "0"}, ["--limit", "0", "from 1"]),
        ({"bn": "none"}, ["--bn", "'none'", "group, raw, affine, fold, clean"]),
        ({"sigma_scope": "model"}, ["--sigma-scope", "'model'", "tensor, layer"]),
        ({"metric": "top3"}, ["--metric", "'top3'", "top1, top5"]),
        ({"protocol": "mine"}, ["--protocol", "'mine'", "paper"]),
        ({"protocol": "paper", "bn": "raw"}, ["--protocol paper", "--bn group", "--bn raw", "leave out"]),
        ({"protocol": "paper", "sigma_scope": "tensor"}, ["--sigma-scope layer", "--sigma-scope tensor"]),
    ],
)
def test_values_that_no_run_could_use(flags: dict[str, str], words: list[str]) -> None:
    with pytest.raises(UsageError) as raised:
        from_flags("m", **flags)
    message = str(raised.value)
    assert all(word in message for word in words), message
    assert len(message) < 200


COMMANDS = ("bench", "compare", "gate", "margin", "plan", "apply", "layers", "check")
TEXTS = {
    "text": "x",
    "path": "x",
    "switch": True,
    "whole": "10",
    "number": "0.5",
    "numbers": "3,2",
    "levels": "3,2",
    "bytes": "1.5GiB",
    "seconds": "1h30m",
    "share": "3/8",
    "amounts": "GPU=1,RAM=2",
}
READ = {
    "whole": 10,
    "number": 0.5,
    "numbers": (3.0, 2.0),
    "levels": (3.0, 2.0),
    "bytes": 3 << 29,
    "seconds": 5400.0,
    "share": (3, 8),
    "amounts": (("GPU", 1.0), ("RAM", 2.0)),
}
NEEDS = {
    "max_draws": {"precision": "0.01"},
    "resources": {"cluster": "tcp://there"},
    "scale": {"noise": "relative"},
    "levels": {"noise": "relative"},
    "calibration": {"compensate": "bn"},
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a noise map of the name that TEXTS gives."""
    monkeypatch.chdir(tmp_path)
    Path(TEXTS["path"]).write_text('[layers]\n"conv" = "digital"\n')
    return tmp_path


def a_text(each: Flag) -> str | bool:
    return each.choices[-1] if each.choices else TEXTS[each.syntax]


def test_every_field_of_the_spec_is_a_flag_of_commands_that_there_are() -> None:
    assert sorted(flags_of(BenchSpec)) == sorted(each.name for each in fields(BenchSpec))
    for name, each in flags_of(BenchSpec).items():
        assert set(each.at.split()) <= {*COMMANDS, "rules"}, name
        assert each.taken_by("bench"), name


@pytest.mark.parametrize("name", flags_of(BenchSpec))
@pytest.mark.usefixtures("folder")
def test_every_flag_is_read(name: str) -> None:
    if name != "model":
        each = flags_of(BenchSpec)[name]
        text = a_text(each)
        found = getattr(from_flags("m", **{name: text}, **NEEDS.get(name, {})), name)
        assert found == ((text,) if each.syntax == "words" else READ.get(each.syntax, text))


@cache
def helped(command: str) -> str:
    outcome = onnxnoise(*(("cards", command) if command == "check" else (command,)), "--help")
    return " ".join(outcome.out.split())


@pytest.mark.parametrize("command", COMMANDS)
def test_help_says_the_flags_that_the_command_takes(command: str) -> None:
    for each in bench_flags(command).values():
        default = f" (default: {each.shown_default})" if each.shown_default else ""
        head = each.names.replace("/", " / ") + ("" if each.syntax == "switch" else f" {each.metavar}")
        assert f"{head} {each.help}{default}." in helped(command) or not each.names
    others = {each.name for each in flags_of(BenchSpec).values() if not each.taken_by(command)}
    own = set(re.findall(r"--[a-z-]+(?= )", onnxnoise_own_flags(command)))
    assert set(re.findall(r" (--[a-z-]+) ", helped(command))) & others <= own


def onnxnoise_own_flags(command: str) -> str:
    """The flags that a command explains otherwise than BenchSpec does."""
    return {"compare": "--card --sweep --draws --out ", "margin": "--sweep --draws ", "plan": "--draws "}.get(
        command, "--snr --out --data "
    )


@pytest.mark.parametrize("key", bench_flags("rules"))
def test_rules_take_the_flags_of_bench(key: str, folder: Path) -> None:
    each = bench_flags("rules")[key]
    text = a_text(each)
    value = {"switch": "false", "whole": "10", "number": "0.5"}.get(each.syntax, f'"{text}"')
    path = folder / "onnxnoise.toml"
    path.write_text(f'[bench]\n{key} = {value}\n[[rule]]\nname = "a"\nsnr = 10\nmin = 0.9\n')
    bench = load_rules(path).bench
    assert bench == {key: False if each.syntax == "switch" else str(folder / text) if each.syntax == "path" else text}
    from_flags("m", **{**NEEDS.get(key, {}), **bench})


@pytest.mark.parametrize(
    ("function", "own", "names"),
    [
        (package.margin, MarginFlags(), {"tolerance": "tolerance", "range_": "range"}),
        (package.plan, PlanFlags(), {"max_share": "max_share", "fresh_draws": "fresh_draws"}),
        (package.apply, ApplyFlags(out="x"), {"draw": "draw"}),
    ],
)
def test_commands_and_functions_have_the_same_defaults(function: Any, own: object, names: dict[str, str]) -> None:
    defaults = {name: each.default for name, each in inspect.signature(function).parameters.items()}
    assert {name: defaults[name] for name in names} == {name: getattr(own, field) for name, field in names.items()}


def test_a_flag_is_one_field(capsys: pytest.CaptureFixture[str]) -> None:
    """Its name, help, default, completion, reading and checking."""

    @dataclass(frozen=True, kw_only=True)
    class Record:
        pace: str = flag("--pace", None, "How fast", default="walk", choices=("walk", "run"))
        many: tuple[float, ...] = flag("--many", "LIST", "How often", default=(1.0, 2.0), syntax="numbers")
        must: int = flag("--must", "N", "How far", syntax="whole", least=3)
        switch: bool = flag("-s --switch", None, "Whether", default=False)

    found = []

    def go(own: Any) -> None:
        """Go."""
        found.append(own)

    go.__annotations__ = {"own": Record}
    app = typer.Typer(cls=Commands, rich_markup_mode=None)
    app.callback()(lambda: None)
    add(app, go)
    with pytest.raises(SystemExit):
        app(["go", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert "--pace walk|run How fast (default: walk)." in text
    assert "--many LIST How often (default: 1,2)." in text
    assert "--must N How far. [required]" in text
    assert "-s, --switch Whether." in text
    app(["go", "--must", "4", "--many", "inf,5", "-s"], standalone_mode=False)
    assert found == [Record(must=4, many=(math.inf, 5.0), switch=True)]
    for wrong in (("--must", "2"), ("--must", "x"), ("--must", "3", "--pace", "fly"), ("--must", "3", "--many", "1,1")):
        with pytest.raises(UsageError, match=wrong[-2]):
            app(["go", *wrong], standalone_mode=False)
