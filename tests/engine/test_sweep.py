"""Every way a chunk is swept gives the hits of the slow way: patch the file's weights in NumPy, run the whole graph."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from support import graphs, nets

from onnxnoise.engine import pieces, sweep, values
from onnxnoise.engine.draws import Draws
from onnxnoise.engine.hits import judge
from onnxnoise.engine.layer_noise import Host
from onnxnoise.engine.sweep import ChunkSweep
from onnxnoise.model.classifier import load_classifier
from onnxnoise.model.network import Network
from onnxnoise.model.policies.batch_norms import noise_layers
from onnxnoise.records import NoiseSetting, Tally, Variant
from onnxnoise.runtime import session
from onnxnoise.runtime.providers import find_provider
from onnxnoise.words import Policy, SigmaScope

Array = npt.NDArray[Any]
Key = tuple[str, int | None, float, int]

VARIANTS = [Variant(snr, draw) for draw in (0, 1) for snr in (20.0, 1.5)]
IMAGES = 24


def network(model: onnx.ModelProto, folder: Path, policy: Policy = "group") -> Network:
    return noise_layers(load_classifier(graphs.saved(model, folder)), policy)


def chunk_sweep(
    net: Network,
    inputs: Array,
    labels: Array,
    *,
    policy: Policy = "group",
    scope: SigmaScope = "tensor",
    batch: int = 8,
    threads: int | None = None,
    start: int = 0,
    lifted: bool | None = None,
) -> ChunkSweep:
    """`inputs` in mini-batches of `batch`, the last one padded."""
    padded = np.concatenate([inputs, np.repeat(inputs[-1:], -len(inputs) % batch, axis=0)])
    batches = [padded[i : i + batch] for i in range(0, len(padded), batch)]
    provider = find_provider("cpu")
    noise = NoiseSetting(seed=40, sigma_scope=scope, bn=policy)
    return ChunkSweep(net, noise, provider, batches, labels, start, threads=threads, lifted=lifted)


def swept(
    net: Network, inputs: Array, labels: Array, *, variants: Sequence[Variant] = VARIANTS, **options: Any
) -> dict[Key, Tally]:
    with chunk_sweep(net, inputs, labels, **options) as chunk:
        tallies = [chunk.clean()]
        for made in chunk.all(variants, net.layers):
            tallies += made
        for made in chunk.single({layer.index: variants for layer in net.layers}):
            tallies += made
        for made in chunk.cumulative({layer.index: variants for layer in net.layers}, net.layers):
            tallies += made
    return {(t.sweep, t.layer, t.level, t.draw): t for t in tallies}


def bits(packed: bytes, count: int) -> Array:
    return np.unpackbits(np.frombuffer(packed, np.uint8), count=count).astype(bool)


def decided(scores: Array, labels: Array) -> Array:
    """Images whose own score is farther from every other than arithmetic in another order can move it; not finite: True."""
    own = scores[np.arange(len(labels)), labels][:, None]
    with np.errstate(invalid="ignore"):
        gaps = np.abs(scores - own)
        gaps[np.arange(len(labels)), labels] = np.inf
        return ~(gaps.min(axis=1) < 1e-4 * np.abs(scores).max(axis=1))


def agrees(tally: Tally, scores: Array, labels: Array) -> None:
    """The tally has the hits of the slow way's scores."""
    clear = decided(scores, labels)
    assert clear.mean() > 0.9
    for packed, most in ((tally.top1, 1), (tally.top5, 5)):
        if packed:
            slow = np.array(nets.hits(scores, labels, most))
            np.testing.assert_array_equal(bits(packed, len(labels))[clear], slow[clear])
    np.testing.assert_array_equal(bits(tally.nonfinite, len(labels)), ~np.isfinite(scores).all(axis=1))


def noisy_layers(sweep: str, layer: int | None, indices: Iterable[int]) -> set[int]:
    """What a sweep's name means: the layers that bear noise."""
    if layer is None:
        return set(indices)
    return {layer} if sweep == "single" else {index for index in indices if index <= layer}


