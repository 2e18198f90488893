from __future__ import annotations

import contextlib
import gzip
import hashlib
import importlib.util
import pickle
import struct
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.imaging import cifar_card, records, write, write_tar

from onnxnoise.data import resources
from onnxnoise.data.cards import load_bundled
from onnxnoise.data.images import open_images
from onnxnoise.data.sources.bundled import load_manifest, manifests
from onnxnoise.data.sources.cifar.pickles import unpickle
from onnxnoise.errors import CardError, DataError, UsageError

COUNTS = {"cifar10": (10,), "cifar100": (20, 100)}
FILES = {"cifar10": ("test_batch.bin", "test_batch"), "cifar100": ("test.bin", "test")}
FOLDERS = {
    "cifar10": ("cifar-10-batches-bin", "cifar-10-batches-py"),
    "cifar100": ("cifar-100-binary", "cifar-100-python"),
}


def batch(content: np.ndarray, dataset: str) -> dict:
    """What the Python version holds, of binary records."""
    if dataset == "cifar10":
        return {"data": content[:, 1:], "labels": content[:, 0].tolist()}
    return {
        "data": content[:, 2:],
        "coarse_labels": content[:, 0].tolist(),
        "fine_labels": content[:, 1].tolist(),
    }


def python2_batch(content: np.ndarray) -> bytes:
    """The same as Python 2 wrote it: byte strings for text, NumPy's old module names, protocol 2."""

    def text(value: bytes) -> bytes:
        return b"T" + struct.pack("<i", len(value)) + value

    def number(value: int) -> bytes:
        return b"J" + struct.pack("<i", value)

    dtype = (
        b"cnumpy\ndtype\n"
        + text(b"u1")
        + b"K\x00K\x01\x87R(K\x03"
        + text(b"|")
        + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    )
    array = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85" + text(b"b") + b"\x87R"
    shape = number(len(content)) + number(3072) + b"\x86"
    array += b"(K\x01" + shape + dtype + b"\x89" + text(content[:, 1:].tobytes()) + b"tb"
    labels = b"](" + b"".join(number(int(label)) for label in content[:, 0]) + b"e"
    return b"\x80\x02}(" + text(b"data") + array + text(b"labels") + labels + b"u."


def assert_holds(source, content: np.ndarray, labels_at: int = 0) -> None:
    """All images of `source`, in order, are those of the records."""
    (chunk,) = source.chunks([range(len(content))])
    want = content[:, -3072:].reshape(-1, 3, 32, 32)
    assert chunk.pixels.dtype == np.uint8
    assert chunk.pixels.flags.c_contiguous
    for row in range(len(content)):
        for plane in range(3):
            assert (chunk.pixels[row, :, :, plane] == want[row, plane]).all()
    assert chunk.labels.dtype == np.int64
    assert (chunk.labels == content[:, labels_at]).all()


@pytest.mark.parametrize("dataset", ["cifar10", "cifar100"])
@pytest.mark.parametrize(
    "form", ["file", "folder", "parent", "gz", "pickle", "pickles", "tar", "python-tar", "plain-tar"]
)
def test_every_form_gives_the_same_images(tmp_path, dataset, form):
    content = records(23, COUNTS[dataset])
    binary, pickled = content.tobytes(), pickle.dumps(batch(content, dataset), 2)
    binary_name, pickle_name = FILES[dataset]
    binary_folder, pickle_folder = FOLDERS[dataset]
    data = {
        "file": lambda: write(tmp_path, {binary_name: binary}) / binary_name,
        "folder": lambda: write(tmp_path / "any", {binary_name: binary, "data_batch_1.bin": b"x"}),
        "parent": lambda: write(tmp_path / "any", {f"{binary_folder}/{binary_name}": binary}),
        "gz": lambda: write(tmp_path, {"x.bin.gz": gzip.compress(binary)}) / "x.bin.gz",
        "pickle": lambda: write(tmp_path, {pickle_name: pickled}) / pickle_name,
        "pickles": lambda: write(tmp_path / "any", {f"{pickle_folder}/{pickle_name}": pickled}),
        "tar": lambda: write_tar(
            tmp_path / "a.tar.gz",
            {f"{binary_folder}/train.bin": b"x", f"{binary_folder}/{binary_name}": binary},
            "w:gz",
        ),
        "python-tar": lambda: write_tar(tmp_path / "a.tar.gz", {f"{pickle_folder}/{pickle_name}": pickled}, "w:gz"),
        "plain-tar": lambda: write_tar(tmp_path / "a.tar", {f"{binary_folder}/{binary_name}": binary}),
    }[form]()
    source = open_images(data, cifar_card(tmp_path, dataset))
    assert len(source) == 23
    assert source.classes == COUNTS[dataset][-1]
    assert source.name == (dataset if form == "gz" else f"{dataset}-test")
    assert source.digest == hashlib.sha256(binary).hexdigest()
    assert_holds(source, content, len(COUNTS[dataset]) - 1)


