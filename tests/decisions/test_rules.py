"""Rules files: what they mean, and every mistake in one named."""

from __future__ import annotations

from pathlib import Path

import pytest

from onnxnoise.decisions.gating.rules import RULE_KEYS, check_levels, find_rules, load_rules
from onnxnoise.errors import InputError
from onnxnoise.flags import from_flags

RULE = '[[rule]]\nname = "a"\nsnr = 10\nmin = 0.9\n'


def written(folder: Path, text: str, name: str = "onnxnoise.toml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_a_rule_with_its_defaults(tmp_path: Path) -> None:
    (rule,) = load_rules(written(tmp_path, RULE)).rules
    assert (rule.name, rule.sweep, rule.layer, rule.level, rule.metric) == ("a", "all", None, 10.0, "top1")
    assert (rule.relative_to, rule.baseline, rule.min, rule.max_drop, rule.confidence) == (
        "clean",
        None,
        0.9,
        None,
        0.95,
    )


@pytest.mark.parametrize(
    ("text", "limit", "quantity"),
    [
        ("min = 0.9", 0.9, "accuracy / clean"),
        ("max_drop = 0.05", 0.95, "accuracy / clean"),
        ('relative_to = "absolute"\nmin = 0.8', 0.8, "accuracy"),
        ('relative_to = "absolute"\nmax_drop = 0.02', -0.02, "accuracy - clean"),
        ('relative_to = "base.sqlite"\nmin = 1', 1.0, "accuracy / baseline"),
        ('relative_to = "base.sqlite"\nmax_drop = 0.01', 0.99, "accuracy / baseline"),
    ],
)
def test_what_must_be_at_least_what(text: str, limit: float, quantity: str, tmp_path: Path) -> None:
    (tmp_path / "base.sqlite").touch()
    (rule,) = load_rules(written(tmp_path, f'[[rule]]\nname = "a"\nsnr = 10\n{text}\n')).rules
    assert rule.limit == pytest.approx(limit)
    assert rule.quantity == quantity


def test_places_and_paths(tmp_path: Path) -> None:
    (tmp_path / "cards").mkdir()
    (tmp_path / "cards" / "net.toml").touch()
    (tmp_path / "base.sqlite").touch()
    text = (
        '[bench]\ncard = "cards/net.toml"\ndata = "cifar10-sample"\nlimit = 100\nbn = "affine"\nseed = 1\nclean_check = false\n'
        '[[rule]]\nname = "index"\nlayer = 14\nsnr = 5\nmin = 0.5\n'
        '[[rule]]\nname = "pattern"\nlayer = "conv*,2"\nsnr = inf\nmin = 0.5\n'
        '[[rule]]\nname = "worst"\nlayer = "worst"\nsweep = "cumulative"\nsnr = 2.5\nmax_drop = 0.5\nconfidence = 0.9\n'
        '[[rule]]\nname = "mean"\nsweep = "single"\nsnr = 5\nrelative_to = "base.sqlite"\nmin = 0.99\nmetric = "top5"\n'
    )
    rules = load_rules(written(tmp_path, text))
    assert dict(rules.bench) == {
        "card": str(tmp_path / "cards" / "net.toml"),
        "data": "cifar10-sample",
        "limit": "100",
        "bn": "affine",
        "seed": "1",
        "clean_check": False,
    }
    index, pattern, worst, mean = rules.rules
    assert (index.layer, index.sweep) == ("14", "single")
    assert (pattern.layer, pattern.level) == ("conv*,2", float("inf"))
    assert (worst.layer, worst.sweep, worst.confidence) == ("worst", "cumulative", 0.9)
    assert (mean.layer, mean.sweep, mean.metric, mean.baseline) == (None, "single", "top5", tmp_path / "base.sqlite")


def test_pyproject(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"no onnxnoise\.toml and no pyproject\.toml in this folder.*--rules FILE"):
        find_rules(None)
    written(tmp_path, '[project]\nname = "x"\n', "pyproject.toml")
    with pytest.raises(InputError, match=r"pyproject\.toml: has no \[tool\.onnxnoise\.gate\] with rules"):
        load_rules(find_rules(None))
    table = RULE.replace("[[rule]]", "[[tool.onnxnoise.gate.rule]]")
    written(tmp_path, f"[tool.onnxnoise.gate.bench]\nlimit = 3\n{table}", "pyproject.toml")
    rules = load_rules(find_rules(None))
    assert ([rule.name for rule in rules.rules], dict(rules.bench)) == (["a"], {"limit": "3"})
    written(tmp_path, RULE)
    assert find_rules(None) == Path("onnxnoise.toml"), "goes before pyproject.toml"
    assert find_rules("other.toml") == Path("other.toml")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ["has no rules", "[[rule]]"]),
        ("[bench]\nlimit = 3\n", ["has no rules"]),
        ("rule = []\n", ["has no rules"]),
        ("[rule]\nname = 'a'\n", ["two brackets"]),
        ("rule = 3\n", ["two brackets"]),
        ("not TOML", ["is not valid TOML"]),
        ("[[rules]]\nname = 'a'\n", ["'rules' is unknown", "did you mean rule?", "[bench]"]),
        (RULE + "snrs = 3\n", ["rule 1 ('a')", "no key 'snrs'", "did you mean snr?", *RULE_KEYS]),
        (RULE.replace('name = "a"\n', ""), ["rule 1", "needs a name"]),
        (RULE.replace('"a"', "3"), ["needs a name"]),
        (RULE + RULE, ["two rules", "'a'"]),
        (RULE.replace("min = 0.9\n", ""), ["either min or max_drop"]),
        (RULE + "max_drop = 0.1\n", ["either min or max_drop, not both"]),
        (RULE.replace("0.9", "1.1"), ["min = 1.1", "from 0 to 1"]),
        (RULE.replace("0.9", "95"), ["min = 95", "0.95 is 95 %"]),
        (RULE.replace("0.9", "-0.1"), ["min = -0.1"]),
        (RULE.replace("0.9", "nan"), ["min = nan"]),
        (RULE.replace("0.9", "'0.9'"), ["min = '0.9'"]),
        (RULE.replace("0.9", "true"), ["min = True"]),
        (RULE.replace("min = 0.9", "max_drop = 1.5"), ["max_drop = 1.5", "from 0 to 1"]),
        (RULE.replace("snr = 10\n", ""), ["needs snr", "above 0"]),
        (RULE.replace("10", "0"), ["snr = 0", "above 0"]),
        (RULE.replace("10", "nan"), ["snr = nan"]),
        (RULE.replace("10", "[10, 5]"), ["snr = [10, 5]"]),
        (RULE + "confidence = 0.5\n", ["confidence = 0.5", "above 0.5, at most 0.999999"]),
        (RULE + "confidence = 95\n", ["confidence = 95"]),
        (RULE + "metric = 'top3'\n", ["metric = 'top3'", "top1, top5"]),
        (RULE + "sweep = 'al'\n", ["sweep = 'al'", "did you mean all?"]),
        (RULE + "sweep = 3\n", ["sweep = 3"]),
        (RULE + "sweep = 'all'\nlayer = 3\n", ["takes no layer"]),
        (RULE + "sweep = 'cumulative'\n", ["say which with layer"]),
        (RULE + "layer = 1.5\n", ["layer = 1.5", "'worst'"]),
        (RULE + "layer = ''\n", ["layer = ''"]),
        (RULE + "relative_to = 'absolut'\n", ["relative_to = 'absolut'", "no file", "did you mean absolute?"]),
        (RULE + "relative_to = 3\n", ["relative_to = 3"]),
        ("[bench]\ncards = 'x'\n" + RULE, ["no key 'cards'", "did you mean card?"]),
        ("[bench]\nlimit = 'x'\n" + RULE, ["limit = 'x'", "whole number"]),
        ("[bench]\nbn = 3\n" + RULE, ["[bench] bn = 3", "one of group, raw"]),
        ("[bench]\nbn = 'grop'\n" + RULE, ["[bench] bn = 'grop'", "did you mean group?"]),
        ("[bench]\ncard = 3\n" + RULE, ["[bench] card = 3", "text in quotes"]),
        ("[bench]\nlimit = 0\n" + RULE, ["[bench] limit = 0", "a whole number from 1 up"]),
        (f"[bench]\nseed = {'9' * 5000}\n" + RULE, ["is not valid TOML"]),
        (
            f"[bench]\nseed = 0x{'f' * 5000}\n" + RULE,
            ["seed = a number of thousands of digits", "a whole number from 0 up"],
        ),
        (RULE.replace("10", "9" * 4000), ["snr = 999", "above 0"]),
        (RULE.replace("0.9", f"0x{'f' * 5000}"), ["min = a number of thousands of digits", "from 0 to 1"]),
        (RULE + f"layer = 0x{'f' * 5000}\n", ["layer = a number", "a whole number from 1 up"]),
        ("[bench]\nclean_check = 'no'\n" + RULE, ["clean_check = 'no'", "true or false"]),
        ("bench = 3\n" + RULE, ["bench = 3", "must be a table, [bench]"]),
        ("x = 1\n" + RULE, ["'x' is unknown"]),
    ],
)
def test_mistakes_are_named(text: str, words: list[str], tmp_path: Path) -> None:
    path = written(tmp_path, text)
    with pytest.raises(InputError) as found:
        load_rules(path)
    message = str(found.value)
    assert message.startswith(str(path))
    assert [word for word in words if word not in message] == [], message
    assert "\n" not in message.split("TOML: ", maxsplit=1)[0]


