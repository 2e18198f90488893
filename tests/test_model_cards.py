"""The bundled cards: Table I counted again, what the paper printed, recipes that are code, and the schema."""

from __future__ import annotations

import hashlib
import json
import re
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from onnxnoise.data import cards, datasets, leaderboard
from onnxnoise.data.cards import bundled_names, load_bundled, load_card
from onnxnoise.data.input import CARD_LAYOUTS, COLORS, INTERPOLATIONS, PRESETS, InputSpec
from onnxnoise.decisions.leaderboard import SETTINGS
from onnxnoise.errors import CardError
from onnxnoise.run.card_check import check_card, clean_finding
from onnxnoise.run.loading import open_with_card
from onnxnoise.run.runner import clean_hits
from onnxnoise.spec import BenchSpec

FOLDER = Path(__file__).resolve().parent.parent / "model_cards"
SCHEMA = json.loads((FOLDER / "card.schema.json").read_text())
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)

# --- What the networks keep under noise. ---


@pytest.mark.parametrize("page", [FOLDER / "README.md", FOLDER.parent / "README.md"], ids=["cards", "project"])
def test_the_tables_of_networks_are_the_cards(page: Path) -> None:
    """Where this fails, `onnxnoise cards --markdown` prints what the page should have."""
    text = page.read_text()
    assert f"\n{leaderboard.markdown(map(load_bundled, bundled_names()))}\n" in text
    assert " ".join(leaderboard.LEGEND.split()) in " ".join(text.split())


def test_every_network_that_comes_along_says_what_it_keeps_under_noise() -> None:
    found = [
        card
        for card in map(load_bundled, bundled_names())
        if card.model.file or card.path.stem == "mlperf-tiny-resnet8"
    ]
    assert len(found) > 3
    for card in found:
        assert [(each.bn, each.sigma_scope) for each in card.measured.noise] == list(SETTINGS), card.path.stem
        assert all(each.margin and all(map(each.at, leaderboard.SNRS)) for each in card.measured.noise), card.path.stem


# --- Table I, counted again. A network is the list of its layers' parameters. ---


def conv(outputs: int, inputs: int, side: int, *, bias: bool = False, groups: int = 1) -> int:
    return outputs * inputs // groups * side * side + (outputs if bias else 0)


def bn(channels: int) -> int:
    """Scale, bias, moving mean and moving variance."""
    return 4 * channels


def dense(outputs: int, inputs: int) -> int:
    return outputs * inputs + outputs


def vgg16(width: int = 64, pixels: int = 7 * 7, hidden: int = 4096, classes: int = 1000) -> list[int]:
    widths = [width] * 2 + [2 * width] * 2 + [4 * width] * 3 + [8 * width] * 6
    kernels = [conv(outputs, inputs, 3, bias=True) for inputs, outputs in zip([3, *widths], widths, strict=False)]
    return [*kernels, dense(hidden, 8 * width * pixels), dense(hidden, hidden), dense(classes, hidden)]