def test_ranges_and_label_offset(tmp_path):
    content = records(30)
    (tmp_path / "test_batch.bin").write_bytes(content.tobytes())
    source = open_images(tmp_path, cifar_card(tmp_path, more="label_offset = 1"))
    chunks = list(source.chunks([range(25, 30), range(3, 3), range(3, 10)]))
    assert [(chunk.start, len(chunk.pixels)) for chunk in chunks] == [(25, 5), (3, 0), (3, 7)]
    assert chunks[2].labels.tolist() == [4, 5, 6, 7, 8, 9, 10]
    assert (chunks[0].pixels[0, :, :, 1] == content[25, 1 + 1024 : 1 + 2048].reshape(32, 32)).all()


def test_other_sizes_go_through_the_card_s_geometry(tmp_path):
    content = records(9)
    (tmp_path / "test_batch.bin").write_bytes(content.tobytes())
    images = content[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)

    more = 'resize = 48\ncrop = 40\ninterpolation = "bicubic"'
    source = open_images(tmp_path, cifar_card(tmp_path, more=more))
    chunks = list(source.chunks([range(5), range(5, 9)], threads=2))
    for position, image in enumerate(images):
        want = Image.fromarray(np.ascontiguousarray(image)).resize((48, 48), Image.Resampling.BICUBIC)
        assert (chunks[position // 5].pixels[position % 5] == np.asarray(want.crop((4, 4, 44, 44)))).all()

    (chunk,) = open_images(tmp_path, cifar_card(tmp_path, more="crop = 28")).chunks([range(9)])
    assert (chunk.pixels == images[:, 2:30, 2:30]).all()
    with pytest.raises(
        DataError, match=r"32 x 32 pixels are smaller than the card's crop = 64: give the card a resize"
    ):
        next(open_images(tmp_path, cifar_card(tmp_path, more="crop = 64")).chunks([range(1)]))
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("onnxnoise-decode")]


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("old_names", [True, False])
def test_pickle_protocols_and_numpy_s_module_names(tmp_path, protocol, old_names):
    content = records(11)
    pickled = pickle.dumps(batch(content, "cifar10") | {"batch_label": "testing batch 1 of 1"}, protocol)
    assert b"numpy._core" in pickled
    if old_names and protocol < 4:
        pickled = pickled.replace(b"numpy._core", b"numpy.core")
    elif old_names:  # here a name's length stands before it
        pickled = _reframed(pickled)
    (tmp_path / "test_batch").write_bytes(pickled)
    assert_holds(open_images(tmp_path / "test_batch", cifar_card(tmp_path)), content)


def _reframed(pickled: bytes) -> bytes:
    for module in (b"numpy._core.multiarray", b"numpy._core.numeric"):
        shorter = module.replace(b"._core", b".core")
        pickled = pickled.replace(bytes([len(module)]) + module, bytes([len(shorter)]) + shorter)
    # Frames are a reading aid: without them the lengths they promise can't be wrong.
    position = pickled.index(b"\x95")
    return pickled[:position] + pickled[position + 9 :]


def test_python_2_wrote_the_official_pickles(tmp_path):
    content = records(11)
    (tmp_path / "test_batch").write_bytes(python2_batch(content))
    assert_holds(open_images(tmp_path / "test_batch", cifar_card(tmp_path)), content)


@pytest.mark.parametrize(
    "change",
    [
        lambda parts: {key.encode(): value for key, value in parts.items()},
        lambda parts: parts | {"labels": np.array(parts["labels"])},
        lambda parts: parts | {"labels": np.array(parts["labels"], ">i4")},
        lambda parts: parts | {"data": np.asfortranarray(parts["data"])},
    ],
    ids=["bytes keys", "labels as an array", "big-endian labels", "column-major data"],
)
@pytest.mark.parametrize("protocol", [2, 5])
def test_re_pickled_batches(tmp_path, change, protocol):
    content = records(11)
    (tmp_path / "test_batch").write_bytes(pickle.dumps(change(batch(content, "cifar10")), protocol))
    assert_holds(open_images(tmp_path / "test_batch", cifar_card(tmp_path)), content)


class Calls:
    """Unpickles by calling `function`."""

    def __init__(self, function, *arguments) -> None:
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", [2, 4, 5])
@pytest.mark.parametrize(
    ("function", "named"),
    [(eval, "eval"), (exec, "exec"), (np.load, "numpy"), (getattr, "getattr"), (Path, "pathlib"), (print, "print")],
)
def test_a_malicious_pickle_is_named_and_runs_nothing(tmp_path, protocol, function, named):
    witness = tmp_path / "ran"
    code = f"open({str(witness)!r}, 'w')"
    harmful = {"data": np.zeros((1, 3072), np.uint8), "labels": [0], "more": Calls(function, code)}
    (tmp_path / "test_batch").write_bytes(pickle.dumps(harmful, protocol))
    with pytest.raises(
        DataError, match=rf"test_batch: the pickle asks to load .*{named}.*; only numpy arrays are allowed"
    ):
        open_images(tmp_path / "test_batch", cifar_card(tmp_path))
    assert not witness.exists()


def test_the_witness_of_the_malicious_pickle_works(tmp_path):
    witness = tmp_path / "ran"
    pickle.loads(pickle.dumps(Calls(eval, f"open({str(witness)!r}, 'w').close()")))
    assert witness.exists()


def test_a_hand_written_os_system_is_refused(tmp_path):
    (tmp_path / "test_batch").write_bytes(b"\x80\x02cos\nsystem\nX\x04\x00\x00\x00true\x85R.")
    with pytest.raises(DataError, match=r"asks to load os\.system"):
        open_images(tmp_path / "test_batch", cifar_card(tmp_path))


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (pickle.dumps([1, 2], 2), "it holds a list, not a dict"),
        (pickle.dumps({"data": np.array([{}], object), "labels": []}, 2), "an array of object, not of integers"),
        (pickle.dumps({"data": np.zeros((2, 3072)), "labels": [0, 0]}, 2), "an array of float64, not of integers"),
        (
            pickle.dumps({"data": np.zeros((2, 3072), np.uint8)}, 2),
            r"no 'data' and 'labels' of CIFAR-10 \(found: data\)",
        ),
        (pickle.dumps({"data": np.zeros((2, 3071), np.uint8), "labels": [0, 0]}, 2), r"'data' is uint8 \(2, 3071\)"),
        (
            pickle.dumps({"data": np.zeros((2, 3072), np.uint8), "labels": [0]}, 2),
            r"'labels' is int64 \(1,\), not 2 integers",
        ),
        (pickle.dumps({"data": np.zeros((2, 3072), np.uint8), "labels": "ab"}, 2), r"'labels' is <U2 \(\), not 2 int"),
        (pickle.dumps({"data": np.zeros((2, 3072), np.uint8), "labels": [0.5, 1]}, 2), "'labels' is float64"),
        (pickle.dumps({"data": np.zeros((2, 3072), np.uint8), "labels": [0, 266]}, 2), "record 1 has label 255"),
        (pickle.dumps({"data": np.zeros((2, 3072), np.uint8), "labels": [0, 1]}, 2)[:-20], "damaged or truncated"),
        (b"\x80\x02garbage", "damaged or truncated"),
        (b"\x80\x02}r\xff\xff\xff\x7f.", "damaged or truncated: it stores a value at index 2147483647"),
        (b"\x80\x02X\xff\xff\xff\x7fabc.", "damaged or truncated"),
    ],
)
def test_bad_pickles(tmp_path, content, expected):
    (tmp_path / "test_batch").write_bytes(content)
    with pytest.raises(DataError, match=f"test_batch: .*{expected}"):
        open_images(tmp_path / "test_batch", cifar_card(tmp_path))


