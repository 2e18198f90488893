"""Chains of noise models: how they are written, what order they may have, and what is refused."""

from __future__ import annotations

import re

import pytest

from onnxnoise.errors import UsageError
from onnxnoise.flags import from_flags
from onnxnoise.noise.maps import noise_map
from onnxnoise.noise.models import chain_of, deterministic, headline, parse_chain
from onnxnoise.records import MapEntry, NoiseSetting, NoiseStep


def test_times_have_units() -> None:
    assert parse_chain("pcm:1.5h") == parse_chain("pcm:t=5400") == parse_chain("pcm:90m") == (NoiseStep("pcm", 5400.0),)
    spec = from_flags("m", noise="pcm", levels="1s,1h,1d,1y,100")
    assert spec.swept == (1.0, 3600.0, 86400.0, 31536000.0, 100.0)
    assert [spec.level.number(level) for level in spec.swept] == ["1s", "1h", "1d", "1y", "100s"]


def test_the_main_parameter_may_be_named() -> None:
    assert parse_chain("bitflip:p=0.01,bits=4") == (NoiseStep("bitflip", 0.01, (("bits", 4.0),)),)
    assert parse_chain("quantize:bits=4") == parse_chain("quantize:4")
    assert parse_chain("gaussian:snr=10") == parse_chain("gaussian:10")


def test_a_number_is_kept_to_the_last_digit() -> None:
    step = parse_chain("relative:0.12345678901")[0]
    assert parse_chain(step.text) == (step,)


def test_a_chain_says_its_times_as_people_do() -> None:
    setting = NoiseSetting(parse_chain("quantize:4+pcm:1d,gmax=20+stuck"), analog="kernels")
    assert headline(setting).startswith(
        "weight noise, p = the probability that a cell is stuck, quantize:4+pcm:1d,gmax=20+stuck"
    )
    assert headline(NoiseSetting(parse_chain("afm"))).startswith("weight noise, afm, scale per")


def test_defaults_depend_on_the_noise() -> None:
    assert from_flags("m", noise="afm").setting.scale == "tile:512"
    assert from_flags("m", noise="afm", scale="tensor").setting.scale == "tensor"
    assert from_flags("m", noise="pcm").setting.scale == "tensor"
    analog = {
        noise: from_flags("m", noise=noise).setting.analog for noise in ("gaussian", "gaussian:10", "relative", "pcm")
    }
    assert analog == {"gaussian": "all", "gaussian:10": "all", "relative": "kernels", "pcm": "kernels"}


def test_noise_that_is_not_random_has_one_draw() -> None:
    assert from_flags("m", noise="quantize", draws="5").most_draws(9) == 1
    assert from_flags("m", noise="quantize:4+stuck", draws="5").most_draws(9) == 5
    assert chain_of(NoiseSetting(parse_chain("quantize"))).deterministic
    steps = parse_chain("quantize")
    for text, own, fixed in (("relative:0.1", "stem", False), ("quantize:4", "*", True), ("stuck:0.1", "*", False)):
        mapped = noise_map("", [MapEntry(own, parse_chain(text)), MapEntry("head", None)], steps)
        assert deterministic(NoiseSetting(steps, noise_map=mapped)) == fixed
    whole = noise_map("", [MapEntry("*", parse_chain("quantize:4"))], parse_chain("relative"))
    assert deterministic(NoiseSetting(parse_chain("relative"), noise_map=whole))
    with pytest.raises(UsageError, match="--precision is for draws, and nothing of quantize is random"):
        from_flags("m", noise="quantize", precision="0.01")


@pytest.mark.parametrize(
    "chain", ["quantize:4+pcm", "stuck:0.1+pcm", "pcm:1d+stuck", "pcm:1h+hermes", "reram-cmo+stuck:0.01", "afm+pcm"]
)
def test_chains_that_make_sense(chain: str) -> None:
    assert NoiseSetting(parse_chain(chain)).chain


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("pcm:1d+quantize", "step 2, quantize, is on weights, but pcm before it has put them on devices"),
        ("pcm:1d+stuck:0.1+relative", "step 3, relative, is on weights"),
        ("pcm:1d+reram-cmo", "step 2, reram-cmo, can't follow pcm: reram-cmo shares its devices"),
        ("reram-cmo:1d+pcm", "step 2, pcm, can't follow reram-cmo: reram-cmo shares its devices"),
        ("pcm+stuck", "leaves the levels of pcm and stuck open, but one is swept; write the others, as pcm:1s"),
        ("pcn", "did you mean pcm?"),
        ("bitflip:bit=8", "no parameter 'bit'; did you mean bits?"),
        ("bitflip:0.1,p=0.2", "two levels"),
        ("bitflip:bits=4,bits=8", "gives 'bits' twice"),
        ("bitflip:bits=17", "bits=17 is not known"),
        ("hermes:devices=3", "devices=3"),
        ("reram-cmo:accept=1", "accept=1 is not known"),
        ("pcm:gmax=0", "gmax=0 is no largest conductance"),
        ("stuck:high=2", "high=2"),
        ("afm:0.5", "is no level"),
        ("pcm:1x", "'1x' is no parameter"),
    ],
)
def test_what_is_no_chain_is_refused(text: str, said: str) -> None:
    with pytest.raises(UsageError, match=r"--noise: ") as error:
        parse_chain(text)
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("noise", "level", "said"),
    [
        ("quantize", "1", "1 is no number of bits: the bits of a weight is a whole number from 2 to 32"),
        ("quantize", "4.5", "4.5 is no number of bits"),
        ("stuck", "1.5", "1.5 is no probability"),
        ("stuck", "-0.1", "-0.1 is no probability"),
        ("reram-wan", "1h", "1h is no time since programming: the time since programming is 1s, 1d or 2d"),
        ("reram-wan", "0s", "0s is no time"),
        ("reram-cmo", "0.5s", "0.5s is no time"),
        ("pcm", "-1", "-1s is no time"),
        ("pcm", "2000y", "is no time"),
        ("relative", "1h", "'1h' is a time, but the level of relative is size of the noise"),
        ("pcm", "1s,1x", "write for example --levels 1s,1h,1d,1y"),
        ("quantize", "4,x", "'x' is not a number; write for example --levels 6,5,4,3"),
        ("afm", "2", "2 is no level"),
        ("pcm", "nan", "is no time"),
    ],
)
def test_a_level_outside_its_range_is_refused(noise: str, level: str, said: str) -> None:
    with pytest.raises(UsageError, match=r"^--levels: ") as error:
        from_flags("m", noise=noise, levels=level)
    assert said in str(error.value)


def test_a_level_that_is_written_in_the_chain_is_not_swept() -> None:
    for chain, flag, level in (("relative:0.1", "levels", "0.2"), ("quantize:4+pcm:1h", "levels", "1h,1d")):
        with pytest.raises(UsageError, match=rf"^--{flag}: {re.escape(chain)} has its level written, so none is swept"):
            from_flags("m", noise=chain, **{flag: level})
    with pytest.raises(UsageError, match=r"^--snr: gaussian:10 has its level written"):
        from_flags("m", noise="gaussian:10", snrs="5")
    assert from_flags("m", noise="pcm:1h", levels="1h").swept == (3600.0,)
