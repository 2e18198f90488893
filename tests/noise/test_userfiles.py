"""Devices and noise of one's own: tables and Python functions, what is refused of them, and that they may not change."""

from __future__ import annotations

import math
import os
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onnxnoise.errors import InputError, NoiseFileError, UsageError
from onnxnoise.noise.base import Weights
from onnxnoise.noise.models import Chain, chain_of, level_of, parse_chain
from onnxnoise.noise.python import _function
from onnxnoise.noise.settings import setting_of
from onnxnoise.noise.userfiles import unchanged
from onnxnoise.records import NoiseSetting

ROWS = "g,mean,sd,t\n0,0.01,0.02,1\n0.5,0.48,0.03,1\n1,0.9,0.05,1\n0,0,0.01,86400\n1,0.7,0.1,86400\n"
TIMELESS = "\ufeffstates, mean, std\r\n0,0,0.01\r\n\r\n0.4,0.5,0.02\r\n1,1,0.03\r\n"


def written(folder: Path, text: str, name: str = "chip.csv") -> Path:
    path = folder / name
    path.write_bytes(text.encode())
    return path


def chain_from(text: str) -> Chain:
    return chain_of(NoiseSetting(steps=parse_chain(text)))


def linear(g: float, points: list[tuple[float, float]]) -> float:
    for (x0, y0), (x1, y1) in pairwise(points):
        if x0 <= g <= x1:
            return y0 + (y1 - y0) * (g - x0) / (x1 - x0)
    raise AssertionError(g)


def test_a_table_is_linear_in_g_and_in_the_logarithm_of_time(tmp_path: Path) -> None:
    chain = chain_from(f"table:{written(tmp_path, ROWS)}")
    assert chain.level.defaults == (1.0, 3600.0, 86400.0)
    w = np.random.default_rng(1).normal(0, 0.3, (4, 6)).astype(np.float32)
    drawn = chain.draw(40, 0, 1, 0, w.shape)
    a = float(np.abs(w).max())
    early = {"mean": [(0.0, 0.01), (0.5, 0.48), (1.0, 0.9)], "sd": [(0.0, 0.02), (0.5, 0.03), (1.0, 0.05)]}
    late = {"mean": [(0.0, 0.0), (1.0, 0.7)], "sd": [(0.0, 0.01), (1.0, 0.1)]}
    for t in (1.0, 3600.0, 86400.0):
        noisy = chain.at(Weights(w, 1.0), drawn, t)
        share = math.log(t) / math.log(86400)
        for place in np.ndindex(w.shape):
            held = []
            for side, z in zip((1, -1), drawn[0], strict=True):
                g = min(max(side * float(w[place]), 0) / a, 1)
                mean, sd = (
                    (1 - share) * linear(g, early[name]) + share * linear(g, late[name]) for name in ("mean", "sd")
                )
                held.append(max(mean + sd * float(z[place]), 0))
            assert noisy[place] == pytest.approx((held[0] - held[1]) * a, rel=1e-6, abs=1e-8)
    with pytest.raises(UsageError, match="from 1s to 1d, the table's first and last"):
        chain.level.check(2.0 * 86400, "--levels")


def test_a_table_without_times_has_one_level(tmp_path: Path) -> None:
    chain = chain_from(f"table:{written(tmp_path, TIMELESS)}+stuck:0.01")
    assert chain_from(f"table:{tmp_path / 'chip.csv'}").levels == (1.0,)
    assert chain.levels == (0.01,)


