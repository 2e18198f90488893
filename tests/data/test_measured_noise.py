"""What cards say of networks under noise: read, written the same, and shown as one table."""

from __future__ import annotations

from pathlib import Path

import pytest

from onnxnoise.data import leaderboard
from onnxnoise.data.cards import Card, load_card
from onnxnoise.data.measured_noise import as_toml
from onnxnoise.decisions.leaderboard import compared
from onnxnoise.errors import CardError

GROUP = """
[[measured.noise]]
bn = "group"
sigma_scope = "layer"
images = 1000
all_layers = {"10" = [0.965, 0.9501, 0.975], "2.5" = [0.24, 0.2, 0.31]}
margin = [11.2, 10.4, 12.9]
"""
AFFINE = """
[[measured.noise]]
bn = "affine"
sigma_scope = "tensor"
images = 500
all_layers = {"10" = [0.9912, 0.98, 1.002], "5" = [0.76, 0.74, 0.79]}
"""


def card(folder: Path, tables: str, name: str = "net") -> Card:
    path = folder / f"{name}.toml"
    path.write_text(
        f'[input]\ndataset = "cifar10"\n[structure]\nlayers = 41\nparameters = 274442\n[measured]\nclean = 0.909\n{tables}'
    )
    return load_card(path)


def test_it_is_written_as_it_is_read(tmp_path: Path) -> None:
    found = card(tmp_path, GROUP + AFFINE).measured.noise
    assert "\n".join(map(as_toml, found)) == (GROUP + AFFINE).removeprefix("\n")
    assert found[0].at(10.0) == (0.965, 0.9501, 0.975)
    assert found[0].at(5.0) is None


def test_a_network_that_bears_no_noise_has_an_endless_margin(tmp_path: Path) -> None:
    endless = card(tmp_path, GROUP.replace("[11.2, 10.4, 12.9]", "[inf, 1e+03, inf]"))
    assert as_toml(endless.measured.noise[0]).endswith("margin = [inf, 1e+03, inf]\n")
    assert leaderboard.rows([endless])[0][-1] == "over 1,000"


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (GROUP.replace("[11.2, 10.4, 12.9]", "[inf, inf, inf]"), "margin"),
        (GROUP.replace("0.975]", "inf]"), "all_layers"),
        (GROUP + GROUP, "two [[measured.noise]]"),
        (GROUP.replace("[11.2, 10.4, 12.9]", "[11.2, 11.4, 12.9]"), "margin"),
        (GROUP.replace("images = 1000\n", ""), "needs bn, sigma_scope and images"),
        (GROUP.replace("margin", "margn"), "margn"),
    ],
)
def test_what_can_not_be_is_refused(wrong: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(CardError) as refusal:
        card(tmp_path, wrong)
    assert said in str(refusal.value)


def test_the_table_is_sorted_by_what_is_kept(tmp_path: Path) -> None:
    worse = GROUP.replace("0.965, 0.9501, 0.975", "0.5, 0.4, 0.6")
    cards = [card(tmp_path, worse, "worse"), card(tmp_path, GROUP + AFFINE, "better"), card(tmp_path, "", "unknown")]
    assert leaderboard.rows(cards) == [
        ("better", "41", "274,442", "90.90%", "affine", "0.991", "0.760", ""),
        ("better", "41", "274,442", "90.90%", "group", "0.965", "", "11.2"),
        ("worse", "41", "274,442", "90.90%", "group", "0.500", "", "11.2"),
    ]
    assert (
        leaderboard.markdown(cards).splitlines()[2] == "| better | 41 | 274,442 | 90.90% | affine | 0.991 | 0.760 |  |"
    )


def test_figures_agree_where_their_intervals_overlap(tmp_path: Path) -> None:
    before = card(tmp_path, GROUP)
    other = GROUP.replace("[0.965, 0.9501, 0.975]", "[0.98, 0.9751, 0.99]").replace(
        "[0.24, 0.2, 0.31]", "[0.3, 0.29, 0.4]"
    )
    found = list(compared(before, card(tmp_path, other + AFFINE, "again").measured.noise))
    assert [each.agrees for each in found] == [False, True, True, None, None, None]
