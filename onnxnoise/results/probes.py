"""Tells which levels of a run file its commands asked for, and which ones only a search tried, as `margin` does."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import Any


def levels_asked(spec: Mapping[str, Any]) -> tuple[float, ...]:
    """The levels that a command asked for, by its `spec` as a run file keeps it; empty where it doesn't say."""
    return tuple(spec.get("levels") or spec.get("snrs") or ())


def probes(runs: Sequence[Mapping[str, Any]], levels: Iterable[float]) -> frozenset[float]:
    """The levels that were tried between the two ends that a run names, and these ends; without those that a run asked for.

    `runs` are the records of a run file's runs, `levels` those of its cells. Where a record doesn't tell, none is called a probe.

    >>> sorted(probes([{"spec": {"levels": [0.1, 1000]}}, {"spec": {"levels": [10, 5]}}], [0.1, 3.2, 5, 10, 1000]))
    [0.1, 3.2, 1000]
    """
    asked = [levels_asked(run.get("spec", {})) for run in runs]
    if not all(asked):
        return frozenset()
    between = frozenset(levels) - frozenset(chain(*asked))
    ends = {each for each in asked if len(each) == 2 and any(min(each) < level < max(each) for level in between)}
    if not ends:
        return frozenset()
    return (between | frozenset(chain(*ends))) - frozenset(chain(*(each for each in asked if each not in ends)))