def test_rows_may_go_by_conductance_or_by_time(tmp_path: Path) -> None:
    rows = "g,mean,sd,t\n0,0,0.1,1\n0,0,0.2,60\n1,1,0.1,1\n1,0.9,0.2,60\n"
    w = np.linspace(-1, 1, 12).reshape(3, 4).astype(np.float32)
    results = []
    for name, text in (("a.csv", rows), ("b.csv", "\n".join(rows.split("\n")[i] for i in (0, 1, 3, 2, 4)))):
        chain = chain_from(f"table:{written(tmp_path, text, name)}")
        results.append(chain.at(Weights(w, 1.0), chain.draw(40, 0, 1, 0, w.shape), 20.0))
    np.testing.assert_array_equal(*results)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("g,mean,sd\n0,0,0.1\n1,1,x\n", "row 3: sd is 'x', which is no number"),
        ("g,mean,sd\n0,0,0.1\n1,nan,0.1\n", "row 3: mean is 'nan'"),
        ("g,mean,sd\n0,0,0.1\n1,1,-0.1\n", "row 3: sd is -0.1"),
        ("g,mean,sd\n0,0,0.1\n25,25,1\n", "row 3: g is 25; it is a share of G"),
        ("g,mean,sd\n0,0,0.1\n1,25,0.1\n", "row 3: mean is 25"),
        ("g,mean,sd\n-0.1,0,0.1\n1,1,0.1\n", "row 2: g is -0.1"),
        ("g,mean,sd\n0,0,0.1\n1,1,0.1\n0.5,0.5,0.1\n", "row 4: g = 0.5 comes after 1"),
        ("g,mean,sd\n0,0,0.1\n0,1,0.1\n", "row 3: g = 0 comes after 0"),
        ("g,mean,sd,t\n0,0,0,60\n1,1,0,60\n0,0,0,1\n1,1,0,1\n", "row 4: the time 1 comes after 60"),
        ("g,mean,sd,t\n0,0,0,0\n1,1,0,0\n", "row 2: t is 0"),
        ("g,mean,sd\n0,0\n", "row 2: it has 2 values, the header 3"),
        ("g,mu,sigma\n0,0,0\n", "its first row is 'g,mu,sigma'"),
        ("g,mean,sd\n0,0,0.1\n", "one row"),
        ("g,mean,sd\n", "no rows"),
        ("", "no rows"),
        ("\x00\udcff", "no text in UTF-8"),
    ],
)
def test_a_table_that_is_none_is_refused_by_file_and_row(text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "chip.csv"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(NoiseFileError) as error:
        parse_chain(f"table:{path}")
    assert said in str(error.value)
    assert "chip.csv" in str(error.value)
    assert error.value.exit_code == 3


CODE = """
import numpy as np
def halved(weights, rng, level):
    return (weights * np.float32(0.5) + np.float32(level) * rng.standard_normal(weights.shape, dtype=np.float32))
def wide(weights, rng, level): return weights.astype(np.float64)
def flat(weights, rng, level): return weights.ravel()
def nothing(weights, rng, level): weights[:] = 0
def nan(weights, rng, level): weights[0] = np.nan; return weights
def failing(weights, rng, level):
    return 1 / 0
number = 3
def inside(weights, rng, level):

    return np.broadcast_shapes((2,), (3,))
def two(weights, rng): return weights
def leaving(weights, rng, level): raise SystemExit(0)
class Own(BaseException): pass
def owning(weights, rng, level): raise Own("mine")
"""


def test_a_function_draws_from_the_steps_stream_anew_at_every_level(tmp_path: Path) -> None:
    path = written(tmp_path, CODE, "my.py")
    chain = chain_from(f"relative:0+python:{path}:halved")
    w = np.random.default_rng(1).normal(0, 0.3, (4, 6)).astype(np.float32)
    drawn = chain.draw(40, 3, 2, 1, w.shape)
    key = np.random.SeedSequence(entropy=40, spawn_key=(3, 2, 1, 2))
    z = np.random.Generator(np.random.Philox(key)).standard_normal(w.shape, dtype=np.float32)
    for level in (0.1, 0.5, 0.1):
        noisy = chain.at(Weights(w, 1.0), drawn, level)
        np.testing.assert_array_equal(noisy, w * np.float32(0.5) + np.float32(level) * z)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("wide", "returned float64 values of shape (4, 6); it must return float32"),
        ("flat", "returned float32 values of shape (24,)"),
        ("nothing", "returned NoneType, no array"),
        ("nan", "returned 6 values that are not finite, of 24, at level 0.5"),
        ("failing", "failed in line 10: ZeroDivisionError"),
        ("inside", "failed in line 14: ValueError"),
        ("leaving", "leaving failed in line 16: SystemExit: 0"),
        ("owning", "owning failed in line 18: Own: mine"),
        ("two", "two failed: TypeError: two() takes 2 positional arguments but 3 were given"),
        ("halve", "has no function halve; it has failing, flat, halved"),
        ("number", "has no function number"),
    ],
)
def test_a_function_that_returns_no_weights_is_refused(name: str, said: str, tmp_path: Path) -> None:
    chain = chain_from(f"python:{written(tmp_path, CODE, 'my.py')}:{name}")
    w = np.ones((4, 6), np.float32)
    with pytest.raises(NoiseFileError) as error:
        chain.at(Weights(w, 1.0), chain.draw(40, 0, 1, 0, w.shape), 0.5)
    assert said in str(error.value)
    assert (w == 1).all()


