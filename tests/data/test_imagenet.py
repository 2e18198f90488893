from __future__ import annotations

import contextlib
import gzip
import io
import pickle
import tarfile
import threading
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.imaging import card, encoded, flat_color, imagenet_card, levels, picture, write, write_tar

from onnxnoise.data.datasets import IMAGENET
from onnxnoise.data.images import open_images
from onnxnoise.data.pixels.stream import stream
from onnxnoise.data.sources.imagenet.devkit import GROUND_TRUTH, ground_truth_labels
from onnxnoise.data.sources.imagenet.ilsvrc import validation_label, validation_labels, wnids
from onnxnoise.data.sources.tars import expand_braces, list_tars
from onnxnoise.errors import DataError, UsageError

TENCH, GOLDFISH, TISSUE = "n01440764", "n01443537", "n15075141"  # classes 0, 1 and 999


def decoding_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("onnxnoise-decode")]


def read(source, chunk: int = 4):
    count = len(source)
    return list(source.chunks([range(start, min(start + chunk, count)) for start in range(0, count, chunk)], threads=2))


def labels(chunks) -> list[int]:
    return [int(label) for chunk in chunks for label in chunk.labels]


def validation_name(number: int) -> str:
    return f"ILSVRC2012_val_{number:08d}.JPEG"


# --- what is known of ILSVRC2012


def test_wnids_are_the_1000_sorted():
    assert list(wnids()) == sorted(set(wnids()))
    assert len(wnids()) == 1000
    # Pairs that every framework prints: tench, goldfish, goldfinch, tabby cat, minibus, toilet tissue.
    known = {TENCH: 0, GOLDFISH: 1, "n01531178": 11, "n02123045": 281, "n03769881": 654, TISSUE: 999}
    assert {wnid: wnids()[wnid] for wnid in known} == known


def test_validation_labels_are_50_of_each_class():
    assert len(validation_labels()) == 50_000
    assert set(Counter(validation_labels()).values()) == {50}
    # The wnids of the first ten images, as published with TensorFlow's slim models.
    first = "n01751748 n09193705 n02105855 n04263257 n03125729 n01735189 n02346627 n02776631 n03794056 n02328150"
    assert validation_labels()[:10] == tuple(wnids()[wnid] for wnid in first.split())
    assert validation_label("val/ILSVRC2012_val_00000002.JPEG") == 970
    assert validation_label("ILSVRC2012_val_00050001.JPEG") is None
    assert validation_label("ILSVRC2012_val_00000000.JPEG") is None
    assert validation_label("n01440764_1.JPEG") is None


# --- folders


def class_folders(folder):
    return write(
        folder,
        {
            f"{GOLDFISH}/b.JPEG": flat_color(40),
            f"{GOLDFISH}/a.JPEG": flat_color(20),
            f"{TISSUE}/z.png": flat_color(30),
            f"{TENCH}/c.JPEG": flat_color(60),
            f"{TENCH}/b.JPEG": flat_color(50),
            f"{TENCH}/a.JPEG": flat_color(10),
        },
    )


@pytest.mark.parametrize("parent", [False, True])
def test_class_folders_go_round_robin(tmp_path, parent):
    class_folders(tmp_path / "val")
    source = open_images(tmp_path if parent else tmp_path / "val", imagenet_card(tmp_path))
    chunks = read(source)
    assert levels(chunks) == [10, 20, 30, 50, 40, 60]
    assert labels(chunks) == [0, 1, 999, 0, 1, 0]
    assert (len(source), source.classes, source.name) == (6, 1000, "imagenet")
    assert [(chunk.start, chunk.pixels.shape) for chunk in chunks] == [(0, (4, 8, 8, 3)), (4, (2, 8, 8, 3))]
    assert chunks[0].pixels.dtype == np.uint8
    assert chunks[0].labels.dtype == np.int64


def test_ranges_need_not_start_at_zero_and_labels_take_the_offset(tmp_path):
    source = open_images(str(class_folders(tmp_path / "val")), imagenet_card(tmp_path, more="label_offset = 1"))
    chunks = list(source.chunks([range(3, 5), range(2, 2), range(0, 1)]))
    assert levels(chunks) == [50, 40, 10]
    assert labels(chunks) == [1, 2, 1]
    assert [chunk.start for chunk in chunks] == [3, 2, 0]