def test_no_mutation_of_a_pickle_raises_anything_but_data_error():
    rng = np.random.default_rng(0)
    original = pickle.dumps({"data": np.zeros((2, 5), np.uint8), "labels": [0, 1], b"x": "text"}, 2)
    for _ in range(500):
        content = bytearray(original)
        for _ in range(rng.integers(1, 4)):
            content[rng.integers(2, len(content))] = rng.integers(256)
        with contextlib.suppress(DataError):
            unpickle(bytes(content))


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", r"test_batch\.bin: holds no images"),
        (
            records(3).tobytes()[:-1],
            r"9218 bytes are no whole number of CIFAR-10 records of 3073 bytes; is it truncated",
        ),
        (records(3, (20, 100)).tobytes(), r"records of 3073 bytes \(they are of CIFAR-100\)"),
        (records(40, (40,)).tobytes(), "record 10 has label 10; those of CIFAR-10 are 0 to 9"),
        (gzip.compress(records(3).tobytes(), mtime=0)[:-100], "can't be read, or is damaged or truncated"),
        (b"\x1f\x8bgarbage", "can't be read, or is damaged or truncated"),
    ],
)
def test_bad_binary_files(tmp_path, content, expected):
    (tmp_path / "test_batch.bin").write_bytes(content)
    with pytest.raises(DataError, match=expected):
        open_images(tmp_path, cifar_card(tmp_path))