@pytest.mark.parametrize("how", ["np.random.standard_normal", "state.standard_normal", "once"])
def test_a_function_that_is_not_pure_is_refused(how: str, tmp_path: Path) -> None:
    """Random numbers from elsewhere, or anything kept from call to call, would make runs that nobody can repeat."""
    text = (
        "import numpy as np\nstate = np.random.default_rng(1)\ncalls = []\n"
        "def once(shape):\n    calls.append(shape)\n    return np.full(shape, len(calls))\n"
        f"def noise(weights, rng, level):\n    z = {how}(weights.shape)\n"
        "    return (weights + level * z).astype(np.float32)\n"
    )
    chain = chain_from(f"python:{written(tmp_path, text, 'mine.py')}:noise")
    weights = Weights(np.ones((4, 6), np.float32), 1.0)
    drawn = chain.draw(40, 0, 1, 0, (4, 6))
    np.testing.assert_array_equal(chain.at(weights, drawn, 0.0), weights.values)
    with pytest.raises(NoiseFileError) as error:
        chain.at(weights, drawn, 0.5)
    for word in ("mine.py: noise called twice", "level 0.5", "24 of 24", "rng alone"):
        assert word in str(error.value)


def test_a_pure_function_is_called_twice_but_once_a_level(tmp_path: Path) -> None:
    counting = "calls = []\ndef noise(weights, rng, level):\n    calls.append(level)\n    print(len(calls))\n    return weights\n"
    chain = chain_from(f"python:{written(tmp_path, counting, 'mine.py')}:noise")
    weights = Weights(np.ones((4, 6), np.float32), 1.0)
    drawn = chain.draw(40, 0, 1, 0, (4, 6))
    for level in (0.1, 0.1, 0.2, 0.1):
        chain.at(weights, drawn, level)
    model: Any = chain.links[0].model
    called = _function(model._path, model._sha256, "noise").__globals__["calls"]
    assert called == [0.1, 0.1, 0.1, 0.2, 0.2, 0.1]


def test_a_file_may_define_dataclasses_and_import_the_files_beside_it(tmp_path: Path) -> None:
    written(tmp_path, "import numpy as np\nSIZE = np.float32(2)\n", "beside_my_noise.py")
    code = """
from __future__ import annotations
from dataclasses import dataclass
from beside_my_noise import SIZE

@dataclass(frozen=True)
class Cell:
    size: float

def doubled(weights, rng, level):
    return weights * Cell(SIZE).size
"""
    chain = chain_from(f"python:{written(tmp_path, code, 'my.py')}:doubled")
    w = np.linspace(-1, 1, 12).reshape(3, 4).astype(np.float32)
    np.testing.assert_array_equal(chain.at(Weights(w, 1.0), chain.draw(40, 0, 1, 0, w.shape), 0.5), w * 2)


def test_code_that_does_not_run_is_refused(tmp_path: Path) -> None:
    chain = chain_from(f"python:{written(tmp_path, 'def f(:', 'my.py')}:f")
    with pytest.raises(NoiseFileError, match="can't be run: SyntaxError"):
        chain.at(Weights(np.ones(3, np.float32), 1.0), chain.draw(40, 0, 1, 0, (3,)), 0.5)


@pytest.mark.parametrize("text", ["table:", "table", "python:my.py", "python:my.py:", "python", "python::f"])
def test_a_step_without_its_file_is_a_usage_error(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises((UsageError, InputError), match=r"needs a file|names no function"):
        parse_chain(text)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(NoiseFileError, match=r"absent\.csv: can't be read"):
        parse_chain(f"table:{tmp_path / 'absent.csv'}")


@pytest.mark.parametrize("text", ["table:pipe", "python:pipe:f"])
def test_what_is_no_regular_file_is_never_read(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe")
    with pytest.raises(NoiseFileError, match=r"pipe: can't be read: it is a named pipe"):
        parse_chain(text)


def test_a_changed_file_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path, CODE, "my.py")
    chain = chain_from(f"python:{path}:halved")
    path.write_text(CODE + "\n", encoding="utf-8")
    unchanged.cache_clear()
    with pytest.raises(NoiseFileError, match=r"my\.py: has changed since the run began"):
        chain.at(Weights(np.ones(3, np.float32), 1.0), chain.draw(40, 0, 1, 0, (3,)), 0.5)


def test_a_run_file_keeps_name_and_digest_and_is_read_without_the_file(tmp_path: Path) -> None:
    path = written(tmp_path, ROWS)
    setting = NoiseSetting(steps=parse_chain(f"quantize:4+table:{path}"))
    kept = setting.flat()
    assert kept["noise"] == "quantize:4+table:chip.csv,first=1,last=86400"
    assert kept["noise_files"] == [setting.steps[1].sha256]
    path.unlink()
    again = setting_of(kept)
    assert again.flat() == kept
    assert level_of(again).defaults == (1.0, 3600.0, 86400.0)
    assert "noise_files" not in NoiseSetting().flat()
