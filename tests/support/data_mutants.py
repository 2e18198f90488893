"""Makes damaged and hostile files from good ones, each by a number, so that a failure can be had again."""

from __future__ import annotations

import io
import pickle
import random
import tarfile
from collections.abc import Callable

import numpy as np

from support.imaging import flat_color

TARS = (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)
CARD = """[model]
name = "net"
[input]
dataset = "signs"
classes = ["stop", "yield", "go on"]
size = 8
resize = 10
mean = [0.5, 0.5, 0.4]
std = 0.25
scale = 255
[structure]
layers = 5
[published]
clean = 0.9
all_layers = { "100" = 0.92, "2.5" = 0.24 }
"""
RULES = """[bench]
data = "test_batch.bin"
draws = 3
layers = "1-3"
[[rule]]
name = "a"
snr = 10
min = 0.9
confidence = 0.95
[[rule]]
name = "b"
layer = "worst"
snr = 5
max_drop = 0.1
relative_to = "absolute"
"""
TOML_WORDS = (
    *(
        "inf",
        "nan",
        "-1",
        "0",
        "1e400",
        "0x" + "f" * 5000,
        "9" * 5000,
        "2" * 400,
        "true",
        '""',
        "[]",
        "{}",
        "[[]]",
        "1979-05-27",
    ),
    *(
        "0.9999999999999999",
        '"\\u0000"',
        "'''",
        '"""',
        "[rule]",
        "[[rule]]",
        "[bench]",
        "a.b.c = 1",
        "a." * 3000 + "a = 1",
    ),
    *(
        "[" * 2000,
        "{a=" * 500,
        "\n" * 3000,
        "#",
        "\r",
        '"' + "x" * 5000 + '"',
        '"\\ud800"',
        "classes = 10",
        "1_000",
        "''",
        "=",
    ),
)


def spoiled(content: bytes, chance: random.Random) -> bytes:
    """Some bytes changed, cut out, doubled, or replaced by those that mean something in many formats."""
    spoilt = bytearray(content)
    for _ in range(chance.choice((1, 1, 2, 4, 16))):
        at = chance.randrange(len(spoilt) + 1)
        length = chance.choice((1, 1, 2, 4, 64, 512))
        match chance.randrange(6):
            case 0:
                spoilt[at : at + 1] = bytes([chance.randrange(256)])
            case 1:
                del spoilt[at : at + length]
            case 2:
                spoilt[at:at] = spoilt[at : at + length]
            case 3:
                spoilt[at : at + length] = chance.choice((b"\0", b"\xff", b"7", b" ")) * length
            case 4:
                spoilt[at : at + 4] = chance.choice((b"\xff\xff\xff\x7f", b"\xff\xff\xff\xff", b"\0\0\0\x80", b"777\0"))
            case _:
                del spoilt[at:]
    return bytes(spoilt)


def tar_file(seed: int) -> bytes:
    """A webdataset in one of the forms of tars, with links, repeated names and long headers among its members."""
    chance = random.Random(seed)
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w", format=chance.choice(TARS)) as archive:
        for number in range(chance.randrange(1, 5)):
            for ending, data in (("png", flat_color(number)), ("cls", str(number % 3).encode())):
                info = tarfile.TarInfo(
                    chance.choice((f"{number}.{ending}", f"{'n' * 90}/{number}.{ending}", f"0.{ending}"))
                )
                info.size = len(data)
                if chance.random() < 0.1:
                    info.type, info.linkname, info.size = (
                        chance.choice((b"1", b"2", b"5", b"6", b"L", b"x", b"S")),
                        "0.png",
                        0,
                    )
                if chance.random() < 0.1:
                    info.pax_headers = {"size": chance.choice(("1", "-1", "9" * 30, "x")), "GNU.sparse.major": "1"}
                archive.addfile(info, io.BytesIO(data[: info.size]))
    return content.getvalue() if chance.random() < 0.1 else spoiled(content.getvalue(), chance)


def pickle_file(seed: int) -> bytes:
    """A batch of CIFAR-10 in one of pickle's protocols, or opcodes in a row that chance chose."""
    chance = random.Random(seed)
    if chance.random() < 0.4:
        return b"\x80\x02" + b"".join(_instructions(chance, chance.choice((5, 50, 3000)))) + b"."
    labels = chance.choice(([0, 9], [0] * 2000, ["a", 1], [[1], [2]], (0, 1), "01"))
    batch = {"data": np.zeros((2, 3072), np.uint8), "labels": labels, "filenames": ["a.png", "b.png"]}
    return spoiled(pickle.dumps(batch, chance.randrange(pickle.HIGHEST_PROTOCOL + 1)), chance)


def _instructions(chance: random.Random, count: int) -> list[bytes]:
    """What a pickle may do: make values, keep and take them again, put them into each other."""
    choices: tuple[Callable[[], bytes], ...] = (
        lambda: chance.choice((b"]", b"}", b")", b"\x8f", b"N", b"K\x01", b"(", b"2")),
        lambda: chance.choice((b"q", b"h")) + bytes([chance.randrange(8)]),
        lambda: chance.choice(
            (b"a", b"s", b"e", b"u", b"t", b"l", b"d", b"\x85", b"\x86", b"\x87", b"\x91", b"\x90", b"b", b"R")
        ),
        lambda: b"h" + bytes([chance.randrange(4)]) + b"\x86" + b"q" + bytes([chance.randrange(4)]),
        lambda: b"U\x04data",
        lambda: chance.choice((b"cnumpy\ndtype\n", b"cnumpy\nndarray\n", b"c_codecs\nencode\n", b"r\xff\xff\xff\x7f")),
    )
    return [chance.choices(choices, (5, 5, 5, 3, 1, 1))[0]() for _ in range(count)]


def toml_file(text: str, seed: int) -> bytes:
    """A TOML file whose lines and values were exchanged, repeated, or replaced by ones that break readers."""
    chance = random.Random(seed)
    lines = text.splitlines()
    for _ in range(chance.choice((1, 1, 2, 5))):
        at = chance.randrange(len(lines))
        key, equals, _ = lines[at].partition("=")
        match chance.randrange(5):
            case 0:
                lines[at] = f"{key}{equals}{chance.choice(TOML_WORDS)}"
            case 1:
                lines.insert(at, chance.choice(TOML_WORDS))
            case 2:
                lines.insert(at, lines[chance.randrange(len(lines))])
            case 3:
                del lines[at]
                lines = lines or [""]
            case _:
                lines = (lines * chance.choice((2, 50, 500)))[:10_000]
    content = "\n".join(lines).encode("utf-8", "surrogatepass")
    return content if chance.random() < 0.6 else spoiled(content, chance)