def test_files_that_are_no_rules(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="can't be read"):
        load_rules(tmp_path / "none.toml")
    with pytest.raises(InputError, match="can't be read"):
        load_rules(tmp_path)
    path = tmp_path / "rules.toml"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="not valid TOML"):
        load_rules(path)
    path.write_bytes(b"#" * ((1 << 20) + 1))
    with pytest.raises(InputError, match="this is no rules file"):
        load_rules(path)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("".join(RULE.replace('"a"', f'"r{i}"') for i in range(1001)), "has 1,001 rules; a gate decides 1,000 at most"),
        (RULE * 15_000, "over 20,000 keys and tables; this is no rules file"),
        (RULE * 3, "3 rules have the name 'a'"),
        (RULE + "confidence = 0.9999999999999999\n", "at most 0.999999"),
        (RULE.replace("10", "0x" + "f" * 5000), "snr = a number of thousands of digits"),
        (RULE + "layer = 0x" + "f" * 5000, "layer = a number of thousands of digits"),
        (RULE + 'relative_to = "' + "x" * 5000 + '"', "there is no file"),
        ("a." * 500_000 + "b = 1", "a key of 500,000 dots"),
    ],
)
def test_any_content_is_refused_in_a_second(tmp_path: Path, text: str, found: str) -> None:
    with pytest.raises(InputError) as error:
        load_rules(written(tmp_path, text))
    assert found in str(error.value)