def test_decoding_is_by_content_and_plain_others_are_skipped(tmp_path):
    files = {f"{TENCH}/a.JPEG": flat_color(10), f"{TENCH}/b": flat_color(20), f"{TENCH}/.hidden": b"x"}
    more = {f"{TENCH}/notes.txt": b"x", f"{TENCH}/Thumbs.db": b"x", ".cache/x": b"x", "readme.md": b"x"}
    assert levels(read(open_images(write(tmp_path / "d", files | more), imagenet_card(tmp_path)))) == [10, 20]


def test_pixels_are_those_of_a_plain_pillow_loop(tmp_path):
    images = {
        f"{wnid}/{k}.JPEG": encoded(picture(40 + 13 * k, 90 - 17 * k, k)) for wnid in (TENCH, TISSUE) for k in range(4)
    }
    images[f"{TENCH}/4.JPEG"] = encoded(picture(50, 50)[:, :, 0])
    folder = write(tmp_path / "val", images)
    text = '[input]\ndataset = "imagenet"\npreset = "torchvision"\nresize = 36\ncrop = 32'
    chunks = read(open_images(folder, card(tmp_path, text)), 3)
    got = np.concatenate([chunk.pixels for chunk in chunks])
    order = [f"{wnid}/{k}.JPEG" for k in range(4) for wnid in (TENCH, TISSUE)] + [f"{TENCH}/4.JPEG"]
    for pixels, name in zip(got, order, strict=True):
        image = Image.open(folder / name).convert("RGB")
        short, long = sorted(image.size)
        size = (36, int(36 * long / short)) if image.width <= image.height else (int(36 * long / short), 36)
        image = image.resize(size, Image.Resampling.BILINEAR)
        left, top = round((image.width - 32) / 2), round((image.height - 32) / 2)
        assert (pixels == np.asarray(image.crop((left, top, left + 32, top + 32)))).all()


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, r"Looked for: a folder of folders named by WordNet id .*\. Found: an empty folder"),
        ({"val/x.txt": b"x"}, r"not recognized as images of imagenet\..* Found: 1 folder \(val\)"),
        ({f"{TENCH}/x.txt": b"x"}, r"has no images"),
        ({f"{TENCH}/a.JPEG": b"x", "n01440765/a.JPEG": b"x"}, r"n01440765: this folder's name is none of the 1000"),
        ({f"{TENCH}/a.JPEG": b"x", "tench/a.JPEG": b"x"}, r"tench: this folder's name is none of the 1000"),
        ({f"{TENCH}/images/a.JPEG": b"x"}, r"images: is a folder where images were expected"),
        ({"a.JPEG": b"x"}, r"a\.JPEG: has no known label.*val\.txt"),
        ({"tench/a.JPEG": b"x"}, r"has 1 class folders \(tench\), named by no WordNet id"),
        ({"ILSVRC2012_val_00050001.JPEG": b"x"}, r"ILSVRC2012_val_00050001\.JPEG: has no known label"),
    ],
)
def test_folders_that_can_t_be_used(tmp_path, files, expected):
    (tmp_path / "data").mkdir()
    with pytest.raises(DataError, match=expected):
        open_images(write(tmp_path / "data", files), imagenet_card(tmp_path))


def test_nothing_there_and_nothing_given(tmp_path):
    found = imagenet_card(tmp_path)
    with pytest.raises(DataError, match=r"nowhere: there is no such file or folder"):
        open_images(tmp_path / "nowhere", found)
    with pytest.raises(UsageError, match=r"no images of imagenet.*pass --data\. It takes a folder"):
        open_images(None, found)
    with pytest.raises(UsageError, match="cifar10-sample has images of cifar10"):
        open_images("cifar10-sample", found)


def test_the_closest_wnid_is_named(tmp_path):
    with pytest.raises(DataError, match=r"the closest is n01440764"):
        open_images(write(tmp_path / "d", {"n01440766/a": b"x", f"{TENCH}/a": b"x"}), imagenet_card(tmp_path))


def test_flat_folder_with_the_standard_labels(tmp_path):
    numbers = [3, 1, 50_000]
    files = {validation_name(number): flat_color(number % 251) for number in numbers}
    more = {"ILSVRC2012_validation_ground_truth.txt": b"490\n361\n"}
    source = open_images(write(tmp_path / "flat", files | more), imagenet_card(tmp_path))
    chunks = read(source)
    assert levels(chunks) == [1, 3, 50_000 % 251]
    assert labels(chunks) == [65, 230, validation_labels()[-1]]
    assert source.name == "imagenet-val"


