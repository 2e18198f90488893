from __future__ import annotations

import contextlib
import pickle
import random
from pathlib import Path

import pytest
from support.imaging import card

from onnxnoise.data import resources
from onnxnoise.data.cards import bundled_names, find_card, load_bundled, load_card
from onnxnoise.data.input import InputSpec
from onnxnoise.errors import CardError

CIFAR = '[input]\ndataset = "cifar10"\n'
IMAGENET_MEAN, IMAGENET_STD, ONES = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), (1, 1, 1)


def spec(folder: Path, text: str) -> InputSpec:
    return card(folder, "[input]\n" + text).input


@pytest.mark.parametrize(
    ("preset", "expected"),
    [
        ("torchvision", (224, 256, 224, "bilinear", "torchvision", "rgb", "auto", 255, IMAGENET_MEAN, IMAGENET_STD)),
        (
            "torchvision-232",
            (224, 232, 224, "bilinear", "torchvision", "rgb", "auto", 255, IMAGENET_MEAN, IMAGENET_STD),
        ),
        (
            "keras-caffe",
            (224, None, None, "nearest", "nearest", "bgr", "auto", 1, (103.939, 116.779, 123.68), ONES),
        ),
        ("keras-tf", (224, None, None, "nearest", "nearest", "rgb", "auto", 127.5, ONES, ONES)),
        ("keras-torch", (224, None, None, "nearest", "nearest", "rgb", "auto", 255, IMAGENET_MEAN, IMAGENET_STD)),
        ("tensorpack", (224, 256, 224, "opencv-cubic", "nearest", "bgr", "nhwc", 1, (0, 0, 0), ONES)),
    ],
)
def test_preset(tmp_path, preset, expected):
    assert spec(tmp_path, f'dataset = "imagenet"\npreset = "{preset}"') == InputSpec("imagenet", *expected)


def test_keys_override_the_preset(tmp_path):
    found = spec(
        tmp_path,
        """dataset = "imagenet"
        preset = "torchvision"
        resize = 342
        crop = 299
        interpolation = "bicubic"
        scale = 1
        mean = 127.5
        std = [1, 2.5, 3]
        layout = "nhwc"
        label_offset = 1""",
    )
    assert found == InputSpec(
        "imagenet", 299, 342, 299, "bicubic", "torchvision", "rgb", "nhwc", 1.0, (127.5,) * 3, (1.0, 2.5, 3.0), 1
    )


@pytest.mark.parametrize(
    ("text", "geometry"),
    [
        ('dataset = "cifar10"', (32, None, None)),
        ('dataset = "cifar100"\npreset = "torchvision"', (32, None, None)),
        ('dataset = "cifar10"\nsize = 224', (224, None, None)),
        ('dataset = "cifar10"\ncrop = 28', (28, None, 28)),
        ('dataset = "cifar10"\nresize = 64', (64, 64, 64)),
        ('dataset = "imagenet"\nsize = 299', (299, None, None)),
        ('dataset = "imagenet"\nresize = 256\ncrop = 224', (224, 256, 224)),
        ('dataset = "imagenet"\nresize = 256\nsize = 224', (224, 256, 224)),
        ('dataset = "imagenet"\npreset = "keras-tf"\nsize = 299', (299, None, None)),
        ('dataset = "imagenet"\npreset = "torchvision"\nsize = 240', (240, 256, 240)),
    ],
)
def test_geometry(tmp_path, text, geometry):
    found = spec(tmp_path, text)
    assert (found.size, found.resize, found.crop) == geometry


def test_interpolation_is_bilinear_with_resize_and_nearest_without(tmp_path):
    assert spec(tmp_path, 'dataset = "imagenet"\nresize = 9').interpolation == "bilinear"
    assert spec(tmp_path, 'dataset = "imagenet"\nsize = 9').interpolation == "nearest"