def test_the_other_cifar_is_named(tmp_path):
    card100 = cifar_card(tmp_path, "cifar100")
    (tmp_path / "test_batch.bin").write_bytes(records(3).tobytes())
    with pytest.raises(DataError, match=r"CIFAR-100 records of 3074 bytes \(they are of CIFAR-10\)"):
        open_images(tmp_path / "test_batch.bin", card100)
    with pytest.raises(
        DataError, match=r"this folder has no test part of CIFAR-100: expected one of test\.bin.*has CIFAR-10's"
    ):
        open_images(tmp_path, card100)
    tar = write_tar(tmp_path / "cifar.tar.gz", {"cifar-10-batches-bin/test_batch.bin": b"x"}, "w:gz")
    with pytest.raises(DataError, match=r"holds cifar-10-batches-bin/test_batch\.bin; the card asks for CIFAR-100"):
        open_images(tar, card100)


def test_the_coarse_label_is_checked_too(tmp_path):
    content = records(3, (20, 100))
    content[2, 0] = 20
    (tmp_path / "test.bin").write_bytes(content.tobytes())
    with pytest.raises(DataError, match="record 2 has label 20; those of CIFAR-100 are 0 to 19"):
        open_images(tmp_path / "test.bin", cifar_card(tmp_path, "cifar100"))


def test_folders_and_archives_without_a_test_part(tmp_path):
    found = cifar_card(tmp_path)
    with pytest.raises(
        DataError,
        match=r"not recognized as images of cifar10. Looked for: the test part of CIFAR-10: test_batch\.bin.*Found: 1 file \(1 \.toml\)",
    ):
        open_images(tmp_path, found)
    tar = write_tar(tmp_path / "x.tar.gz", {"cifar-10-batches-bin/data_batch_1.bin": b"x"}, "w:gz")
    with pytest.raises(DataError, match=r"the archive has no test_batch\.bin or test_batch"):
        open_images(tar, found)
    write_tar(tar, {"cifar-10-batches-bin/test_batch.bin": records(3).tobytes()}, "w:gz")
    tar.write_bytes(tar.read_bytes()[:-5000])
    with pytest.raises(DataError, match="damaged or truncated"):
        open_images(tar, found)


def test_too_much_data_is_refused_before_it_fills_the_memory(tmp_path, monkeypatch):
    monkeypatch.setattr("onnxnoise.data.sources.cifar.files.MAX_BYTES", 1 << 20)
    (tmp_path / "bomb.bin.gz").write_bytes(gzip.compress(bytes(4 << 20)))
    with pytest.raises(DataError, match=r"bomb\.bin\.gz: more than 1 MiB; this is no test part of CIFAR"):
        open_images(tmp_path / "bomb.bin.gz", cifar_card(tmp_path))