# --- the development kit's ground truth


def ground_truth(count: int = 50_000, seed: int = 0) -> list[int]:
    """ILSVRC2012_IDs of the first validation images, the classes numbered in a random order."""
    numbers = np.random.default_rng(seed).permutation(1000) + 1
    return [int(numbers[label]) for label in validation_labels()[:count]]


def truth_file(folder: Path, numbers: list[int]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / GROUND_TRUTH
    file.write_text("".join(f"{number}\n" for number in numbers))
    return file


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("count", [50_000, 49_000, 3])
def test_ground_truth_in_any_order_of_the_classes_is_converted(tmp_path, seed, count):
    numbers = ground_truth(count, seed)
    assert numbers != list(validation_labels()[:count])
    assert ground_truth_labels(truth_file(tmp_path, numbers)) == validation_labels()


def test_ground_truth_s_real_beginning(tmp_path):
    assert ground_truth_labels(truth_file(tmp_path, [490, 361, 171, 822, 297]))[:5] == (65, 970, 230, 809, 516)


@pytest.mark.parametrize("lines", [(1, 2), (17, 40_000), (49_999, 50_000)])
def test_a_single_wrong_line_of_a_ground_truth_is_found(tmp_path, lines):
    numbers = ground_truth()
    first, second = (line - 1 for line in lines)
    numbers[first], numbers[second] = numbers[second], numbers[first]
    with pytest.raises(DataError, match=r"lines \d+ and \d+ contradict the standard labels.*built in"):
        ground_truth_labels(truth_file(tmp_path, numbers))


def test_a_ground_truth_that_merges_two_classes_is_found(tmp_path):
    numbers = [1 if number == 2 else number for number in ground_truth()]
    with pytest.raises(DataError, match=r"both lines have 1, but the images are of two classes"):
        ground_truth_labels(truth_file(tmp_path, numbers))


def test_a_ground_truth_that_splits_a_class_is_found(tmp_path):
    numbers = ground_truth(500)
    again = max(line for line, number in enumerate(numbers) if number in numbers[:line])
    numbers[again] = next(number for number in range(1, 1001) if number not in numbers)
    with pytest.raises(DataError, match=rf"lines \d+ and {again + 1} contradict.*but the lines have two numbers"):
        ground_truth_labels(truth_file(tmp_path, numbers))


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("490\n0\n", r"line 2: '0' is no ILSVRC2012_ID, a number from 1 to 1000"),
        ("490\n1001\n", r"line 2: '1001' is no"),
        ("490\n\n361\n", r"line 2: '' is no"),
        ("490\n-3\n", r"line 2: '-3' is no"),
        ("490\n\u00b2\n", r"line 2: .* is no"),
        ("tench\n", r"line 1: 'tench' is no"),
        ("7\n" * 50_001, r"50,001 lines; there are 50,000 validation images"),
    ],
)
def test_a_ground_truth_that_is_none(tmp_path, content, expected):
    file = tmp_path / GROUND_TRUTH
    file.write_text(content, "utf-8")
    with pytest.raises(DataError, match=expected):
        ground_truth_labels(file)
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match=r"can't be read as text"):
        ground_truth_labels(file)


@pytest.mark.parametrize("place", ["", "ILSVRC2012_devkit_t12/data", "ILSVRC2012_devkit_t12"])
@pytest.mark.parametrize("form", ["folder", "tar"])
def test_a_ground_truth_beside_the_images_is_converted_and_checked(tmp_path, place, form):
    files = {validation_name(number): flat_color(number) for number in (2, 3, 1)}
    folder = tmp_path / "imagenet"
    truth = truth_file(folder / place, ground_truth())
    data = write(folder, files) if form == "folder" else write_tar(folder / "ILSVRC2012_img_val.tar", files)
    found = imagenet_card(tmp_path)
    given = [data, folder, truth] if truth.parent == folder else [data, folder]
    for each in given:
        assert sorted(labels(read(open_images(each, found)))) == [65, 230, 970]
    truth_file(folder / place, [number % 1000 + (number > 500) for number in ground_truth()])
    for each in given:
        with pytest.raises(DataError, match=r"ground_truth\.txt: lines \d+ and \d+ contradict the standard labels"):
            open_images(each, found)


def test_a_ground_truth_without_images(tmp_path):
    with pytest.raises(DataError, match=r"ground_truth\.txt: there are no validation images beside it"):
        open_images(truth_file(tmp_path / "data", ground_truth()), imagenet_card(tmp_path))