def test_all_tables(tmp_path):
    found = card(
        tmp_path,
        """[model]
        name = "net"
        file = "weights/net.onnx"
        license = "[red]MIT"
        [input]
        dataset = "imagenet"
        preset = "torchvision"
        [structure]
        layers = 41
        parameters = 11699112
        [published]
        metric = "top5"
        clean = 0.895
        all_layers = { 1 = 0.01, "2.5" = 0.24, 100 = 0.93 }
        [measured]
        metric = "top1"
        clean = 1.0
        images = 50000
        data = "imagenet-val"
        """,
    )
    assert found.model.name == "net"
    assert found.model.file == tmp_path / "weights" / "net.onnx"
    assert found.model.license == "[red]MIT"
    assert found.published.all_layers == ((100.0, 0.93), (2.5, 0.24), (1.0, 0.01))
    assert (found.structure.layers, found.structure.parameters) == (41, 11_699_112)
    assert (found.measured.clean, found.measured.images) == (1.0, 50_000)
    assert pickle.loads(pickle.dumps(found)) == found


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[input]\n", ["[input] dataset is missing", "imagenet, cifar10, cifar100"]),
        ("", ["[input] dataset is missing"]),
        ("[imput]\n", ["[imput] is unknown", "did you mean input?"]),
        ('dataset = "cifar10"', ["dataset outside of a table is unknown", "[input]"]),
        ("input = 3", ["input = 3: must be a table"]),
        (CIFAR + "mena = [0, 0, 0]", ["[input] has no key 'mena'", "did you mean mean?", "label_offset"]),
        ('[input]\ndataset = "cifar"', ["how large", "(dataset = 'cifar'; did you mean cifar10?)"]),
        ('[input]\ndataset = ["cifar10"]', ["[input] dataset"]),
        (CIFAR + 'preset = "torchvison"', ["did you mean torchvision?"]),
        (CIFAR + "size = 0", ["[input] size = 0: must be a whole number from 1 to 4096"]),
        (CIFAR + "size = 32.0", ["[input] size = 32.0"]),
        (CIFAR + "size = true", ["[input] size = True"]),
        (CIFAR + "size = 32\ncrop = 28", ["[input] size = 32: must be equal to crop = 28"]),
        (CIFAR + "resize = 24\ncrop = 28", ["cuts 28 pixels", "resize = 24"]),
        (CIFAR + "scale = 0", ["[input] scale = 0: must be a number above 0"]),
        (CIFAR + "scale = nan", ["[input] scale = nan"]),
        (CIFAR + 'scale = "255"', ["[input] scale = '255'"]),
        (CIFAR + "mean = [1, 2]", ["[input] mean = [1, 2]: must be three numbers"]),
        (CIFAR + "mean = [1, 2, 3, 4]", ["three numbers"]),
        (CIFAR + "mean = [1, 2, inf]", ["three numbers"]),
        (CIFAR + "mean = [1, 2, false]", ["three numbers"]),
        (CIFAR + f"scale = 1{'0' * 400}", ["[input] scale"]),
        (CIFAR + "std = [1, 0, 1]", ["[input] std = [1, 0, 1]: must be three numbers above 0"]),
        (CIFAR + 'color = "RGB"', ["one of rgb, bgr"]),
        (CIFAR + 'interpolation = "cubic"', ["[input] interpolation = 'cubic'", "opencv-cubic"]),
        (CIFAR + 'preset = "torchvision"\ncolor = "bgr"', ["[input] color", "mean and std"]),
        (CIFAR + "label_offset = -1", ["[input] label_offset = -1"]),
        ('[input]\ndataset = "imagenet"', ["does not say how large", "torchvision", "resize and crop"]),
        (CIFAR + "[model]\nname = 3", ["[model] name = 3: must be text"]),
        (CIFAR + '[model]\nfile = "../x.onnx"', ["[model] file = '../x.onnx'", "inside the card's folder"]),
        (CIFAR + '[model]\nfile = "/x.onnx"', ["[model] file"]),
        (CIFAR + "[structure]\nlayers = -1", ["[structure] layers = -1"]),
        (CIFAR + "[published]\nclean = 89.5", ["[published] clean = 89.5", "89.5 % is 0.895"]),
        (CIFAR + '[published]\nmetric = "top-1"', ["did you mean top1?"]),
        (CIFAR + "[published]\nall_layers = { 2.5 = 0.3 }", ["[published] all_layers", "quote SNRs with a dot"]),
        (CIFAR + '[published]\nall_layers = { "x" = 0.3 }', ["[published] all_layers"]),
        (CIFAR + '[published]\nall_layers = { "nan" = 0.3 }', ["[published] all_layers"]),
        (CIFAR + "[published]\nall_layers = 3", ["[published] all_layers"]),
        (CIFAR + "[measured]\nimages = 0", ["[measured] images = 0"]),
        (CIFAR + "[input]\n", ["is not valid TOML"]),
        ("[input\n", ["is not valid TOML", "line 1"]),
        ("x = " + "[" * 5000, ["is not valid TOML"]),
    ],
)
def test_a_bad_card_says_what_is_allowed(tmp_path, text, expected):
    with pytest.raises(CardError) as error:
        card(tmp_path, text)
    assert str(error.value).startswith(str(tmp_path / "card.toml"))
    for part in expected:
        assert part in str(error.value)


def test_what_is_no_text_or_not_there(tmp_path):
    with pytest.raises(CardError, match="can't be read: No such file"):
        load_card(tmp_path / "none.toml")
    with pytest.raises(CardError, match="can't be read: Is a directory"):
        load_card(tmp_path)
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(CardError, match="is not valid TOML"):
        load_card(tmp_path / "binary.toml")
    (tmp_path / "large.toml").write_bytes(b"#" * (1 << 21))
    with pytest.raises(CardError, match="this is no card"):
        load_card(tmp_path / "large.toml")


def test_no_mutation_of_a_card_raises_anything_but_card_error(tmp_path):
    rng = random.Random(0)
    original = bytearray(load_bundled("resnet20-cifar10").path.read_bytes())
    path = tmp_path / "card.toml"
    for _ in range(300):
        content = bytearray(original)
        for _ in range(rng.randrange(1, 4)):
            content[rng.randrange(len(content))] = rng.choice(b'"=[]{}.\n0e-x\xff')
        path.write_bytes(content)
        with contextlib.suppress(CardError):
            load_card(path)


