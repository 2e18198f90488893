"""Makes noisy weights on the provider's device: weights and random arrays are uploaded once, and combined there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from weakref import WeakValueDictionary

import onnx

from onnxnoise.engine.layer_noise import Host, Initializer
from onnxnoise.noise.base import DeviceModel, Drawn
from onnxnoise.noise.models import Chain
from onnxnoise.runtime.base import Provider
from onnxnoise.runtime.session import Session, Value, to_device, to_host

_FLOOR = """<ir_version: 8, opset_import: ["": 13]> floor (float v) => (bool below, float floored)
<float zero = {0}> {below = Less (v, zero)  floored = Where (below, zero, v)}"""


class Device:
    """A maker of noisy weights on a provider's device.

    A layer's clean weights stay on the device as long as noise that was made of them, so the next draw finds them there. A
    chain of one step that has a kernel is computed on the device; for any other, NumPy makes the weights and they are uploaded.
    """

    def __init__(self, provider: Provider) -> None:
        self.provider = provider
        self._sessions: dict[str, Session] = {}
        self._clean: WeakValueDictionary[str, Value] = WeakValueDictionary()

    def noisy(self, chain: Chain, clean: Initializer, drawn: tuple[Drawn, ...]) -> Callable[[float], Value]:
        """A function from a level to the noisy initializer on the device, to the bit what `Host.noisy` makes."""
        first = chain.links[0]
        if len(chain.links) > 1 or chain.compensated or not isinstance(first.model, DeviceModel):
            made = Host().noisy(chain, clean, drawn)
            return lambda level: to_device(made(level), self.provider)
        weights = self._uploaded(clean)
        normals = [to_device(clean.as_stored(array), self.provider) for array in drawn[0]]
        return partial(self._computed, first.model, first.level, clean, weights, normals)

    def _computed(
        self,
        model: DeviceModel,
        written: float | None,
        clean: Initializer,
        weights: Value,
        normals: Sequence[Value],
        level: float,
    ) -> Value:
        factors = model.factors(clean.weights, level if written is None else written)
        if factors is None:
            return weights
        feeds = {"w": weights, **{f"z{i}": array for i, array in enumerate(normals, 1)}}
        for name, factor in factors.items():
            laid = factor if factor.ndim == 0 else clean.as_stored(factor)
            feeds[name] = to_device(laid, self.provider)
        return self._session(model.kernel).run(feeds)["noisy"]

    def _uploaded(self, clean: Initializer) -> Value:
        name = clean.tensor.value
        value = self._clean.get(name) or to_device(clean.as_stored(clean.weights.values), self.provider)
        self._clean[name] = value
        return value

    def floored(self, values: Value) -> tuple[Value, int]:
        """(the values with those below 0 replaced by 0, how many there were)."""
        made = self._session(_FLOOR).run({"v": values})
        return made["floored"], int(to_host(made["below"]).sum())

    def _session(self, text: str) -> Session:
        if text not in self._sessions:
            proto = onnx.parser.parse_model(text).SerializeToString()
            self._sessions[text] = Session(proto, {}, self.provider, optimized=False)
        return self._sessions[text]
