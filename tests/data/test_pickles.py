"""Pickles that would crash the reader or take its memory are refused before anything is built of them."""

from __future__ import annotations

import pickle
import resource
import subprocess
import sys
import time

import numpy as np
import pytest

from onnxnoise.data.sources.cifar.pickle_check import MOST_INSTRUCTIONS, check_pickle
from onnxnoise.data.sources.cifar.pickles import unpickle
from onnxnoise.errors import DataError


def doubling(first: bytes, joined: bytes) -> bytes:
    """A value used twice in the next one, 28 times over."""
    steps = b"".join(b"(h" + bytes([i]) + b"h" + bytes([i]) + joined + b"q" + bytes([i + 1]) for i in range(28))
    return b"\x80\x02" + first + b"q\x00" + steps + b"."


HOSTILE = {
    "deep tuple as a key": (b"\x80\x02}K\x01" + b"\x85" * 200_000 + b"K\x01s.", "levels inside each other"),
    "deep list": (b"\x80\x02" + b"](" * 100_000 + b"e" * 100_000 + b".", "levels inside each other"),
    "doubled lists": (doubling(b"]", b"l"), "would hold over"),
    "doubled tuples": (doubling(b"K\x01", b"t"), "levels|would hold over"),
    "doubled dicts": (doubling(b"K\x01", b"d"), "levels|would hold over"),
    "list in itself": (b"\x80\x02]q\x00h\x00a.", "inside itself"),
    "list in itself, later": (b"\x80\x02]q\x00]q\x01h\x00ah\x00h\x01a.", "inside another"),
    "many values": (b"\x80\x02(" + b"N" * (MOST_INSTRUCTIONS + 1) + b"l.", "instructions"),
    "memo": (b"\x80\x02Nr\xff\xff\xff\x7f.", "at index"),
    "grown number": (b"\x80\x02K\x01K\x02a.", "a number or a text"),
    "marks": (b"\x80\x02(((l.", "a mark|damaged"),
    "nothing there": (b"\x80\x02h\x07.", "damaged"),
    "empty stack": (b"\x80\x02ttt.", "damaged"),
    "encoded again": (
        b"\x80\x02X\xff\xff\x00\x00" + b"a" * 65535 + b"q\x00"
        b"c_codecs\nencode\nq\x01(" + b"h\x01h\x00X\x06\x00\x00\x00latin1\x86R" * 100 + b"l.",
        "encodes more text",
    ),
}


@pytest.mark.parametrize(("content", "found"), HOSTILE.values(), ids=HOSTILE)
def test_hostile_pickles(content: bytes, found: str) -> None:
    began = time.perf_counter()
    with pytest.raises(DataError, match=found):
        unpickle(content)
    assert time.perf_counter() - began < 20


def test_they_take_neither_the_process_nor_its_memory() -> None:
    code = (
        "import sys; sys.path.append('tests'); from data.test_pickles import HOSTILE\n"
        "from onnxnoise.data.sources.cifar.pickles import unpickle\nfrom onnxnoise.errors import DataError\n"
        "for content, _ in HOSTILE.values():\n    try: unpickle(content)\n    except DataError: pass\nprint('alive')"
    )
    limit = (1 << 30, 1 << 30)
    child = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, limit),
    )
    assert (child.stdout, child.stderr) == ("alive\n", "")


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_whole_batch_passes(protocol: int) -> None:
    batch = {
        b"data": np.zeros((3000, 3072), np.uint8),
        "labels": [i % 10 for i in range(3000)],
        "filenames": [f"image_{i % 7}.png" for i in range(3000)],
        "nothing": [],
        "batch_label": b"testing batch 1 of 1",
    }
    content = pickle.dumps(batch, protocol)
    check_pickle(content)
    assert unpickle(content)["labels"] == batch["labels"]
