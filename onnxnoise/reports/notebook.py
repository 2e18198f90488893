"""A result as a notebook shows it: the answer, a table, and the curve of all layers as a small drawing."""

from __future__ import annotations

from html import escape

from onnxnoise.noise.models import headline
from onnxnoise.records import Estimate, Result
from onnxnoise.reports.answer import answer
from onnxnoise.reports.views import METRIC_TITLES, View
from onnxnoise.text import ranged, safe, shortened

_WIDTH, _HEIGHT, _LEFT, _TOP, _RIGHT, _BELOW = 420, 200, 40, 10, 20, 34
"""Pixels: the drawing, and the space around its axes."""


def result_html(result: Result) -> str:
    """HTML of a result: its noise, model and images, the answer, accuracies by level, and the all-layer curve."""
    view = View(shortened(result.model["name"], 40), result)
    averages = {each.level: view.average(each) for each in result.a_avr}
    rows = "".join(
        f"<tr><td>{escape(view.level.text(each))}</td><td>{_said(view.whole.get(each))}</td><td>{_said(averages.get(each))}</td></tr>"
        for each in view.levels
    )
    heads = "".join(f"<th>{head}</th>" for head in ("noise", "all layers, accuracy / clean", "A_avr"))
    return (
        f"<div><p>{escape(headline(result.noise))}<br>{escape(result.about(safe, result.clean.images))}: clean "
        f"{METRIC_TITLES[view.metric]} {view.clean:.2%}</p><p><b>{escape(answer(view))}</b></p>"
        f"<table><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table>{_curve(view)}</div>"
    )


def _said(estimate: Estimate | None) -> str:
    return "-" if estimate is None else ranged(estimate.mean, estimate.sampled)


def _curve(view: View) -> str:
    """An SVG of accuracy / clean by level, with intervals, and dashes at chance; nothing without two levels."""
    found = list(view.whole.items())
    if len(found) < 2:
        return ""
    top = max(1.0, *(estimate.mean for _, estimate in found))
    step = (_WIDTH - _LEFT - _RIGHT) / (len(found) - 1)

    def y(value: float) -> float:
        return round(_TOP + (_HEIGHT - _TOP - _BELOW) * (1 - min(max(value, 0.0), top) / top), 1)

    places = [round(_LEFT + i * step, 1) for i in range(len(found))]
    parts = [_line(_LEFT, y(mark), _WIDTH - _RIGHT, y(mark), "#9996") for mark in (0.0, 0.5, 1.0)]
    parts += [_label(_LEFT - 6, y(mark) + 4, f"{mark:g}", "end") for mark in (0.0, 0.5, 1.0)]
    if view.result.normalized_chance is not None:
        chance = y(view.result.normalized_chance)
        parts.append(_line(_LEFT, chance, _WIDTH - _RIGHT, chance, "#999", "stroke-dasharray='4 4'"))
    points = list(zip(places, (estimate for _, estimate in found), strict=True))
    parts += [
        _line(x, y(each.sampled[0]), x, y(each.sampled[1]), "#2A86C8", "stroke-opacity='.5'")
        for x, each in points
        if each.sampled
    ]
    line = " ".join(f"{x},{y(each.mean)}" for x, each in points)
    parts.append(f"<polyline points='{line}' fill='none' stroke='#2A86C8' stroke-width='2'/>")
    parts += [f"<circle cx='{x}' cy='{y(each.mean)}' r='3.5' fill='#2A86C8'/>" for x, each in points]
    parts += [
        _label(x, _HEIGHT - _BELOW + 18, view.level.number(level), "middle")
        for x, (level, _) in zip(places, found, strict=True)
    ]
    parts.append(_label((_LEFT + _WIDTH) / 2, _HEIGHT - 2, view.level.name, "middle"))
    head = f"<svg width='{_WIDTH}' height='{_HEIGHT}' font-size='11' role='img' aria-label='accuracy / clean'>"
    return f"{head}{''.join(parts)}</svg>"


def _line(x1: float, y1: float, x2: float, y2: float, color: str, more: str = "") -> str:
    return f"<line x1='{x1}' y1='{y1}' x2='{x2}' y2='{y2}' stroke='{color}' {more}/>"


def _label(x: float, y: float, text: str, anchor: str) -> str:
    return f"<text x='{x}' y='{y}' text-anchor='{anchor}' fill='currentColor'>{escape(text)}</text>"