def test_bundled_sample(tmp_path):
    source = open_images(None, load_bundled("resnet20-cifar10"))
    manifest = manifests()["cifar10-sample"]
    packed = manifest.file.read_bytes()
    assert packed[4:8] == bytes(4)  # the gzip's time
    content = np.frombuffer(gzip.decompress(packed), np.uint8).reshape(-1, 3073)
    assert (source.name, len(source), source.classes) == ("cifar10-sample", 1000, 10)
    assert source.digest == manifest.sha256 == hashlib.sha256(content.tobytes()).hexdigest()
    assert np.bincount(content[:, 0]).tolist() == [100] * 10
    # The labels that the CIFAR-10 test set begins with: cat, ship, ship, plane, frog, frog, car, frog, cat, car.
    assert content[:10, 0].tolist() == [3, 8, 8, 0, 6, 6, 1, 6, 3, 1]
    assert_holds(source, content)
    assert_holds(open_images("cifar10-sample", cifar_card(tmp_path)), content)


def test_the_script_that_made_the_sample_chooses_the_first_of_each_class(tmp_path):
    script = Path(__file__).parents[2] / "examples" / "make_cifar10_sample.py"
    module_spec = importlib.util.spec_from_file_location("make_cifar10_sample", script)
    assert module_spec is not None
    module = importlib.util.module_from_spec(module_spec)
    module_spec.loader.exec_module(module)

    content = records(1500)
    content[:, 0] = np.random.default_rng(1).permutation(content[:, 0])
    (tmp_path / "test_batch.bin").write_bytes(content.tobytes())
    module.main(tmp_path / "test_batch.bin", tmp_path / "sample.bin.gz")
    seen = np.zeros(10, int)
    want = []
    for record in content:
        seen[record[0]] += 1
        if seen[record[0]] <= 100:
            want.append(record)
    assert gzip.decompress((tmp_path / "sample.bin.gz").read_bytes()) == np.array(want).tobytes()


def test_what_data_takes(tmp_path):
    with pytest.raises(UsageError, match=r"no images of cifar100.*come with the package: pass --data.*test\.bin"):
        open_images(None, cifar_card(tmp_path, "cifar100"))
    with pytest.raises(UsageError, match=r"--data cifar10-sample has images of cifar10; .* asks for cifar100"):
        open_images("cifar10-sample", cifar_card(tmp_path, "cifar100"))
    with pytest.raises(DataError, match=r"nowhere: there is no such file or folder.*cifar10-sample.*test_batch\.bin"):
        open_images("nowhere", cifar_card(tmp_path))


def test_a_changed_sample_is_noticed(tmp_path, monkeypatch):
    found = cifar_card(tmp_path)
    tmp_path = tmp_path / "datasets"
    tmp_path.mkdir()
    (tmp_path / "s.bin").write_bytes(records(10).tobytes())
    text = '[dataset]\ndataset = "cifar10"\nfile = "s.bin"\nimages = 10\nsha256 = "00"\n'
    (tmp_path / "s.toml").write_text(text)
    monkeypatch.setattr(resources, "folder", lambda name: tmp_path)
    with pytest.raises(DataError, match=r"s\.bin: is not what its manifest says"):
        open_images("s", found)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[dataset]\n", "must have dataset, file, images and sha256"),
        ('[dataset]\ndatset = "cifar10"', "did you mean dataset"),
        ('[dataset]\ndataset = "cifar10"\nfile = "../x"\nimages = 1\nsha256 = "0"', "lies beside the manifest"),
        ('[dataset]\ndataset = "cifar10"\nfile = "x"\nimages = 0\nsha256 = "0"', "images = 0"),
    ],
)
def test_a_bad_manifest_says_what_is_allowed(tmp_path, text, expected):
    (tmp_path / "m.toml").write_text(text)
    with pytest.raises(CardError, match=rf"m\.toml: .*{expected}"):
        load_manifest(tmp_path / "m.toml")
