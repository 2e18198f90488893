"""The result's JSON as it is defined, checked field by field by hand."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

Check = Callable[[Any], None]


def text(value: Any) -> None:
    assert isinstance(value, str), value


def count(value: Any) -> None:
    assert isinstance(value, int), value
    assert not isinstance(value, bool)
    assert value >= 0


def number(value: Any) -> None:
    assert isinstance(value, int | float), value
    assert not isinstance(value, bool)
    assert math.isfinite(value)


def snr(value: Any) -> None:
    assert isinstance(value, int | float)
    assert value > 0


def flag(value: Any) -> None:
    assert isinstance(value, bool), value


def interval(value: Any) -> None:
    each(number)(value)
    low, high = value
    assert 0 <= low < high, "never of zero width"


def maybe(check: Check) -> Check:
    return lambda value: None if value is None else check(value)


def each(check: Check) -> Check:
    def all_of(value: Any) -> None:
        assert isinstance(value, list), value
        for item in value:
            check(item)

    return all_of


def table(**fields: Check) -> Check:
    """At least these fields, each of its type."""

    def has_all(value: Any) -> None:
        assert isinstance(value, dict), value
        for name, check in fields.items():
            assert name in value, f"{name} is missing of {sorted(value)}"
            check(value[name])

    return has_all


reached = table(target=number, share=number, interval=interval)
estimate = table(
    mean=number,
    fixed=maybe(interval),
    sampled=maybe(interval),
    sd=maybe(number),
    worst=maybe(number),
    target_yield=maybe(reached),
)
layers = each(
    table(
        index=count,
        name=text,
        kind=text,
        parameters=count,
        sigma_w=number,
        initializers=each(table(name=text, shape=each(count), sigma_w=number)),
    )
)
warnings = each(table(code=text, message=text))
draw = table(
    draw=count,
    images=count,
    clean_top1_hits=count,
    clean_top5_hits=maybe(count),
    top1_hits=count,
    top5_hits=maybe(count),
    nonfinite=count,
    negative_variances=count,
)
result = table(
    schema=text,
    model=table(name=text, sha256=text),
    provider=text,
    dataset=table(name=text, images=count),
    seed=count,
    bn=text,
    sigma_scope=text,
    noise=text,
    level_name=text,
    less_noise=text,
    scale=text,
    analog=text,
    clean=table(images=count, top1_hits=count, top5_hits=maybe(count), nonfinite=count),
    layers=layers,
    cells=each(
        table(
            sweep=text,
            layer=maybe(count),
            level=snr,
            snr=maybe(snr),
            draws=each(draw),
            normalized_top1=maybe(estimate),
            normalized_top5=maybe(estimate),
            accuracy_top1=estimate,
            accuracy_top5=maybe(estimate),
            precise=maybe(flag),
        )
    ),
    a_avr=each(table(sweep=text, level=snr, snr=maybe(snr), layers=count, top1=estimate, top5=maybe(estimate))),
    warnings=warnings,
    design=text,
    target=number,
    precision=maybe(number),
)
layer_list = table(layers=layers, warnings=warnings)