class Slow:
    """What a policy means, by hand: its weights, its layers by index, and its graph with other weights in it."""

    def __init__(self, values: nets.Weights, policy: Policy) -> None:
        self.policy = policy
        self.values = dict(values)
        numbered: Mapping[int, tuple[str, ...]] = dict(enumerate(nets.LAYERS.values(), 1))
        if policy in ("affine", "fold"):
            for name in ("stem", "block"):
                scale, bias, mean, variance = (
                    values[f"{name}_bn_{role}"].astype(np.float64)
                    for role in ("gamma", "beta", "moving_mean", "moving_var")
                )
                s = scale / np.sqrt(variance + nets.EPSILON)
                self.values[f"{name}_bn_gamma"] = s.astype(np.float32)
                self.values[f"{name}_bn_beta"] = self.values[f"{name}_bias"] = (bias - mean * s).astype(np.float32)
                self.values[f"{name}_bn_moving_mean"] = np.zeros_like(mean, np.float32)
                self.values[f"{name}_bn_moving_var"] = np.full_like(mean, 1 - nets.EPSILON, np.float32)
                if policy == "fold":
                    kernel = values[f"{name}_weight"].astype(np.float64)
                    self.values[f"{name}_weight"] = (kernel * s[:, None, None, None]).astype(np.float32)
        if policy == "affine":
            numbered = {i: names[:2] if len(names) == 4 else names for i, names in numbered.items()}
        if policy == "clean":
            numbered = {i: names for i, names in numbered.items() if len(names) < 4}
        if policy == "fold":
            numbered = {
                1: ("stem_weight", "stem_bias"),
                2: ("block_weight", "block_bias"),
                3: ("head_weight", "head_bias"),
            }
        self.layers = numbered

    def scores(
        self, inputs: Array, snr: float, draw: int, noisy: Collection[int], *, pooled: bool
    ) -> tuple[Array, int]:
        """(logits, variances that the noise made negative) with noise in the layers of these indices."""
        layers = {i: names for i, names in self.layers.items() if i in noisy}
        changed = nets.noisy(self.values, snr, draw, layers, pooled=pooled)
        below = {name: value < 0 for name, value in changed.items() if name.endswith("var")}
        if self.policy == "group":
            changed |= {name: np.where(below[name], np.float32(0), changed[name]) for name in below}
        return graphs.run(self.model(changed), inputs), sum(int(each.sum()) for each in below.values())

    def model(self, values: nets.Weights) -> onnx.ModelProto:
        wanted = [n for names in nets.LAYERS.values() for n in names]
        if self.policy == "fold":
            return nets.residual({name: values[name] for names in self.layers.values() for name in names}, folded=True)
        return nets.residual({name: values[name] for name in wanted})


@pytest.fixture(scope="module")
def images() -> Array:
    return nets.as_input(nets.pictures(IMAGES))


@pytest.fixture(scope="module")
def weights() -> nets.Weights:
    return nets.balanced(nets.weights(), nets.pictures(IMAGES))


@pytest.fixture(scope="module")
def labels(weights: nets.Weights, images: Array) -> Array:
    return nets.labelled(nets.residual(weights), images)


