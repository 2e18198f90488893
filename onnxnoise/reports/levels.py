"""What reports know about the swept number of the noise: its name, its size in percent, its order and how charts write it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from onnxnoise.text import noise_percent, noise_text


@dataclass(frozen=True)
class Level:
    """The swept number of a run's noise, as reports show it.

    `name` is the word that tables use, `definition` and `meaning` say what the number is, `axis_title` and `legend_title` stand
    at charts. `axis_labels` and `legend_labels` are Vega expressions that write a label from `datum.value`, the size of the
    noise in percent.
    """

    name: str
    definition: str
    meaning: str
    axis_title: str
    legend_title: str
    axis_labels: str
    legend_labels: str

    def percent(self, level: float) -> float:
        """The size of the noise in percent, which is where a level stands on an axis: 0 is no noise."""
        return noise_percent(level)

    def in_order(self, levels: Iterable[float]) -> list[float]:
        """Levels sorted, the least noise first, each once."""
        return sorted(set(levels), key=self.order)

    def order(self, level: float) -> float:
        """A key that sorts levels, the least noise first."""
        return -level

    def number(self, level: float) -> str:
        """The bare number: `5`."""
        return f"{level:g}"

    def text(self, level: float) -> str:
        """The number with its name: `SNR 5`."""
        return f"{self.name} {self.number(level)}"

    def percent_text(self, level: float) -> str:
        """The size of the noise: `20 %`."""
        return f"{self.percent(level):.3g} %"

    def long_text(self, level: float) -> str:
        """The number with its name and the size of the noise: `SNR 5 (20 %)`."""
        return noise_text(level)


SNR = Level(
    name="SNR",
    definition="SNR = sigma_w / sigma_noise",
    meaning="sigma_w / sigma_noise, an amplitude ratio; the percentage beside it is sigma_noise as a share of sigma_w "
    "(SNR 10 is 10 %)",
    axis_title="SNR, and noise in % of sigma_w",
    legend_title="SNR (noise)",
    axis_labels="datum.value == 0 ? ['clean', '0 %'] : "
    "[format(100 / datum.value, '.3~g'), format(datum.value, '.3~g') + ' %']",
    legend_labels="format(100 / datum.value, '.3~g') + ' (' + format(datum.value, '.3~g') + ' %)'",
)
