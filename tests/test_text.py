"""What messages keep of the names in them."""

import pytest

from onnxnoise.text import among, ranged, shortened_paths


def test_a_sentence_of_our_own_stays_whole() -> None:
    sentence = "the model tells ten classes apart, but the data has " + "one class more, " * 30
    assert shortened_paths(sentence) == sentence
    assert shortened_paths("the card says something " * 10 + ": why") == "the card says something " * 10 + ": why"


def test_a_name_that_nobody_reads_loses_its_middle() -> None:
    for name in ("a" * 3000, "a b " * 800):
        message = shortened_paths(f"{name}: file name too long")
        assert len(message) < 200
        assert "…" in message
        assert message.endswith(": file name too long")


def test_a_number_comes_with_the_ends_of_its_interval_where_it_has_one() -> None:
    assert ranged(0.91249, (0.89, 1.0)) == "0.912 [0.890, 1.000]"
    assert ranged(0.91249, None) == "0.912"
    assert ranged(0.5, (0.25, 0.75), ".1%") == "50.0% [25.0%, 75.0%]"


@pytest.mark.parametrize(
    ("numbers", "said"), [([], "0"), ([3, 3], "3"), ([5, 3], "3 and 5"), ([32, 4000, 33], "32 to 4,000")]
)
def test_numbers_of_which_there_are_many_are_a_range(numbers: list[int], said: str) -> None:
    assert among(numbers) == said