def test_the_pass_that_gives_the_labels_is_the_clean_one_too(
    weights: nets.Weights, images: Array, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = network(nets.residual(weights), tmp_path)
    passes: list[int] = []
    run = values.Piece.run
    monkeypatch.setattr(values.Piece, "run", lambda *given, **more: (passes.append(0), run(*given, **more))[1])
    with chunk_sweep(net, images, np.zeros(IMAGES, np.int64)) as chunk:
        labels = chunk.take_clean_labels()
        tally, again = chunk.clean(), chunk.clean()
    assert len(passes) == 2 * len(chunk.images)
    own = graphs.run(nets.residual(weights), images).argmax(axis=1)
    np.testing.assert_array_equal(labels, own)
    assert tally == again
    assert np.unpackbits(np.frombuffer(tally.top1, np.uint8)).sum() == IMAGES


@pytest.mark.parametrize(
    ("policy", "scope"),
    [
        ("group", "tensor"),
        ("group", "layer"),
        ("raw", "tensor"),
        ("affine", "tensor"),
        ("affine", "layer"),
        ("fold", "tensor"),
        ("clean", "tensor"),
    ],
)
def test_hits_of_every_image_are_the_slow_ones(
    policy: Policy, scope: SigmaScope, weights: nets.Weights, images: Array, labels: Array, tmp_path: Path
) -> None:
    slow = Slow(weights, policy)
    net = network(nets.residual(weights), tmp_path, policy)
    assert [layer.index for layer in net.layers] == list(slow.layers)
    tallies = swept(net, images, labels, policy=policy, scope=scope)
    assert len(tallies) == 1 + len(VARIANTS) * (1 + 2 * len(slow.layers))
    agrees(tallies["clean", None, float("inf"), 0], graphs.run(slow.model(slow.values), images), labels)
    seen = 0
    for (kind, layer, snr, draw), tally in tallies.items():
        if kind != "clean":
            scores, negative = slow.scores(
                images, snr, draw, noisy_layers(kind, layer, slow.layers), pooled=scope == "layer"
            )
            agrees(tally, scores, labels)
            assert tally.negative_variances == negative
            seen += negative
    assert (seen > 0) == (policy in ("group", "raw")), "a test of negative variances has some"


@pytest.mark.parametrize("policy", ["group", "affine", "fold"])
def test_infinite_snr_is_the_clean_pass(
    policy: Policy, weights: nets.Weights, images: Array, labels: Array, tmp_path: Path
) -> None:
    net = network(nets.residual(weights), tmp_path, policy)
    tallies = swept(net, images, labels, policy=policy, variants=[Variant(float("inf"), 0)])
    clean = tallies["clean", None, float("inf"), 0]
    assert clean.top1 != bytes(len(clean.top1))
    for tally in tallies.values():
        assert (tally.top1, tally.top5, tally.nonfinite, tally.negative_variances) == (
            clean.top1,
            clean.top5,
            clean.nonfinite,
            0,
        )


def test_nothing_but_the_numbers_asked_for_changes_a_tally(
    weights: nets.Weights, images: Array, labels: Array, tmp_path: Path
) -> None:
    net = network(nets.residual(weights), tmp_path)
    reference = swept(net, images, labels)
    for batch, threads in ((1, None), (3, 1), (7, 2), (IMAGES, None)):
        assert swept(net, images, labels, batch=batch, threads=threads) == reference
    assert swept(net, images, labels, variants=VARIANTS[::-1]) == reference
    alone = swept(net, images, labels, variants=VARIANTS[2:3])
    assert alone == {key: reference[key] for key in alone}


def test_two_chunks_have_the_bits_of_one(weights: nets.Weights, images: Array, labels: Array, tmp_path: Path) -> None:
    net = network(nets.residual(weights), tmp_path)
    whole = swept(net, images, labels)
    first, second = swept(net, images[:10], labels[:10]), swept(net, images[10:], labels[10:], start=10)
    for key, tally in whole.items():
        for name in ("top1", "top5", "nonfinite"):
            joined = [bits(getattr(first[key], name), 10), bits(getattr(second[key], name), IMAGES - 10)]
            np.testing.assert_array_equal(np.concatenate(joined), bits(getattr(tally, name), IMAGES))
        assert (first[key].start, second[key].start) == (0, 10)


def test_layers_may_be_left_out(weights: nets.Weights, images: Array, labels: Array, tmp_path: Path) -> None:
    net = network(nets.residual(weights), tmp_path)
    with chunk_sweep(net, images, labels) as chunk:
        ((fifth,),) = chunk.single({5: VARIANTS[:1]})
        ((some,),) = chunk.all(VARIANTS[:1], [net.layers[4]])
    assert fifth == swept(net, images, labels)["single", 5, 20.0, 0]
    assert (some.top1, some.top5) == (fifth.top1, fifth.top5), "noise in all of one layer is noise in that layer"


def test_cumulative_begins_as_single_and_ends_as_all(
    weights: nets.Weights, images: Array, labels: Array, tmp_path: Path
) -> None:
    net = network(nets.residual(weights), tmp_path)
    tallies = swept(net, images, labels)
    for snr, draw in ((variant.level, variant.draw) for variant in VARIANTS):
        for at, other in ((1, ("single", 1)), (len(net.layers), ("all", None))):
            one, same = tallies["cumulative", at, snr, draw], tallies[*other, snr, draw]
            assert (one.top1, one.top5, one.nonfinite) == (same.top1, same.top5, same.nonfinite)
            assert one.negative_variances == same.negative_variances


@pytest.mark.parametrize("together", [1, 3, None])
def test_cumulative_goes_on_where_a_run_was_left(
    together: int | None, weights: nets.Weights, images: Array, labels: Array, tmp_path: Path
) -> None:
    """Whatever is still to be measured, in however many groups: its tallies are those of a run in one go."""
    net = network(nets.residual(weights), tmp_path)
    reference = swept(net, images, labels)
    for todo in (
        {5: VARIANTS},
        {2: VARIANTS[:1], 4: VARIANTS[1:]},
        {1: VARIANTS[3:], 3: VARIANTS[:2], 4: VARIANTS[3:], 5: VARIANTS[2:3]},
        {1: [], 2: VARIANTS},
        {},
    ):
        with chunk_sweep(net, images, labels) as chunk:
            made = list(chunk.cumulative(todo, net.layers, together=together))
        for tallies in made:
            assert len({(tally.sweep, tally.layer) for tally in tallies}) == 1, "a list has one layer's"
        found = {("cumulative", t.layer, t.level, t.draw): t for tallies in made for t in tallies}
        wanted = {("cumulative", layer, v.level, v.draw) for layer, variants in todo.items() for v in variants}
        assert found == {key: reference[key] for key in wanted}
        assert sum(map(len, made)) == len(wanted)
        if together is None:
            assert [tallies[0].layer for tallies in made] == [layer for layer, variants in todo.items() if variants]


def test_cumulative_passes_by_layers_that_are_not_selected(
    weights: nets.Weights, images: Array, labels: Array, tmp_path: Path
) -> None:
    slow, net = Slow(weights, "group"), network(nets.residual(weights), tmp_path)
    chosen = [layer for layer in net.layers if layer.index in (2, 3, 5)]
    with chunk_sweep(net, images, labels) as chunk:
        lists = list(chunk.cumulative({layer.index: VARIANTS for layer in chosen}, chosen))
    assert [{tally.layer for tally in tallies} for tallies in lists] == [{2}, {3}, {5}]
    for tally in (tally for tallies in lists for tally in tallies):
        assert tally.layer is not None
        noisy = {index for index in (2, 3, 5) if index <= tally.layer}
        scores, negative = slow.scores(images, tally.level, tally.draw, noisy, pooled=False)
        agrees(tally, scores, labels)
        assert tally.negative_variances == negative


BRANCHES = {
    "stem": ("stem_w", "stem_b"),
    "deep_1": ("deep_1_w",),
    "deep_1_bn": ("g1", "b1", "m1", "var1"),
    "deep_2": ("deep_2_w", "deep_2_b"),
    "short": ("short_w",),
    "short_bn": ("g2", "b2", "m2", "var2"),
    "slope": ("slope",),
    "hidden": ("hidden_w", "hidden_b"),
    "head": ("head_w",),
}


def branches(values: Mapping[str, Any] | None = None) -> onnx.ModelProto:
    """Two branches of different depth that are added, one more that joins behind them: values live across many cuts."""
    return graphs.model(
        """(float[N, 3, 32, 32] image, float[6, 3, 8, 8] stem_w, float[6] stem_b, float[6, 6, 3, 3] deep_1_w,
            float[6] g1, float[6] b1, float[6] m1, float[6] var1, float[6, 6, 1, 1] deep_2_w, float[6] deep_2_b,
            float[6, 6, 1, 1] short_w, float[6] g2, float[6] b2, float[6] m2, float[6] var2, float[6, 1, 1] slope,
            float[12, 16] hidden_w, float[16] hidden_b, float[16, 7] head_w) => (float[N, 7] z) {
            s = Conv <kernel_shape = [8, 8], strides = [8, 8]> (image, stem_w, stem_b)
            t = Tanh (s)
            sc = Conv <kernel_shape = [1, 1]> (t, short_w)
            sn = BatchNormalization (sc, g2, b2, m2, var2)
            d1 = Conv <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (t, deep_1_w)
            dn = BatchNormalization (d1, g1, b1, m1, var1)
            dr = Relu (dn)
            d2 = Conv <kernel_shape = [1, 1]> (dr, deep_2_w, deep_2_b)
            a = Add (sn, d2)
            p = PRelu (a, slope)
            c = Concat <axis = 1> (p, t)
            g = GlobalAveragePool (c)
            v = Flatten (g)
            h = Gemm (v, hidden_w, hidden_b)
            r = Sigmoid (h)
            z = MatMul (r, head_w)
        }""",
        values,
        seed=3,
    )


@pytest.mark.parametrize("lifted", [False, True])
def test_values_of_other_branches_live_across_the_cuts(lifted: bool, images: Array, tmp_path: Path) -> None:
    """Also with the noisy constants as inputs of sessions that variants share, the way of a GPU."""
    values = graphs.initializers(branches())
    scores = graphs.run(branches(), images)
    values["head_w"] = (values["head_w"] / scores.std(axis=0)).astype(np.float32)
    model = branches(values)
    labels = nets.labelled(model, images)
    net = network(model, tmp_path)
    assert [tuple(t.name for t in layer.tensors) for layer in net.layers] == list(BRANCHES.values())
    numbered = dict(enumerate(BRANCHES.values(), 1))
    for (kind, layer, snr, draw), tally in swept(net, images, labels, lifted=lifted).items():
        noisy = noisy_layers(kind, layer, numbered) if kind != "clean" else set()
        changed = nets.noisy(transposed(values), snr, draw, {i: n for i, n in numbered.items() if i in noisy})
        below = {name: value < 0 for name, value in changed.items() if name.startswith("var")}
        changed |= {name: np.where(below[name], np.float32(0), changed[name]) for name in below}
        agrees(tally, graphs.run(branches(transposed(changed)), images), labels)
        assert tally.negative_variances == sum(int(each.sum()) for each in below.values())


def transposed(values: Mapping[str, Array]) -> nets.Weights:
    """Noise is drawn in a dense kernel's shape (out, in); the graph stores (in, out)."""
    return {name: value.T if name in ("hidden_w", "head_w") else value for name, value in values.items()}


def test_a_layer_may_reach_over_the_next_ones(
    weights: nets.Weights, images: Array, labels: Array, tmp_path: Path
) -> None:
    """Then the clean rest begins behind its last node, also for the layers in between."""
    net = network(nets.residual(weights), tmp_path, "raw")
    stem, stem_bn, block, block_bn, head = net.layers
    apart = [*stem.tensors, *(replace(tensor, role=tensor.role + 1) for tensor in block_bn.tensors)]
    wide = replace(net, layers=(replace(stem, tensors=tuple(apart)), stem_bn, block, replace(head, index=4)))
    slow = Slow(weights, "raw")
    names = nets.LAYERS
    slow.layers = {1: names["stem"] + names["block_bn"], 2: names["stem_bn"], 3: names["block"], 4: names["head"]}
    for (kind, layer, snr, draw), tally in swept(wide, images, labels, policy="raw").items():
        if kind != "clean":
            noisy = noisy_layers(kind, layer, slow.layers)
            agrees(tally, slow.scores(images, snr, draw, noisy, pooled=False)[0], labels)


def test_how_memory_is_kept_small_changes_no_tally(
    weights: nets.Weights, images: Array, labels: Array, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = network(nets.residual(weights), tmp_path)
    reference = swept(net, images, labels)
    monkeypatch.setattr(pieces, "_LARGE_BYTES", 0)
    monkeypatch.setattr(values, "_SLAB_BYTES", 40_000)
    monkeypatch.setattr(sweep, "KEPT_BYTES", 0)
    assert swept(net, images, labels, batch=8) == reference


def test_draws_are_kept_as_far_as_memory_allows(weights: nets.Weights, tmp_path: Path) -> None:
    net = network(nets.residual(weights), tmp_path)
    stem, bn, block, _, head = net.layers
    sizes = {layer.index: 4 * layer.parameters for layer in net.layers}
    most = sizes[stem.index] + sizes[bn.index] + sizes[head.index]
    kept = Draws(net, NoiseSetting(seed=40), Host(), most)
    first, second, third = kept.of(stem, 0), kept.of(bn, 0), kept.of(head, 0)
    assert kept.of(stem, 0) is first
    kept.of(bn, 1)
    assert kept.of(stem, 0) is first
    assert kept.of(head, 0) is third
    again = kept.of(bn, 0)
    assert again is not second, "the one not used for longest went"
    (ours, _), (theirs, _) = again.at(1.0), second.at(1.0)
    assert all((ours[name] == theirs[name]).all() for name in ours)
    kept.of(block, 0)
    large = kept.of(stem, 1)
    assert kept.of(stem, 1) is large, "the last stays whatever its size"


@pytest.mark.parametrize(
    "options", [{"batch": 8}, {"softmax": True}, {"nhwc_uint8": True}], ids=["fixed batch", "softmax", "uint8 NHWC"]
)
def test_other_forms_of_the_same_network_hit_the_same(
    options: dict[str, Any], weights: nets.Weights, images: Array, labels: Array, tmp_path: Path
) -> None:
    reference = swept(network(nets.residual(weights), tmp_path), images, labels)
    inputs = nets.pictures(IMAGES) if "nhwc_uint8" in options else images
    assert swept(network(nets.residual(weights, **options), tmp_path), inputs, labels) == reference


def test_layers_that_share_an_initializer_have_noise_of_their_own(images: Array, tmp_path: Path) -> None:
    def tied(first: str, second: str) -> onnx.ModelProto:
        used = dict.fromkeys((first, second))
        declared = ", ".join(f"float[3, 3, 8, 8] {name}" for name in used)
        rng = np.random.default_rng(5)
        kernel, head = rng.normal(0, 0.1, (3, 3, 8, 8)), rng.normal(0, 1, (3, 48))
        return graphs.model(
            f"""(float[N, 3, 32, 32] image, {declared}, float[3, 48] head) => (float[N, 3] z) {{
                a = Conv <kernel_shape = [8, 8], pads = [4, 4, 3, 3]> (image, {first})
                b = Relu (a)
                c = Conv <kernel_shape = [8, 8], strides = [8, 8]> (b, {second})
                v = Flatten (c)
                z = Gemm <transB = 1> (v, head)
            }}""",
            {**dict.fromkeys(used, kernel), "head": head},
        )

    model = tied("kernel", "kernel")
    labels = nets.labelled(model, images)
    net = network(model, tmp_path)
    tallies = swept(net, images, labels)
    values = {**graphs.initializers(tied("one", "two"))}
    for (kind, layer, snr, draw), tally in tallies.items():
        if kind != "clean":
            named = {1: ("one",), 2: ("two",), 3: ("head",)}
            noisy = noisy_layers(kind, layer, named)
            changed = nets.noisy(values, snr, draw, {i: n for i, n in named.items() if i in noisy})
            patched = tied("one", "two")
            for tensor in patched.graph.initializer:
                tensor.CopyFrom(onnx.numpy_helper.from_array(changed[tensor.name], tensor.name))
            agrees(tally, graphs.run(patched, images), labels)
            assert tally.top5 == b"", "no top-5 of three classes"


def test_overflow_is_no_hit(weights: nets.Weights, images: Array, labels: Array, tmp_path: Path) -> None:
    head = weights["head_weight"]
    large = {**weights, "head_weight": head / np.abs(head).max() * np.float32(3e38)}
    clean = swept(network(nets.residual(large), tmp_path), images, labels, variants=[])["clean", None, float("inf"), 0]
    scores = graphs.run(nets.residual(large), images)
    infinite = ~np.isfinite(scores).all(axis=1)
    assert infinite.any()
    np.testing.assert_array_equal(bits(clean.nonfinite, IMAGES), infinite)
    assert not (bits(clean.top1, IMAGES) | bits(clean.top5, IMAGES))[infinite].any()


def test_ties_go_to_the_lowest_index() -> None:
    nan, inf = float("nan"), float("inf")
    rows = [
        [1, 1, 1, 1, 1, 1, 1],
        [0, 2, 2, 1, 0, 0, 0],
        [3, 2, 1, 1, 1, 1, 1],
        [nan, 2, 2, 1, 0, 0, 0],
        [nan] * 7,
        [inf, 2, 2, 1, 0, 0, 0],
        [0, -inf, 2, 1, 0, 0, 0],
        [-0.0, 0.0, -0.0, 0.0, -0.0, 0.0, -0.0],
    ]
    for label in range(7):
        scores, labels = np.array(rows, np.float32), np.full(len(rows), label)
        top1, top5, nonfinite = judge(scores, labels)
        assert top1.tolist() == nets.hits(scores, labels, 1)
        assert top5.tolist() == nets.hits(scores, labels, 5)
        assert nonfinite.tolist() == [False, False, False, True, True, True, True, False]
    top1, top5, _ = judge(np.zeros((2, 5), np.float32), np.array([0, 4]))
    assert top1.tolist() == [True, False]
    assert top5.size == 0


def test_a_session_keeps_its_weights_alive() -> None:
    """They are used where they lie: without an owner the next pass's noise would be written over those of one under way."""
    text = "(float[1,32] x) => (float[1,32] y) { y = MatMul(x, w) }"
    stub = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": 18]> g {text}')
    stub.graph.initializer.add(name="w", dims=[32, 32], data_type=onnx.TensorProto.FLOAT)
    stub.graph.initializer[0].data_location = onnx.TensorProto.EXTERNAL
    stub.graph.initializer[0].external_data.add(key="location", value="by-reference")
    weights = np.eye(32, dtype=np.float32)
    alive = weakref.ref(weights)
    provider = find_provider("cpu")
    run = session.Session(stub.SerializeToString(), {"w": weights}, provider)
    del weights
    gc.collect()
    assert alive() is not None
    x = np.arange(32, dtype=np.float32)[None]
    assert (session.to_host(run.run({"x": session.to_device(x, provider)})["y"]) == x).all()
    del run
    gc.collect()
    assert alive() is None
