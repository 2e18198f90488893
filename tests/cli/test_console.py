from __future__ import annotations

import io
import re
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, get_args

import numpy as np
import pytest
from rich.cells import cell_len
from rich.console import Console

from onnxnoise.cli.output import profile as profile_view
from onnxnoise.cli.output import progress, terminal
from onnxnoise.noise.gaussian import SNR
from onnxnoise.noise.models import headline
from onnxnoise.records import (
    Average,
    Cell,
    CleanHits,
    DrawHits,
    Estimate,
    InitializerInfo,
    LayerInfo,
    NoiseSetting,
    Notice,
    Result,
    Tally,
    WithoutNoise,
)
from onnxnoise.run.jobs import Job
from onnxnoise.words import Metric, Policy, SigmaScope

HOSTILE = [
    "\x1b[31mred\x1b[0m",
    "[red]markup[/red] :warning:",
    "line\nbreak\r\ttab",
    "\u202egnp.exe\u2066",
    "\x9b2J\x07bell",
    "x" * 300,
    "層.卷積" * 30,
    "\udcff surrogate",
    "a [link=http://x]b[/link]",
]
SIX = (100.0, 10.0, 5.0, 2.5, 1.67, 1.0)


def layer(index: int, name: str) -> LayerInfo:
    return LayerInfo(
        index, name, "batchnorm", 25_557_032, 0.00012345, (InitializerInfo(name, (2048, 1024, 1, 1), 0.1),) * 2
    )


def profile(
    names: Sequence[str],
    snrs: Sequence[float] = SIX,
    *,
    draws: int = 3,
    metric: Metric = "top1",
    classes: int = 10,
    whole: bool = True,
    missing: int = 0,
) -> Result:
    """Layer i is right in a share of 1 - 1 / (i + 1) of the clean hits."""

    def cell(index: int | None, snr: float) -> Cell:
        mean = 0.1 if index is None else index / (index + 1)
        interval = None if draws == 1 else (mean / 2, mean * 2)
        estimate = Estimate(mean, interval, interval)
        top5 = Estimate(0.77, None, None) if classes > 5 else None
        hits = [DrawHits(d, 100, 90, 99 if top5 else None, 45, 77 if top5 else None, 0, 0) for d in range(draws)]
        return Cell("all" if index is None else "single", index, snr, tuple(hits), estimate, top5)

    cells = [cell(index, snr) for index in range(1, len(names) + 1) for snr in snrs]
    whole_cells = [cell(None, snr) for snr in snrs] if whole else []
    averages = [Average("single", snr, len(names), Estimate(0.5, None, None), None) for snr in snrs]
    return Result(
        model={"name": names[0], "sha256": "c" * 64},
        provider="CPUExecutionProvider",
        dataset={"name": names[-1], "images": 100, "sha256": "d" * 64},
        noise=NoiseSetting(),
        metric=metric,
        clean=CleanHits(100, 90, 99 if classes > 5 else None, 0),
        layers=tuple(layer(i, name) for i, name in enumerate(names, 1)),
        cells=tuple(cells[: len(cells) - missing] + whole_cells),
        a_avr=tuple(averages),
        warnings=(),
        runs=(),
        selected=tuple(range(1, len(names) + 1)),
        measured=draws * (len(cells) - missing + len(whole_cells)),
        planned=draws * (len(cells) + len(whole_cells)),
    )


@pytest.fixture(autouse=True)
def _no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR", "TERM", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)


def shown(monkeypatch: pytest.MonkeyPatch, columns: int, result: Result, *, all_layers: bool = False) -> str:
    monkeypatch.setenv("COLUMNS", str(columns))
    stream = io.StringIO()
    monkeypatch.setattr("sys.stdout", stream)
    profile_view.result_tables(terminal.consoles(quiet=False)[0], result, all_layers=all_layers)
    return stream.getvalue()


def rows(text: str, kind: str = "batchnorm") -> list[list[str]]:
    return [line.split() for line in text.splitlines() if kind in line]


NAMES = [f"layer{i // 40}.{i}.conv1" for i in range(107)]


@pytest.mark.parametrize("columns", [60, 80, 200])
@pytest.mark.parametrize("snrs", [(10.0,), SIX], ids=["one SNR", "six SNRs"])
@pytest.mark.parametrize("names", [NAMES, HOSTILE], ids=["107 layers", "hostile"])
def test_nothing_is_wrapped_or_cut(
    names: list[str], snrs: tuple[float, ...], columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = shown(monkeypatch, columns, profile(names, snrs), all_layers=True)
    lines = text.splitlines()
    header = next(i for i, line in enumerate(lines) if line.lstrip().startswith("#"))
    table = lines[header : header + 2 + len(names)]
    assert all(cell_len(line) <= columns for line in table), "no line is wider than the terminal"
    titles = table[0].split()
    assert [title for title in titles if title not in ("SNR", "#", "layer", "kind")] == [f"{snr:g}" for snr in snrs]
    for index, line in enumerate(table[2:], 1):
        numbers = line.split()[-len(snrs) :]
        assert line.split()[0] == str(index), "worst first"
        assert numbers == [f"{index / (index + 1):.2f}"] * len(snrs)
    whole = next(i for i, line in enumerate(lines) if line.lstrip().startswith("SNR") and "noise" in line)
    assert [line.split()[0] for line in lines[whole + 2 : whole + 2 + len(snrs)]] == [f"{snr:g}" for snr in snrs]
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\udc80-\udcff]", text)