# --- a list with labels


@pytest.mark.parametrize("place", ["", "val/"])
@pytest.mark.parametrize("given", ["folder", "file"])
def test_list_with_labels(tmp_path, place, given):
    lines = f"b.JPEG 7\n\nsub folder/a.JPEG 999\nc.JPEG\t{GOLDFISH}\n"
    files = {"b.JPEG": flat_color(10), "sub folder/a.JPEG": flat_color(20), "c.JPEG": flat_color(30)}
    folder = write(
        tmp_path / "d", {place + name: content for name, content in files.items()} | {"val.txt": lines.encode()}
    )
    chunks = read(open_images(folder if given == "folder" else folder / "val.txt", imagenet_card(tmp_path)))
    assert levels(chunks) == [10, 20, 30]
    assert labels(chunks) == [7, 999, 1]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("a.JPEG 1000", r"val\.txt, line 2: 'a\.JPEG 1000' is not NAME LABEL.*labels count from 0"),
        ("a.JPEG -1", r"line 2: .* is not NAME LABEL with LABEL from 0 to 999"),
        ("a.JPEG", r"line 2: 'a\.JPEG' is not NAME LABEL"),
        ("a.JPEG tench", r"line 2: .* is not NAME LABEL"),
        ("gone.JPEG 3", r"line 2: there is no gone\.JPEG in .*val"),
        ("../card.toml 3", r"line 2: \.\./card\.toml points out of"),
        ("/etc/passwd 3", r"line 2: /etc/passwd points out of"),
    ],
)
def test_bad_lines_are_named(tmp_path, line, expected):
    folder = write(tmp_path / "d", {"a.JPEG": flat_color(1), "val.txt": f"a.JPEG 0\n{line}\n".encode()})
    with pytest.raises(DataError, match=expected):
        open_images(folder, imagenet_card(tmp_path))


def test_lists_in_the_devkit_s_order_are_noticed(tmp_path):
    files = {validation_name(number): b"x" for number in range(1, 121)}
    folder = write(tmp_path / "d", files)
    right = {name: validation_labels()[position] for position, name in enumerate(files)}

    def write_list(wrong: int) -> None:
        shift = [1 if position < wrong else 0 for position in range(120)]
        lines = (f"{name} {(label + step) % 1000}\n" for (name, label), step in zip(right.items(), shift, strict=True))
        (folder / "val.txt").write_text("".join(lines))

    write_list(wrong=50)
    assert len(open_images(folder, imagenet_card(tmp_path))) == 120
    write_list(wrong=61)
    with pytest.raises(
        DataError, match=r"61 of 120 labels of validation images are not the standard ones.*ILSVRC2012_ID"
    ):
        open_images(folder, imagenet_card(tmp_path))


def test_a_list_that_is_no_text(tmp_path):
    with pytest.raises(DataError, match=r"val\.txt: can't be read as text"):
        open_images(write(tmp_path / "d", {"val.txt": b"\xff\xfe"}), imagenet_card(tmp_path))


# --- tars


@pytest.mark.parametrize("given", ["tar", "folder"])
@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT])
def test_validation_tar_is_read_where_it_lies_in_its_order(tmp_path, given, form):
    folder = tmp_path / "imagenet"
    folder.mkdir()
    with tarfile.open(folder / "ILSVRC2012_img_val.tar", "w", format=form) as archive:
        root = tarfile.TarInfo("./")
        root.type = tarfile.DIRTYPE
        archive.addfile(root)
        for number in (2, 1, 3):
            content = flat_color(number)
            info = tarfile.TarInfo(validation_name(number))
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    write(folder, {"ILSVRC2012_img_train.tar": b"not looked at"})
    data = folder / "ILSVRC2012_img_val.tar" if given == "tar" else folder
    source = open_images(data, imagenet_card(tmp_path))
    assert levels(read(source)) == [2, 1, 3]
    assert labels(read(source)) == [970, 65, 230]
    assert source.name == "imagenet-val"
    assert sorted(path.name for path in folder.iterdir()) == ["ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar"]


SHARD = {
    "a/0001.jpg": flat_color(10),
    "a/0001.cls": b"5",
    "a/0001.json": b"{}",
    "a/0002.cls": b"999\n",
    "a/0002.seg.png": flat_color(20),
    "__meta__.json": b"{}",
}


