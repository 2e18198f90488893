"""A gate's verdict for GitHub Actions: a Markdown summary of the step, and an annotation for each rule that did not pass."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from string import punctuation
from typing import TextIO

from onnxnoise.decisions.gating.records import GateVerdict
from onnxnoise.noise.models import level_of, terms
from onnxnoise.text import safe

_SIGNS = {"pass": "✅ pass", "fail": "❌ fail", "inconclusive": "❔ inconclusive"}


def summary(verdict: GateVerdict) -> str:
    """The verdict as Markdown: what was gated, and a table with a row for each rule."""
    lines = [
        f"### onnxnoise gate: {_SIGNS[verdict.verdict]}",
        "",
        f"{verdict.about(markdown)}; {markdown(terms(verdict.noise))}; seed {verdict.seed}",
        "",
        f"| verdict | rule | {level_of(verdict.noise).name} | limit | draws | |",
        "|---|---|---:|---|---:|---|",
    ]
    lines += [
        f"| {_SIGNS[rule.verdict]} | {markdown(rule.name)} | {rule.level:g} | {markdown(rule.quantity)} ≥ {rule.limit:g} | "
        f"{rule.draws} | {markdown(rule.message)} |"
        for rule in verdict.rules
    ]
    return "\n".join(lines) + "\n\n"


def commands(verdict: GateVerdict, *, inconclusive_stops: bool) -> Iterator[str]:
    """Workflow commands, one a line: an error for each rule that stops the job, a warning where an inconclusive one does not."""
    for rule in verdict.rules:
        if rule.verdict != "pass":
            level = "error" if rule.verdict == "fail" or inconclusive_stops else "warning"
            title = _escaped(f"{rule.verdict}: {rule.name}").replace(":", "%3A").replace(",", "%2C")
            yield f"::{level} title={title}::{_escaped(rule.message)}"


@contextmanager
def untrusted(stream: TextIO) -> Iterator[None]:
    """Keep the runner from obeying workflow commands in text that is printed in the block, which may come from models."""
    token = secrets.token_hex(16)
    stream.write(f"::stop-commands::{token}\n")
    stream.flush()
    try:
        yield
    finally:
        stream.write(f"::{token}::\n")
        stream.flush()


def markdown(text: str) -> str:
    """Untrusted text as Markdown that shows it and does nothing else.

    A numeric character reference is never markup (CommonMark 0.31, section 2.5), so every ASCII punctuation mark becomes one.
    """
    return "".join(f"&#{ord(c)};" if c in punctuation else c for c in safe(text))


def _escaped(text: str) -> str:
    """Untrusted text as data of a workflow command, where only `%` and line ends mean something; `safe` leaves no line end."""
    return safe(text).replace("%", "%25")