def test_noise_has_a_table_of_its_own_and_levels_may_be_times(tmp_path: Path) -> None:
    path = tmp_path / "onnxnoise.toml"
    rule = '[[rule]]\nname = "a"\nlevel = "1d"\nmin = 0.9\n'
    path.write_text(f'[bench]\nlimit = 5\n[noise]\nnoise = "pcm"\ncompensate = "drift"\nscale = "channel"\n{rule}')
    rules = load_rules(path)
    assert rules.bench == {"limit": "5", "noise": "pcm", "compensate": "drift", "scale": "channel"}
    assert rules.rules[0].level == 86400.0
    check_levels(rules, from_flags("m", **rules.bench).level)
    with pytest.raises(InputError, match="level is a time, but the level of this noise is the signal-to-noise ratio"):
        check_levels(rules, from_flags("m").level)
    for text, words in (
        (rule.replace("1d", "1w"), ["'1w'", "a time in quotes"]),
        (rule.replace("1d", "-1d"), ["'-1d'", "a time in quotes"]),
        (f"[noise]\nlimit = 5\n{rule}", ["[noise]", "'limit'", "compensate"]),
        (f"[noise]\nseed = 5\n[bench]\nseed = 5\n{rule}", ["[noise]", "seed", "[bench]"]),
        (f"[nois]\nseed = 5\n{rule}", ["'nois'", "did you mean noise"]),
    ):
        path.write_text(text)
        with pytest.raises(InputError) as error:
            load_rules(path)
        assert all(word in str(error.value) for word in words), error.value
