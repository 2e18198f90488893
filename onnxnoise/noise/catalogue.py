"""The noise models in words: what each is, its level, parameters, formula and source, and what it leaves out."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from importlib import import_module

from onnxnoise.noise import FROM_FILES, MODELS
from onnxnoise.noise.base import Level
from onnxnoise.noise.fixed import ONE
from onnxnoise.noise.steps import model_class

_PLACES = {
    "weights": "weights; in a chain it stands before steps on devices",
    "devices": "devices; in a chain it stands after steps on weights",
    "either": "weights, or what devices have made of them; it may stand anywhere in a chain",
}


@dataclass(frozen=True)
class Entry:
    """One noise model in words; `parameters` are those besides the level, with their defaults."""

    name: str
    summary: str
    level: Level
    parameters: tuple[str, ...]
    place: str
    scale: str
    formula: str
    source: str
    omits: str

    @property
    def swept(self) -> str:
        """The default levels as `--levels` takes them; `-` where there is but one."""
        if self.level.only is not None:
            return "-"
        if self.name == "table":
            return "the table's times"
        return ",".join(map(self.level.number, self.level.defaults))

    @property
    def pairs(self) -> tuple[tuple[str, str], ...]:
        """All about the model as keys and values."""
        level = self.level
        meaning = f"{level.name}, {level.definition}: {level.limits} ({level.hint}); less noise is {level.less}"
        return (
            ("model", self.name),
            ("about", self.summary),
            ("level", "none: there is one" if level is ONE else meaning),
            ("default levels", self.swept),
            ("other parameters", ", ".join(self.parameters) or "none"),
            ("scale", f"{self.scale}, unless --scale says otherwise" if self._scaled else "not used"),
            ("on", f"{_PLACES[self.place]}; --analog {'all' if self.name == 'gaussian' else 'kernels'} unless given"),
            ("formula", self.formula.replace(". ", ".\n")),
            ("source", self.source),
            ("not modelled", self.omits),
            ("example", self._example),
        )

    @property
    def _scaled(self) -> bool:
        """Whether the formula has the largest weight, which --scale takes over the tensor, each channel or each tile."""
        return "max|w|" in self.formula or "max w" in self.formula

    @property
    def _example(self) -> str:
        step = {"table": "table:mychip.csv", "python": "python:mynoise.py:add"}.get(self.name, self.name)
        flag = "" if self.level.only is not None else f" {self.level.flag} {self.level.example}"
        return f"onnxnoise bench resnet20-cifar10 --noise {step}{flag}"


def entry(name: str) -> Entry:
    """The noise model with this name; raises UsageError for one that is not known."""
    model = model_class(name)
    written = import_module(model.__module__).__doc__ or ""
    taken = inspect.signature(model).parameters.values()
    hidden = ("file", "sha256", "first", "last") if name in FROM_FILES else ()
    parameters = tuple(f"{each.name}={each.default:g}" for each in taken if each.name not in hidden)
    of = {each: getattr(model, each) for each in ("level", "place", "scale", "formula", "source", "omits")}
    return Entry(name, written.strip().split("\n\n")[0].replace("\n", " ").rstrip("."), parameters=parameters, **of)


def entries() -> tuple[Entry, ...]:
    """All noise models, in the order in which they are listed."""
    return tuple(map(entry, MODELS))