def test_find_card_takes_the_explicit_then_the_neighbour_then_the_metadata(tmp_path):
    model = tmp_path / "net.onnx"
    bundled = {"onnxnoise.card": "resnet20-cifar10"}
    explicit = tmp_path / "mine.toml"
    explicit.write_text(CIFAR + "label_offset = 1")

    assert find_card(model, None, bundled).model.name == "resnet20-cifar10"
    (tmp_path / "net.toml").write_text(CIFAR + "label_offset = 2")
    assert find_card(model, None, bundled).input.label_offset == 2
    (tmp_path / "net.onnx.toml").write_text(CIFAR + "label_offset = 3")
    found = find_card(model, None, bundled)
    assert (found.input.label_offset, found.model.name) == (3, "net")
    assert find_card(model, str(explicit), bundled).input.label_offset == 1
    assert find_card(model, "resnet20-cifar10", {}).model.name == "resnet20-cifar10"


def test_find_card_says_what_to_pass(tmp_path):
    model = tmp_path / "net.onnx"
    with pytest.raises(
        CardError,
        match=r"`onnxnoise cards new \S*net.onnx --data IMAGES` drafts one.*pass --card FILE or NAME.*net\.toml.*resnet20-cifar10",
    ):
        find_card(model, None, {})
    with pytest.raises(CardError, match=r"'resnet-20-cifar10'; did you mean resnet20-cifar10\?"):
        find_card(model, "resnet-20-cifar10", {})
    with pytest.raises(CardError, match=r"no card file and no bundled card is named .*bundled: .*resnet20-cifar10"):
        find_card(model, "x", {})


def test_metadata_of_a_model_is_never_a_path(tmp_path):
    secret = tmp_path / "secret.toml"
    secret.write_text(CIFAR)
    for name in (str(secret), "../secret", "secret.toml"):
        with pytest.raises(CardError, match=r"net\.onnx: metadata onnxnoise\.card: no card file"):
            find_card(tmp_path / "net.onnx", None, {"onnxnoise.card": name})


def test_bundled_card():
    found = load_bundled("resnet20-cifar10")
    assert "resnet20-cifar10" in bundled_names()
    assert found.model.name == "resnet20-cifar10"
    assert found.model.file == found.path.with_name("resnet20-cifar10.onnx")
    assert (found.structure.layers, found.structure.parameters) == (41, 274_442)
    assert found.input == InputSpec(
        "cifar10", 32, scale=255.0, mean=(0.4914, 0.4822, 0.4465), std=(0.2470, 0.2435, 0.2616)
    )


def test_every_bundled_card_loads():
    for name in bundled_names():
        assert load_bundled(name).model.name == name


def test_files_inside_the_package_come_before_those_of_the_checkout(tmp_path, monkeypatch):
    package = tmp_path / "site" / "onnxnoise"
    (tmp_path / "site" / "datasets").mkdir(parents=True)
    package.mkdir(parents=True)
    monkeypatch.setattr(resources, "__file__", str(package / "data" / "resources.py"))
    assert resources.folder("datasets") == tmp_path / "site" / "datasets"
    (package / "datasets").mkdir()
    assert resources.folder("datasets") == package / "datasets"
    assert resources.bundled("model_cards") == {}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("a." * 500_000 + "a = 1", "a key of 500,000 dots"),
        ("[" + "a . " * 200_000 + "a]", "a key of 200,000 dots"),
        ("[['x']]\n" + "'a'." * 200_000 + "a = 1", "a key of 200,000 dots"),
        ("a={" + '"a".' * 100_000 + "a = 1}", "a key of 100,000 dots"),
        ("a = " + "[" * 400_000, "over 20,000 keys and tables"),
        ("".join(f"a{i} = 1\n" for i in range(30_000)), "over 20,000 keys and tables"),
        ("a" * 1_000_000 + " = 1", "aaa outside of a table is unknown"),
        ("[input]\ndataset = 'cifar10'\nsize = 0x" + "f" * 5000, "size = a number of thousands of digits"),
        ("[input]\ndataset = 'cifar10'\nsize = " + "9" * 5000, "not valid TOML"),
        ("[input]\ndataset = 'cifar10'\nscale = -0x" + "f" * 5000, "not valid TOML|scale"),
        ('a = "' + '\\"' * 400_000, "not valid TOML"),
    ],
)
def test_any_content_is_read_in_a_second(tmp_path, text, found):
    with pytest.raises(CardError, match=found) as error:
        card(tmp_path, text)
    assert len(str(error.value)) < 900


def test_dots_in_strings_and_comments_are_no_keys(tmp_path):
    dots = "." * 100
    text = f'# {dots}\n[model]\ntitle = "{dots}" # {dots}\nrecipe = """\n{dots} \\""" {dots}"""\nsource = \'{dots}\'\n'
    found = card(tmp_path, text + f"license = '''{dots}'''\n[input]\ndataset = 'cifar10'\n")
    assert found.model.title == found.model.license == dots