def test_webdataset_shards_in_their_order(tmp_path):
    folder = tmp_path / "shards"
    folder.mkdir()
    write_tar(folder / "s-0001.tar", {"x.webp": flat_color(30), "x.cls": b"7"})
    write_tar(folder / "s-0000.tar", SHARD)
    found = imagenet_card(tmp_path)
    for data in (folder, folder / "s-{0000..0001}.tar", str(folder / "s-{0000..0001}.tar")):
        chunks = read(open_images(data, found))
        assert levels(chunks) == [10, 20, 30]
        assert labels(chunks) == [5, 999, 7]
    assert labels(read(open_images(folder / "s-0001.tar", found))) == [7]


def test_braces():
    assert [str(path) for path in expand_braces("a-{8..10}.tar")] == ["a-8.tar", "a-9.tar", "a-10.tar"]
    assert [str(path) for path in expand_braces("{0..1}-{00..01}")] == ["0-00", "0-01", "1-00", "1-01"]
    with pytest.raises(DataError, match=r"\{9\.\.1\} must count upward"):
        expand_braces("{9..1}")
    with pytest.raises(DataError, match="all braces stand for 100,000 shards at most"):
        expand_braces("{0..999999999}")


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"a.jpg": b"x"}, r"sample a has no label, \.cls"),
        ({"a.cls": b"1"}, r"sample a has no image"),
        ({"a.jpg": b"x", "a.cls": b"1000"}, r"a\.cls: '1000' is no class from 0 to 999"),
        ({"a.jpg": b"x", "a.cls": b"tench"}, r"a\.cls: 'tench' is no class"),
        ({"a.json": b"x"}, "has no images"),
        ({}, "has no images"),
        ({validation_name(1): b"x", "stray.jpg": b"x"}, r"stray\.jpg: is none of the 50,000 validation images"),
    ],
)
def test_tars_that_can_t_be_used(tmp_path, files, expected):
    with pytest.raises(DataError, match=expected):
        open_images(write_tar(tmp_path / "x.tar", files), imagenet_card(tmp_path))


def test_damaged_tars(tmp_path):
    found = imagenet_card(tmp_path)
    tar = write_tar(tmp_path / "x.tar", SHARD | {"b.jpg": bytes(50_000), "b.cls": b"1"})
    whole = tar.read_bytes()
    tar.write_bytes(gzip.compress(whole))
    with pytest.raises(DataError, match=r"x\.tar: is compressed.*decompress it first"):
        open_images(tar, found)
    tar.write_bytes(whole[:20_000])
    with pytest.raises(DataError, match=r"x\.tar: .*truncated"):
        open_images(tar, found)
    tar.write_bytes(b"no tar" * 200)
    with pytest.raises(DataError, match=r"x\.tar: can't be read as a tar"):
        open_images(tar, found)
    write_tar(tmp_path / "s-0.tar", SHARD)
    with pytest.raises(DataError, match=r"s-1\.tar: there is no such file"):
        open_images(tmp_path / "s-{0..1}.tar", found)


def test_the_member_of_a_tar_is_named_when_it_can_t_be_decoded(tmp_path):
    tar = write_tar(tmp_path / "x.tar", {"a.jpg": b"no image", "a.cls": b"1"})
    with pytest.raises(DataError, match=r"x\.tar: a\.jpg: is no image"):
        read(open_images(tar, imagenet_card(tmp_path)))


# --- the stream


def test_a_bad_image_is_named_when_its_chunk_is_due(tmp_path):
    files = {f"{TENCH}/{position}.JPEG": flat_color(position) for position in range(9)}
    files[f"{TENCH}/5.JPEG"] = encoded(picture(64, 64))[:700]
    source = open_images(write(tmp_path / "d", files), imagenet_card(tmp_path))
    chunks = source.chunks([range(0, 4), range(4, 8), range(8, 9)])
    assert levels([next(chunks)]) == [0, 1, 2, 3]
    with pytest.raises(DataError, match=r"n01440764/5\.JPEG: is damaged or truncated"):
        next(chunks)
    assert decoding_threads() == []


def test_a_file_that_goes_away_is_named(tmp_path):
    folder = class_folders(tmp_path / "d")
    source = open_images(folder, imagenet_card(tmp_path))
    (folder / GOLDFISH / "a.JPEG").unlink()
    with pytest.raises(DataError, match=r"a\.JPEG: can't be read: No such file"):
        read(source)
    (folder / TENCH / "a.JPEG").write_bytes(flat_color(1)[:-9])
    with pytest.raises(DataError, match=r"a\.JPEG: has \d+ of \d+ bytes: is it truncated\?"):
        next(source.chunks([range(1)]))


