"""The published protocols that `--protocol` names: the flags that each stands for, its source, and what it leaves out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from onnxnoise.errors import UsageError


@dataclass(frozen=True)
class Protocol:
    """A protocol of somebody's: the values of flags, by BenchSpec's fields, under which a figure is theirs.

    `means` has the texts that a flag may have; the first is taken where the flag isn't given, and any other value is refused.
    `levels` is a list that stands where none is given. `constants` and `figures` are what to hold a result against, `omits` is
    what their hardware does and this leaves out.
    """

    name: str
    about: str
    means: Mapping[str, tuple[str, ...]]
    source: str
    constants: str
    omits: str
    figures: str = ""
    levels: str | None = None

    def implied(self, texts: Mapping[str, object]) -> dict[str, str]:
        """The texts of its flags, those given in `texts` kept; raises UsageError where one is given that is not its own."""
        found = {}
        for field, allowed in self.means.items():
            given = texts.get(field, allowed[0])
            if given not in allowed:
                option = "--" + field.replace("_", "-")
                raise UsageError(
                    f"--protocol {self.name} means {option} {' or '.join(allowed)}, but {option} {given} is given too; leave out "
                    "one of the two"
                )
            found[field] = str(given)
        if self.levels is not None and "snrs" not in texts:
            found["levels"] = str(texts.get("levels", self.levels))
        return found

    @property
    def flags(self) -> str:
        """The flags that it stands for, as people type them."""
        parts = [f"--{field.replace('_', '-')} {' or '.join(allowed)}" for field, allowed in self.means.items()]
        return " ".join([*parts, *([] if self.levels is None else [f"--levels {self.levels}"])])


_KERNELS = ("kernels",)

PROTOCOLS = {
    each.name: each
    for each in (
        Protocol(
            "paper",
            "white noise in units of one sigma_w a layer, batch norms as one layer",
            {"noise": ("gaussian",), "bn": ("group",), "sigma_scope": ("layer",)},
            source="Fagbohungbe and Qian, Benchmarking Inference Performance of Deep Learning Models on Analog Devices",
            constants="SNR = sigma_w / sigma_noise: 100, 10, 5, 2.5, 1.67, 1, noise of 1, 10, 20, 40, 60 and 100 %; "
            "3 draws, each on all images, unless told otherwise",
            omits="devices: no drift, no noise that depends on the weight, no converters",
            figures="their Fig. 2 to 10 and Table III",
        ),
        Protocol(
            "afm",
            "noise of IBM's analog foundation models",
            {"noise": ("afm",), "analog": _KERNELS, "scale": ("tile:512",)},
            source="IBM analog-foundation-models, apply_noise_model.py",
            constants="two polynomials of |w| in tiles of 512 inputs; `onnxnoise noise show afm` has them",
            omits="quantization of inputs and outputs",
            figures="a ResNet-20 keeps about 0.98 of its accuracy",
        ),
        Protocol(
            "rasch2023",
            "phase-change memory that drifts, compensated by one factor a kernel",
            {"noise": ("pcm",), "analog": _KERNELS, "scale": ("channel",), "compensate": ("drift",)},
            source="Rasch et al., Nature Communications 2023; AIHWKIT's StandardHWATrainingPreset",
            constants="G = 25 microsiemens; `onnxnoise noise show pcm` has the rest",
            omits=(
                "DAC and ADC of 254 levels, output noise of 0.04, read noise of 0.0175 in each product, IR drop, tiles of 512: "
                "together they weigh more than the weights' own noise"
            ),
            levels="1s,1h,1d,1y",
        ),
        Protocol(
            "joshi2020",
            "phase-change memory right after programming",
            {"noise": ("pcm-joshi",), "analog": _KERNELS},
            source="Joshi et al., Nature Communications 2020; CrossSim's PCM_Joshi.py",
            constants="G = 25 and gmin = G/100; sigma = max(-0.00178767 g^2 + 0.07585724 g + 0.28638599, 0) microsiemens",
            omits="drift, which they compensate, and converters",
            figures="a ResNet-32 keeps 93.7 % on CIFAR-10 in the paper",
        ),
        Protocol(
            "crosssim",
            "noise proportional to each weight, on pairs without limits",
            {"noise": ("proportional",), "analog": _KERNELS},
            source="Xiao et al. 2022; CrossSim's NormalProportional",
            constants="w' = w (1 + eta z)",
            omits="arrays, converters, parasitics",
            levels="0.02,0.05,0.1,0.2",
        ),
        Protocol(
            "bit-errors",
            "random bit flips of quantized weights",
            {"noise": ("bitflip:bits=8", "bitflip:bits=4"), "analog": _KERNELS},
            source="Stutz et al., Bit Error Robustness for Energy-Efficient DNN Accelerators, MLSys 2021",
            constants="8 bits a weight; with --noise bitflip:bits=4 beside it, 4",
            omits="their retraining",
            levels="0.0001,0.001,0.01",
        ),
    )
}
"""The protocols by the names that `--protocol` takes; a new one is one entry here."""
