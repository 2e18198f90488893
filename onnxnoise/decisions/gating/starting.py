"""A gate to start from: rules with a target that the model's own quick profile suggests, and jobs that hold builds to them."""

from __future__ import annotations

import json
import math
import os
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from onnxnoise.decisions.gating.rules import RULES_FILE
from onnxnoise.errors import RunFileError
from onnxnoise.files import make_place
from onnxnoise.flags import bench_flags
from onnxnoise.noise.models import level_of
from onnxnoise.records import Estimate, Result
from onnxnoise.results.summary import summarize
from onnxnoise.run.runner import measured_run
from onnxnoise.run.watching import Watching, unwatched
from onnxnoise.spec import BenchSpec
from onnxnoise.text import counted

DRAWS, IMAGES = 8, 500
"""The size of the quick profile."""

_WORTH, _SLACK = 0.9, 0.05
"""A level is worth a rule where every draw keeps this share of clean accuracy; the rule asks for so much less than the worst."""

GITHUB, GITLAB = Path(".github/workflows/noise-gate.yml"), Path("noise-gate.gitlab-ci.yml")


@dataclass(frozen=True)
class Started:
    """The files that were written for a model, the rule's level and minimum, and what the quick profile found there."""

    model: str
    paths: tuple[Path, ...]
    level: float
    least: float
    found: Estimate
    result: Result


def start(spec: BenchSpec, given: Mapping[str, Any], folder: Path, watching: Watching = unwatched) -> Started:
    """Measure a quick profile of all layers together, and write rules, a GitHub workflow and a GitLab job into `folder`.

    `given` are the texts of flags that the rules' [bench] repeats. Raises RunFileError where one of the files is there already,
    and what `bench` raises.
    """
    paths = tuple(folder / name for name in (RULES_FILE, GITHUB, GITLAB))
    for path in paths:
        if path.exists():
            raise RunFileError(f"{path}: is there, so it stays; move it away, or name another folder with --out")
    quick = replace(spec, sweeps=("all",), draws=DRAWS, limit=min(spec.limit or IMAGES, IMAGES))
    with measured_run(quick, watching) as run:
        result = summarize(run.store, run.question)
    assert result is not None, "a finished run has its clean pass"
    level, found = _chosen(result)
    worst = found.mean if found.worst is None else found.worst
    least = max(0.01, math.floor(100 * (worst - _SLACK)) / 100)
    texts = (_rules(spec, given, folder, level, least, found), *_jobs(spec.model, folder))
    for path, text in zip(paths, texts, strict=True):
        make_place(path)
        path.write_text(text, encoding="utf-8", newline="\n")
    return Started(spec.model, paths, level, least, found, result)


def _chosen(result: Result) -> tuple[float, Estimate]:
    """The most noise at which every draw of the profile is worth a rule, else the least noise; and its estimate."""
    order = level_of(result.noise).in_order
    found = {cell.level: each for cell in result.cells if (each := cell.normalized(result.told)) is not None}
    levels = order(found)
    worth = [each for each in levels if (found[each].worst or found[each].mean) >= _WORTH]
    chosen = worth[-1] if worth else levels[0]
    return chosen, found[chosen]


def _rules(spec: BenchSpec, given: Mapping[str, Any], folder: Path, level: float, least: float, found: Estimate) -> str:
    swept, chips = spec.level, counted(1 if spec.deterministic else DRAWS, "chip")
    key = "snr" if swept.name == "SNR" else "level"
    name = json.dumps(f"all layers at {swept.text(level)}")
    bench = "".join(f"{field} = {_value(field, text, folder)}\n" for field, text in given.items())
    return (
        "# Rules for `onnxnoise gate`, written by `onnxnoise init-gate`: change them to what your product needs.\n"
        f"# Quick profile of {chips}: {found.mean:.3f} of the clean accuracy, the worst {found.worst or found.mean:.3f}.\n"
        f"\n[bench]\n{bench}\n[[rule]]\nname = {name}\n{key} = {level!r}\nmin = {least:g}\n"
    )


def _value(field: str, text: Any, folder: Path) -> str:
    """The text of a flag as TOML; a path as it is seen from `folder`."""
    syntax = bench_flags("rules")[field].syntax
    if syntax == "switch":
        return "true" if text else "false"
    if syntax in ("whole", "number"):
        return str(text)
    return json.dumps(_seen(str(text), folder) if syntax == "path" else str(text))


def _seen(text: str, folder: Path) -> str:
    return Path(os.path.relpath(text, folder)).as_posix() if Path(text).exists() else text


def _jobs(model: str, folder: Path) -> tuple[str, str]:
    """The GitHub workflow and the GitLab job."""
    command = f"onnxnoise gate {shlex.quote(_seen(model, folder))} --rules {RULES_FILE} --junit gate.xml"
    github = f"""\
# No build whose network does not stand the noise; the rules are in {RULES_FILE}.
name: noise gate
on: [push, pull_request]
permissions:
  contents: read
jobs:
  gate:
    runs-on: ubuntu-latest
    steps:
      - uses: actions/checkout@v4
      - uses: actions/setup-python@v5
        with:
          python-version: "3.12"
      - run: pip install onnxnoise
      - run: {json.dumps(command)}
      - uses: actions/upload-artifact@v4
        if: always()
        with:
          name: noise-gate
          path: |
            gate.xml
            *.sqlite
"""
    gitlab = f"""\
# To be included in .gitlab-ci.yml; the rules are in {RULES_FILE}, and stand as tests in the merge request.
noise gate:
  image: python:3.12
  script:
    - pip install onnxnoise
    - {json.dumps(command)}
  artifacts:
    when: always
    reports:
      junit: gate.xml
"""
    return github, gitlab