def test_the_digest_tells_names_sizes_and_labels_apart(tmp_path):
    found = imagenet_card(tmp_path)
    digest = open_images(class_folders(tmp_path / "a"), found).digest
    assert open_images(class_folders(tmp_path / "b"), found).digest == digest
    offset = imagenet_card(tmp_path, more="label_offset = 1")
    assert open_images(tmp_path / "b", offset).digest == digest
    (tmp_path / "b" / TENCH / "a.JPEG").write_bytes(flat_color(1) + b"x")
    assert open_images(tmp_path / "b", found).digest != digest
    (tmp_path / "a" / TENCH / "a.JPEG").rename(tmp_path / "a" / TENCH / "aa.JPEG")
    assert open_images(tmp_path / "a", found).digest != digest


def test_sources_travel_to_other_processes(tmp_path):
    source = open_images(class_folders(tmp_path / "a"), imagenet_card(tmp_path))
    again = pickle.loads(pickle.dumps(source))
    assert levels(read(again)) == levels(read(source))


def decoded(position: int) -> np.ndarray:
    return np.full((2, 2, 3), position % 256, np.uint8)


def test_the_stream_keeps_the_order_whatever_the_threads_do():
    def slowly(position: int) -> np.ndarray:
        time.sleep(0.004 if position % 3 == 0 else 0)
        return decoded(position)

    ranges = [range(start, start + 7) for start in range(0, 70, 7)]
    chunks = list(stream(ranges, slowly, np.arange(70), (2, 2, 3), threads=5))
    assert levels(chunks) == list(range(70))
    assert labels(chunks) == list(range(70))


@pytest.mark.parametrize("megabytes", [None, 0])
def test_decoding_runs_ahead_but_at_most_one_chunk(monkeypatch, megabytes):
    if megabytes is not None:  # room for no image: as many as keep the threads busy
        monkeypatch.setattr("onnxnoise.data.pixels.stream.AHEAD_BYTES", megabytes)
    most = 10 if megabytes is None else 4
    done: list[int] = []

    def decode(position: int) -> np.ndarray:
        done.append(position)
        return decoded(position)

    chunks = stream(
        [range(start, start + 10) for start in range(0, 1000, 10)], decode, np.arange(1000), (2, 2, 3), threads=2
    )
    assert done == []
    for taken in range(1, 6):
        next(chunks)
        deadline = time.monotonic() + 5
        while len(done) < 10 * taken + most and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(0.01)
        assert len(done) == 10 * taken + most
    chunks.close()
    assert decoding_threads() == []
    assert len(done) <= 60


def test_no_thread_stays_when_the_consumer_stops_early():
    chunks = stream([range(100)] * 3, decoded, np.arange(100), (2, 2, 3), threads=3)
    for _ in chunks:
        assert decoding_threads() != []
        break
    chunks.close()
    assert decoding_threads() == []


def test_what_a_thread_raises_reaches_the_consumer():
    def decode(position: int) -> np.ndarray:
        if position == 12:
            raise DataError("twelve")
        return decoded(position)

    chunks = stream([range(10), range(10, 20)], decode, np.arange(20), (2, 2, 3), threads=2)
    assert levels([next(chunks)]) == list(range(10))
    with pytest.raises(DataError, match="twelve"):
        next(chunks)
    assert decoding_threads() == []
    assert list(chunks) == []


def test_no_mutation_of_a_tar_raises_anything_but_data_error(tmp_path):
    rng = np.random.default_rng(0)
    tar = write_tar(
        tmp_path / "x.tar", {"a.jpg": b"1", "a.cls": b"1", "b" * 120 + ".jpg": b"1", "b" * 120 + ".cls": b"1"}
    )
    whole = tar.read_bytes()
    for _ in range(500):
        content = bytearray(whole)
        for position in rng.integers(len(whole) // 2, size=2):
            content[position] = rng.choice([48, 45, 128, 255])
            header = position // 512 * 512  # made valid again, so that what it says is believed
            total = 256 + sum(content[header : header + 148]) + sum(content[header + 156 : header + 512])
            content[header + 148 : header + 156] = b"%06o\0 " % total
        tar.write_bytes(content)
        with contextlib.suppress(DataError):
            list_tars([tar], IMAGENET)