def resnet(
    blocks: Iterable[int],
    *,
    bottleneck: bool = False,
    squeeze: bool = False,
    base: int = 64,
    stem: int = 7,
    classes: int = 1000,
) -> list[int]:
    """tensorpack's, shortcuts by 1x1 convolution with a batch norm wherever the width changes."""
    layers, inputs = [conv(base, 3, stem), bn(base)], base
    for width, count in zip((base, 2 * base, 4 * base, 8 * base), blocks, strict=True):
        outputs = 4 * width if bottleneck else width
        for _ in range(count):
            if bottleneck:
                layers += [conv(width, inputs, 1), bn(width), conv(width, width, 3), bn(width)]
                layers += [conv(outputs, width, 1), bn(outputs)]
            else:
                layers += [conv(width, inputs, 3), bn(width), conv(width, width, 3), bn(width)]
            if squeeze:
                layers += [dense(width // 4, outputs), dense(outputs, width // 4)]
            if inputs != outputs:
                layers += [conv(outputs, inputs, 1), bn(outputs)]
            inputs = outputs
    return [*layers, dense(classes, inputs)]


def shufflenet_v2(widths: Iterable[int], stem: int = 24, classes: int = 1000) -> list[int]:
    """As tensorpack's: a unit with stride 2 keeps the width of its shortcut, the others work on one half."""
    layers, inputs = [conv(stem, 3, 3), bn(stem)], stem
    for width, count in zip(widths, (4, 8, 4), strict=True):
        half = width // 2
        for unit in range(count):
            shortcut, branch = (inputs, inputs) if unit == 0 else (half, half)
            layers += [conv(half, branch, 1), bn(half), conv(half, half, 3, groups=half), bn(half)]
            layers += [conv(width - shortcut, half, 1), bn(width - shortcut)]
            if unit == 0:
                layers += [conv(shortcut, shortcut, 3, groups=shortcut), bn(shortcut)]
                layers += [conv(shortcut, shortcut, 1), bn(shortcut)]
            inputs = width
    return [*layers, conv(1024, inputs, 1), bn(1024), dense(classes, 1024)]


def cifar_resnet(depth: int) -> list[int]:
    """Keras's example, version 1: depth = 6n + 2; every convolution has a bias, the shortcuts' have no batch norm."""
    layers, inputs = [conv(16, 3, 3, bias=True), bn(16)], 16
    for width in (16, 32, 64):
        for _ in range((depth - 2) // 6):
            layers += [conv(width, inputs, 3, bias=True), bn(width), conv(width, width, 3, bias=True), bn(width)]
            if inputs != width:
                layers.append(conv(width, inputs, 1, bias=True))
            inputs = width
    return [*layers, dense(10, 64)]


def mobilenet_v1(width: int, classes: int) -> list[int]:
    """MLPerf Tiny's, from Keras: every convolution has a bias."""
    layers, inputs = [conv(width, 3, 3, bias=True), bn(width)], width
    for factor in (2, 4, 4, 8, 8, 16, 16, 16, 16, 16, 16, 32, 32):
        outputs = width * factor
        layers += [conv(inputs, inputs, 3, bias=True, groups=inputs), bn(inputs)]
        layers += [conv(outputs, inputs, 1, bias=True), bn(outputs)]
        inputs = outputs
    return [*layers, dense(classes, inputs)]


def ds_cnn(width: int, classes: int) -> list[int]:
    """MLPerf Tiny's: a convolution of 10 x 4, then four depthwise and pointwise ones, all with a bias."""
    block = [conv(width, width, 3, bias=True, groups=width), bn(width), conv(width, width, 1, bias=True), bn(width)]
    return [width * 10 * 4 + width, bn(width), *4 * block, dense(classes, width)]


TINY = {
    "mlperf-tiny-resnet8": cifar_resnet(8),
    "mlperf-tiny-vww": mobilenet_v1(8, 2),
    "mlperf-tiny-kws": ds_cnn(64, 12),
}
"""MLPerf Tiny's classifiers."""
NETWORKS = {
    "resnet18": resnet((2, 2, 2, 2)),
    "resnet34": resnet((3, 4, 6, 3)),
    "resnet50": resnet((3, 4, 6, 3), bottleneck=True),
    "resnet50-se": resnet((3, 4, 6, 3), bottleneck=True, squeeze=True),
    "shufflenet-v2-1.0x": shufflenet_v2((116, 232, 464)),
    "shufflenet-v2-0.5x": shufflenet_v2((48, 96, 192)),
    "vgg16": vgg16(),
    "resnet20-cifar10": cifar_resnet(20),
    "resnet32-cifar10": cifar_resnet(32),
    "resnet56-cifar10": cifar_resnet(56),
}
SLIM = {
    "resnet18-slim-cifar10": resnet((2, 2, 2, 2), base=8, stem=3, classes=10),
    "resnet34-slim-cifar10": resnet((3, 4, 6, 3), base=8, stem=3, classes=10),
    "resnet50-slim-cifar10": resnet((3, 4, 6, 3), bottleneck=True, base=8, stem=3, classes=10),
    "resnet50se-slim-cifar10": resnet((3, 4, 6, 3), bottleneck=True, squeeze=True, base=8, stem=3, classes=10),
    "shufflenetv2-x0.5-cifar10": shufflenet_v2((48, 96, 192), classes=10),
    "shufflenetv2-x0.25-cifar10": shufflenet_v2((24, 48, 96), stem=12, classes=10),
    "vgg16-slim-cifar10": vgg16(16, pixels=1, hidden=512, classes=10),
}
"""CIFAR-10 networks that stand for the paper's ImageNet networks: as many layers, narrower."""
STAND_FOR = {
    "resnet18-slim-cifar10": "resnet18",
    "resnet34-slim-cifar10": "resnet34",
    "resnet50-slim-cifar10": "resnet50",
    "resnet50se-slim-cifar10": "resnet50-se",
    "shufflenetv2-x0.5-cifar10": "shufflenet-v2-1.0x",
    "shufflenetv2-x0.25-cifar10": "shufflenet-v2-0.5x",
    "vgg16-slim-cifar10": "vgg16",
}
TABLE_I = {
    "resnet18": (41, 11_699_112, 89.50),
    "resnet34": (73, 21_814_696, 91.44),
    "resnet50": (107, 25_610_152, 93.15),
    "resnet50-se": (139, 28_141_144, 93.76),
    "shufflenet-v2-1.0x": (113, 2_295_940, 88.69),
    "shufflenet-v2-0.5x": (113, 1_374_744, 82.37),
    "vgg16": (16, 138_357_544, 90.17),
    "resnet20-cifar10": (40, 274_442, 89.50),
    "resnet32-cifar10": (65, 470_218, 91.44),
    "resnet56-cifar10": (113, 861_770, 93.15),
}
TABLE_III = {  # noise 1, 2, 5 and 10 % on all layers
    "vgg16": {100: 0.90, 50: 0.90, 20: 0.90, 10: 0.90},
    "shufflenet-v2-1.0x": {100: 0.12, 50: 0.06, 20: 0.01, 10: 0.01},
    "resnet50": {100: 0.92, 50: 0.89, 20: 0.69, 10: 0.24},
}
IMAGENET = sorted(name for name in NETWORKS if "cifar" not in name)
BUNDLED = sorted(name for name in bundled_names() if load_bundled(name).model.file is not None)
WANTED = {
    "resnet20-cifar10": 0.90,
    "resnet32-cifar10": 0.91,
    "resnet56-cifar10": 0.91,
    "shufflenetv2-x0.25-cifar10": 0.78,
}
"""Accuracy without noise that a network must have to be bundled; 84 % for the others."""
TEMPLATES = (
    "template-keras-caffe",
    "template-keras-cifar10",
    "template-keras-tf",
    "template-tensorpack",
    "template-torchvision",
)


def test_every_bundled_card_is_one_of_the_papers_models_or_stands_for_one_or_is_a_template() -> None:
    slim = [name for name in BUNDLED if name in SLIM]
    assert sorted(bundled_names()) == sorted((*NETWORKS, *TINY, *slim, *TEMPLATES))


@pytest.mark.parametrize("name", sorted({*NETWORKS, *TINY, *BUNDLED}))
def test_structure_is_what_the_architecture_counts_to(name: str) -> None:
    structure = load_bundled(name).structure
    counted = {**NETWORKS, **TINY, **SLIM}[name]
    assert (structure.layers, structure.parameters) == (len(counted), sum(counted))
    kinds = [
        int(count)
        for count in re.findall(r"(\d+) (?:convolutions|batch norms|dense)", (structure.note or "").split(". ")[0])
    ]
    assert sum(kinds) == structure.layers, "the note's kinds add up"


@pytest.mark.parametrize("name", NETWORKS)
def test_the_paper_counts_the_same_but_for_one_layer(name: str) -> None:
    layers, parameters, _ = TABLE_I[name]
    wrong = 1 if name == "resnet20-cifar10" else 0
    assert (layers + wrong, parameters) == (len(NETWORKS[name]), sum(NETWORKS[name]))


@pytest.mark.parametrize("name", NETWORKS)
def test_published_figures_are_the_papers_where_they_can_be_right(name: str) -> None:
    published = load_bundled(name).published
    printed = TABLE_I[name][2]
    assert dict(published.all_layers) == TABLE_III.get(name, {})
    assert published.source is not None
    assert ("Table III" in published.source) == (name in TABLE_III)
    if name in IMAGENET:
        assert (published.metric, published.clean) == ("top5", pytest.approx(printed / 100))
    else:
        assert (published.metric, published.clean) == ("top1", None)
        assert f"prints {printed:.2f} %" in (published.note or "")


# --- The networks whose weights come with the package ---


@pytest.mark.parametrize("name", BUNDLED)
def test_a_bundled_file_is_what_its_card_says(name: str) -> None:
    card = load_bundled(name)
    assert card.model.file is not None
    assert f"SHA-256 {hashlib.sha256(card.model.file.read_bytes()).hexdigest()}" in (card.model.source or "")
    assert (card.model.recipe or "").startswith(f"python examples/train_cifar10.py --model {name} ")
    subject, found = open_with_card(str(card.model.file), card=None)
    assert (found.path, found.input) == (card.path, load_bundled("resnet20-cifar10").input), (
        "its metadata names the card"
    )
    findings = [*check_card(subject, card), clean_finding(*clean_hits(BenchSpec(name, limit=200)), card)]
    assert [finding.what for finding in findings if finding.agrees is not True] == []


@pytest.mark.parametrize("name", BUNDLED)
def test_a_bundled_network_was_trained_well_enough_to_be_asked(name: str) -> None:
    measured = load_bundled(name).measured
    assert (measured.metric, measured.images) == ("top1", 10_000)
    assert measured.clean is not None
    assert measured.clean >= WANTED.get(name, 0.84)


@pytest.mark.parametrize("name", [name for name in BUNDLED if name in SLIM])
def test_a_slim_network_says_what_it_stands_for_and_has_its_layers(name: str) -> None:
    card, paper = load_bundled(name), load_bundled(STAND_FOR[name])
    assert card.structure.layers == paper.structure.layers
    assert f"stands for {paper.model.name}" in (card.model.source or "")
    assert "No figure of the paper's is of this network" in (card.structure.note or "")
    assert card.published.clean is None


@pytest.mark.parametrize(("name", "target"), [("resnet8", 85), ("vww", 80), ("kws", 90)])
def test_mlperf_tiny_s_quality_targets_are_named_and_held_against_nothing(name: str, target: int) -> None:
    card = load_bundled(f"mlperf-tiny-{name}")
    assert f"top-1 {target} %" in (card.published.note or "")
    assert card.published.clean is None
    assert (card.measured.clean, card.measured.images) == ((0.8719, 10_000) if name == "resnet8" else (None, None))


def test_all_that_comes_with_the_package_is_small() -> None:
    assert sum(file.stat().st_size for file in FOLDER.iterdir()) < 20e6


@pytest.mark.parametrize("name", [*IMAGENET, "template-tensorpack"])
def test_the_zoos_preprocessing(name: str) -> None:
    expected = InputSpec("imagenet", 224, 256, 224, "opencv-cubic", "nearest", "bgr", "nhwc", 1, (0, 0, 0), (1, 1, 1))
    assert load_bundled(name).input == expected


def test_templates_can_be_used_as_they_are() -> None:
    for name in TEMPLATES:
        text = (FOLDER / f"{name}.toml").read_text()
        assert load_bundled(name).structure.layers is None
        filled = re.sub(r"^# (\[|name|layers|parameters|metric|clean|images|data)", r"\1", text, flags=re.MULTILINE)
        tables = tomllib.loads(filled)
        assert set(tables) == {"model", "input", "structure", "measured"}, "what is commented out is a card, too"
        VALIDATOR.validate(tables)


@pytest.mark.parametrize("name", sorted({*NETWORKS, *TINY, *TEMPLATES} - {*BUNDLED}))
def test_recipes_are_code_that_keeps_batch_norms(name: str) -> None:
    card = load_bundled(name)
    recipe = card.model.recipe or ""
    blocks = re.findall(r"^python - [^\n]*<<'END'\n(.*?)^END$", recipe, re.DOTALL | re.MULTILINE)
    assert len(blocks) == recipe.count("<<")
    for block in blocks:
        compile(block, name, "exec")
    keeps = ('_func_map.pop(("Conv", "BatchNormalization"))', "do_constant_folding=False")
    assert sum(flag in recipe for flag in keeps) == 1
    assert f"{'NET' if name in TEMPLATES else name}.onnx" in recipe
    if name in IMAGENET:
        url = re.search(r"http://models\.tensorpack\.com/\S+\.npz", card.model.source or "")
        assert url is not None
        assert f"curl -LO {url[0]}\n" in recipe
        assert f'get_model_loader("{url[0].rsplit("/", 1)[1]}")' in recipe


def test_the_folders_readme_has_every_card() -> None:
    rows = (FOLDER / "README.md").read_text().splitlines()
    for name in bundled_names():
        (row,) = [row for row in rows if row.startswith(f"| `{name}` |")]
        structure, clean = load_bundled(name).structure, load_bundled(name).published.clean
        figures = [f"| {n:,} |" for n in (structure.layers, structure.parameters) if n is not None]
        figures += [f"{clean:.2%}".replace("%", " %")] if clean is not None else []
        assert [figure for figure in figures if figure not in row] == []


# --- The schema ---


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.toml")), ids=lambda path: path.stem)
def test_bundled_cards_satisfy_the_schema(path: Path) -> None:
    VALIDATOR.validate(tomllib.loads(path.read_text()))


def test_the_schema_has_the_tables_keys_and_choices_of_cards_py() -> None:
    VALIDATOR.check_schema(SCHEMA)
    tables = SCHEMA["properties"]
    assert {name: tuple(table["properties"]) for name, table in tables.items()} == cards.KEYS
    assert [table["additionalProperties"] for table in (SCHEMA, *tables.values())] == [False] * (1 + len(tables))
    assert (SCHEMA["required"], tables["input"]["required"]) == (["input"], ["dataset"])
    (rule,) = tables["input"]["allOf"]
    assert tuple(rule["if"]["properties"]["dataset"]["enum"]) == tuple(datasets.KNOWN)
    choices = {key: tuple(value["enum"]) for key, value in tables["input"]["properties"].items() if "enum" in value}
    assert choices == {
        "preset": tuple(PRESETS),
        "interpolation": INTERPOLATIONS,
        "color": COLORS,
        "layout": CARD_LAYOUTS,
    }
    assert tuple(SCHEMA["$defs"]["metric"]["enum"]) == cards.METRICS


TEXT = (["", "words"], [1, True, ["a"]])
COUNT = ([1, 41, 10**6], [0, -1, 10**12 + 1, 1.5, True, "41"])
ACCURACY = ([0.895, 1, 1e-9], [0, -0.1, 1.001, 89.5, True, "0.9"])
SIDE = ([1, 224, 4096, [49, 10]], [0, 4097, 1.5, True, "224", [49], [49, 0], [1, 2, 3], [1.5, 2]])
NOISE = {"bn": "group", "sigma_scope": "layer", "images": 1000}
VALUES: dict[str, tuple[list[Any], list[Any]]] = {
    **{f"model.{key}": TEXT for key in cards.KEYS["model"]},
    "model.file": (["a.onnx", "in/a..onnx", "..a"], ["", "/a", "../a", "in/../a", "in/..", "..", "a\\b", 1]),
    "input.dataset": ([*datasets.KNOWN, "mnist"], [" ", "", 1]),
    "input.classes": (
        [2, 43, 10**6, ["stop", "yield"]],
        [0, 1, -1, 10**6 + 1, 1.5, True, [], ["stop"], ["", "a"], [1, 2]],
    ),
    "input.preset": ([*PRESETS], ["torch", 1]),
    "input.interpolation": ([*INTERPOLATIONS], ["area", 1]),
    "input.color": ([*COLORS], ["grey", 1]),
    "input.layout": ([*CARD_LAYOUTS], ["chw", 1]),
    **{f"input.{key}": SIDE for key in ("size", "resize", "crop")},
    "input.scale": ([1, 255, 0.5], [0, -1, True, "255", [1, 2, 3]]),
    "input.mean": ([0, -1.5, [1], [1, 2, 3], [0.1, -2, 3]], [[1, 2], [1, 2, 3, 4], "0", True, [1, 2, "3"], []]),
    "input.std": ([1, 0.5, [1, 2, 3]], [0, -1, [1, 0, 1], [1, 2], "1", []]),
    "input.label_offset": ([0, 1, 1000], [-1, 1001, 0.5, True, "1"]),
    "structure.layers": COUNT,
    "structure.parameters": COUNT,
    "structure.note": TEXT,
    "published.metric": ([*cards.METRICS], ["top3", 1]),
    "published.clean": ACCURACY,
    "published.source": TEXT,
    "published.all_layers": (
        [{}, {"100": 0.9, "2.5": 0, "1e2": 1, "0.5": 1}],
        [{"0": 0.5}, {"0.0": 0.5}, {"-1": 0.5}, {"ten": 0.5}, {"10": 1.5}, {"10": -0.1}, {"10": "0.9"}, 1, [0.9]],
    ),
    "published.note": TEXT,
    "measured.metric": ([*cards.METRICS], ["top3", 1]),
    "measured.clean": ACCURACY,
    "measured.images": ([1, 10**9], [0, 10**9 + 1, 0.5, True, "1"]),
    "measured.data": TEXT,
    "measured.noise": (
        [
            [],
            [NOISE],
            [{**NOISE, "all_layers": {"10": [0.9, 0.8, 1.01], "2.5": [0, 0, 0.4]}, "margin": [9.5, 8, 11.5]}],
            [NOISE, {**NOISE, "bn": "affine"}, {**NOISE, "sigma_scope": "tensor"}],
        ],
        [
            *({key: value for key, value in NOISE.items() if key != missing} for missing in NOISE),
            *([{**NOISE, "all_layers": {"10": value}}] for value in (0.9, [0.9], [0.9, 0.8, "1"], [0.9, 0.8, -1])),
            *([{**NOISE, "all_layers": value}] for value in ({"ten": [0.9, 0.8, 1]}, {"0": [0.9, 0.8, 1]}, [0.9])),
            *([{**NOISE, key: value}] for key, value in (("bn", "none"), ("images", 0), ("margin", 3), ("snr", 10))),
            [1],
            1,
        ],
    ),
}


def toml(value: Any) -> str:
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {toml(item)}" for key, item in value.items()) + "}"
    return json.dumps(value)


def test_every_key_is_tried() -> None:
    assert set(VALUES) == {f"{table}.{key}" for table, keys in cards.KEYS.items() for key in keys}


@pytest.mark.parametrize("key", VALUES)
def test_the_schema_and_the_reader_agree(key: str, tmp_path: Path) -> None:
    table, name = key.split(".")
    path = tmp_path / "card.toml"
    for allowed, values in zip((True, False), VALUES[key], strict=True):
        for value in values:
            tables: dict[str, Any] = {"input": {"dataset": "cifar10"}}
            if key == "input.dataset":
                tables["input"]["size"] = 224  # ImageNet's images have no size of their own
            if key == "input.classes":
                tables["input"] = {"dataset": "traffic-signs", "size": 32}
            tables.setdefault(table, {})[name] = value
            path.write_text("\n".join(f"{name} = {toml(keys)}" for name, keys in tables.items()))
            assert tomllib.loads(path.read_text()) == tables
            assert VALIDATOR.is_valid(tables) == allowed, value
            if allowed:
                load_card(path)
            else:
                with pytest.raises(CardError):
                    load_card(path)


def test_a_data_set_of_one_s_own_has_any_number_of_channels(tmp_path: Path) -> None:
    tables = {"input": {"dataset": "radar", "size": 8, "mean": [0.1, 0.2, 0.3, 0.4], "std": [1, 2]}}
    assert VALIDATOR.is_valid(tables)
    (tmp_path / "card.toml").write_text(f"input = {toml(tables['input'])}")
    assert load_card(tmp_path / "card.toml").input.std == (1, 2)


@pytest.mark.parametrize("tables", [{}, {"input": {}}, {"inputs": {"dataset": "cifar10"}}, {"model": {"name": "a"}}])
def test_the_schema_wants_a_data_set_and_no_other_table(tables: dict[str, Any]) -> None:
    assert not VALIDATOR.is_valid(tables)
