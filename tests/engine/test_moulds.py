"""What comes out of a mould is, to the bit, what comes out of a session made for those noisy constants."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support import graphs, nets

from onnxnoise.engine.draws import Draws
from onnxnoise.engine.layer_noise import Host
from onnxnoise.engine.moulds import Mould
from onnxnoise.engine.pieces import Pieces
from onnxnoise.engine.segments import Cutter
from onnxnoise.model.classifier import load_classifier
from onnxnoise.model.network import Network
from onnxnoise.model.policies.batch_norms import noise_layers
from onnxnoise.records import NoiseSetting
from onnxnoise.runtime import session
from onnxnoise.runtime.providers import find_provider
from onnxnoise.runtime.session import Session, Value
from onnxnoise.words import Policy

PROVIDER = find_provider("cpu")
SHAPE = (4, 3, 32, 32)


def network(folder: Path, policy: Policy, channels: int = 16) -> Network:
    model = nets.residual(nets.weights(channels=channels))
    return noise_layers(load_classifier(graphs.saved(model, folder)), policy)


def noisy_values(net: Network, draw: int, snr: float) -> dict[str, np.ndarray]:
    draws = Draws(net, NoiseSetting(bn="raw"), Host())
    values: dict[str, np.ndarray] = {}
    for layer in net.layers:
        values |= draws.of(layer, draw).at(snr)[0]
    return values


def images(net: Network) -> dict[str, Value]:
    pixels = np.random.default_rng(1).standard_normal(SHAPE, dtype=np.float32)
    return {net.image.name: session.to_device(pixels, PROVIDER)}


@pytest.mark.parametrize("channels", [6, 8, 16, 20, 64])
@pytest.mark.parametrize("policy", ["group", "raw", "affine", "fold", "clean"])
def test_a_mould_gives_the_bits_of_a_session_of_its_own(policy: Policy, channels: int, tmp_path: Path) -> None:
    net = network(tmp_path, policy, channels)
    cutter, image = Cutter(net), images(net)
    types = session.types(image)
    mould = None
    for draw, snr in ((0, 5.0), (1, 5.0), (1, 0.7)):
        noisy = noisy_values(net, draw, snr)
        segment = cutter.segment(0, cutter.end, types, replaced=noisy)
        mould = mould or Mould.of(segment, noisy, net.constants, PROVIDER)
        assert mould is not None
        own = Session(segment.stub, segment.references, PROVIDER).run(image)[net.logits]
        ours = mould.piece(noisy, PROVIDER).run(image)[net.logits]
        np.testing.assert_array_equal(session.to_host(ours), session.to_host(own))


def test_a_piece_is_poured_into_a_mould_when_it_is_used_again(tmp_path: Path) -> None:
    net = network(tmp_path, "group")
    pieces, image = Pieces(net, PROVIDER), images(net)
    types = session.types(image)
    used = [pieces.noisy(0, pieces.cutter.end, types, noisy_values(net, draw, 2.0)) for draw in range(6)]
    sessions = [id(piece.session) for piece in used]
    assert len(set(sessions)) < len(sessions)
    assert sessions[-1] == sessions[-2]
    for draw, piece in enumerate(used):
        fresh = Pieces(net, PROVIDER).noisy(0, pieces.cutter.end, types, noisy_values(net, draw, 2.0))
        theirs, ours = (session.to_host(each.run(image)[net.logits]) for each in (fresh, piece))
        np.testing.assert_array_equal(ours, theirs)


def test_where_the_optimizer_computes_with_a_constant_there_is_no_mould(tmp_path: Path) -> None:
    text = (
        "(float[4,3,8,8] x, float[6,3,3,3] w, float[6,1,1] s, float[5,6] k) => (float[4,5] y)"
        " { c = Conv(x, w)  m = Mul(c, s)  r = Relu(m)  g = GlobalAveragePool(r)  f = Flatten(g)  y = Gemm<transB = 1>(f, k) }"
    )
    net = noise_layers(graphs.load(graphs.model(text), tmp_path), "group")
    pieces = Pieces(net, PROVIDER)
    image = {net.image.name: session.to_device(np.ones((4, 3, 8, 8), np.float32), PROVIDER)}
    types = session.types(image)
    noisy = {t.value: net.constants[t.value] for layer in net.layers for t in layer.tensors}
    segment = pieces.cutter.segment(0, pieces.cutter.end, types, replaced=noisy)
    assert Mould.of(segment, noisy, net.constants, PROVIDER) is None
    used = [pieces.noisy(0, pieces.cutter.end, types, noisy) for _ in range(5)]
    assert len({id(piece.session) for piece in used}) == 5


def test_clean_sessions_are_kept_as_far_as_memory_allows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    net = network(tmp_path, "group")
    kept, image = Pieces(net, PROVIDER), images(net)
    types = kept.types_of(image)
    end = kept.cutter.end
    assert kept.clean(0, end, types[0]).session is kept.clean(0, end, types[0]).session
    monkeypatch.setattr("onnxnoise.engine.pieces._KEPT_BYTES", 0)
    full = Pieces(net, PROVIDER)
    assert full.clean(0, end, types[0]).session is not full.clean(0, end, types[0]).session