def test_names_are_shown_as_they_are_or_not_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    text = shown(monkeypatch, 200, profile(HOSTILE))
    assert "[red]markup[/red] :warning:" in text
    assert "�[31mred�[0m" in text
    assert "line�break��tab" in text
    assert "a [link=http://x]b[/link]" in text
    assert re.search(r" x{29,30}…x{29,30} ", text)
    assert "\x1b" not in text


@pytest.mark.parametrize("bn", get_args(Policy))
@pytest.mark.parametrize("scope", get_args(SigmaScope))
def test_the_first_line_fits(bn: str, scope: str, monkeypatch: pytest.MonkeyPatch) -> None:
    line = headline(NoiseSetting(bn=bn, sigma_scope=scope))
    assert len(line) <= 80
    assert bn in line
    assert scope in line
    assert shown(monkeypatch, 80, profile(NAMES)).startswith(
        headline(NoiseSetting(bn="group", sigma_scope="tensor")) + "\n"
    )


def test_many_layers_are_folded(monkeypatch: pytest.MonkeyPatch) -> None:
    text = shown(monkeypatch, 80, profile(NAMES))
    assert len(rows(text)) == profile_view.SHOWN_LAYERS
    assert "87 more, at least" in text
    assert re.search(r"87 more, at least +0\.95 +0\.95", text), "layer 21 of them has 21/22"
    assert "-v shows every layer" in text
    assert len(rows(shown(monkeypatch, 80, profile(NAMES), all_layers=True))) == 107
    assert len(rows(shown(monkeypatch, 80, profile(NAMES[:23])))) == 23


@pytest.mark.parametrize(
    ("options", "words", "absent"),
    [
        (
            {},
            [
                "top-1 accuracy / clean",
                "mean of 3 draws",
                "clean accuracy: top-1 90.00%, top-5 99.00%",
                "0.100 [0.050, 0.200]",
            ],
            ["unfinished"],
        ),
        ({"metric": "top5"}, ["top-5 accuracy / clean", " 0.77", "77.00%"], []),
        (
            {"metric": "top5", "classes": 5},
            ["top-1 accuracy / clean", "clean accuracy: top-1 90.00%; seed", "45.00%"],
            ["top-5"],
        ),
        ({"draws": 1}, ["one draw", "no intervals with one draw", "0.100"], ["[0"]),
        ({"whole": False}, ["A_avr: top-1", "mean over 107 layers"], ["together", "accuracy  "]),
        ({"missing": 3}, ["unfinished: 1935 of 1944 passes", " -"], []),
    ],
    ids=["plain", "top5", "five classes", "one draw", "single only", "unfinished"],
)
def test_what_the_numbers_are_is_said(
    options: dict[str, Any], words: list[str], absent: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = shown(monkeypatch, 80, profile(NAMES, **options), all_layers=True)
    assert [word for word in words if word not in text] == []
    assert [word for word in absent if word in text] == []


def test_infinite_snr_is_no_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    text = shown(monkeypatch, 80, profile(NAMES[:3], (float("inf"), 10.0)))
    assert "SNR inf" in text
    assert re.search(r"inf +0 %", text)


def test_color_only_where_it_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "\x1b" not in shown(monkeypatch, 80, profile(NAMES))
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    assert "\x1b[33m" in shown(monkeypatch, 80, profile(NAMES))
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[33m" not in shown(monkeypatch, 80, profile(NAMES))


def test_layers_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    stream = io.StringIO()
    monkeypatch.setattr("sys.stdout", stream)
    infos = [layer(i, name) for i, name in enumerate(HOSTILE, 1)]
    profile_view.layers_table(
        terminal.consoles(quiet=False)[0],
        HOSTILE[0],
        infos,
        NoiseSetting(bn="affine", sigma_scope="layer"),
        WithoutNoise(),
    )
    lines = stream.getvalue().splitlines()
    assert lines[0] == headline(NoiseSetting(bn="affine", sigma_scope="layer"))
    assert lines[1].startswith("�[31mred�[0m: 9 noise layers (9 batchnorm), 230,013,288 parameters")
    assert all(cell_len(line) <= 80 for line in lines[2:])
    assert "2048x1024x1x1 +1  25,557,032  0.0001234" in stream.getvalue()


def test_errors_and_warnings_are_a_line_each(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr("sys.stderr", stream)
    terminal.error_message(terminal.consoles(quiet=False)[1], "a\nb \x1b[31m [red]" + "c" * 200)
    terminal.warnings(terminal.consoles(quiet=False)[1], [Notice("code", "d\ne" + "f" * 200)])
    terminal.warnings(terminal.consoles(quiet=True)[1], [Notice("few_draws", "unseen"), Notice("rare_collapses", "g")])
    assert stream.getvalue() == f"error: a b �[31m [red]{'c' * 200}\nwarning: d�e{'f' * 200}\nwarning: g\n"


def run_of(layers: int, images: int = 1000, chunks: int = 4, snrs: Sequence[float] = SIX) -> Any:
    """What progress looks at of a Run."""
    infos = [layer(i, HOSTILE[i % len(HOSTILE)]) for i in range(1, layers + 1)]
    todo = []
    for chunk in (range(start, start + images // chunks) for start in range(0, images, images // chunks)):
        keys: list[Any] = [("clean", None, float("inf"), 0, chunk.start)]
        keys += [("all", None, snr, draw, chunk.start) for draw in range(3) for snr in snrs]
        keys += [("single", i, snr, d, chunk.start) for i in range(1, layers + 1) for d in range(3) for snr in snrs]
        todo.append(Job(chunk, tuple(keys)))
    subject = SimpleNamespace(layers=infos, network=SimpleNamespace(name="net"))
    experiment = SimpleNamespace(
        subject=subject,
        spec=SimpleNamespace(level=SNR, budget=None),
        noise=NoiseSetting(),
        images=SimpleNamespace(name="data"),
        provider=SimpleNamespace(name="CPUExecutionProvider"),
    )
    question = SimpleNamespace(snrs=snrs, draws=3, images=images, metric="top1")
    store = SimpleNamespace(path="run.sqlite", tallies=lambda sweep: [], runs=lambda: [])
    schedule = SimpleNamespace(about=lambda level: f"{len(snrs)} {level.name}s, 3 draws")
    return SimpleNamespace(experiment=experiment, question=question, todo=todo, store=store, schedule=schedule)


def watched(run: Any, terminal: Console) -> None:
    """All of a run: layer 2 loses half of what is clean, the others nothing."""
    with progress.LiveProgress(terminal) as live:
        live.started(run)
        live.planned(run.todo)
        for job in run.todo:
            for sweep, index, snr, draw, start in job.keys:
                bits = np.packbits(np.arange(len(job.chunk)) % (4 if index == 2 else 2) == 0).tobytes()
                live.measured(Tally(sweep, index, snr, draw, start, len(job.chunk), bits, b"", b"", 0))


def test_progress_on_a_pipe_is_a_few_lines() -> None:
    stream = io.StringIO()
    watched(
        run_of(50),
        terminal._Terminal(stderr=False, quiet=False)
        if stream is None
        else Console(file=stream, width=80, soft_wrap=True),
    )
    lines = stream.getvalue().splitlines()
    assert lines[0] == headline(NoiseSetting(bn="group", sigma_scope="tensor"))
    assert lines[1] == "net: 50 layers, 6 SNRs, 3 draws, 1,000 images of data"
    assert lines[2] == "CPUExecutionProvider; run file run.sqlite"
    assert len(lines) == 3 + 1 + 10
    assert re.match(r" 50%, 0:00:0\d, 0:00:0\d left; clean top-1 50.0% of 500 images; layer ", lines[8])
    assert "worst so far layer 2 line�break��tab at SNR 100, mean of its draws: 0.50 of clean" in lines[-1]
    assert lines[-1].startswith("100%, 0:00:0")


def test_progress_lines_come_in_slow_runs_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "_EVERY", -1.0)
    stream = io.StringIO()
    watched(run_of(2, snrs=(10.0,)), Console(file=stream, width=80, soft_wrap=True))
    assert len(stream.getvalue().splitlines()) == 3 + 4 * (1 + 3 + 6)


def test_progress_in_a_terminal_leaves_nothing_behind() -> None:
    stream = io.StringIO()
    watched(run_of(3), Console(file=stream, width=80, force_terminal=True, color_system=None))
    text = stream.getvalue()
    assert "━" in text
    assert "clean top-1 50.0% of 1,000 images" in text
    assert "worst so far layer 2" in text
    assert text.rstrip("\n").endswith("\x1b[2K"), "the last thing is to clear its own lines"


def test_a_complete_run_has_no_progress() -> None:
    stream = io.StringIO()
    run = run_of(3)
    run.todo = ()
    watched(run, Console(file=stream, width=80, soft_wrap=True))
    assert stream.getvalue().splitlines()[-1].endswith("run file run.sqlite, complete: nothing is left to measure")
