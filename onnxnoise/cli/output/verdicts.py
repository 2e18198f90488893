"""The table that `gate` prints: a verdict for each rule, and the one that counts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from onnxnoise.cli.output.terminal import METRIC_TITLES, plain_table, print_table, title_lines
from onnxnoise.decisions.gating.records import GateVerdict, RuleVerdict
from onnxnoise.decisions.gating.rules import Rules
from onnxnoise.noise.base import Level
from onnxnoise.noise.models import level_of
from onnxnoise.text import counted, safe

if TYPE_CHECKING:
    from onnxnoise.decisions.gating.starting import Started

_STYLES: dict[str, str] = {"pass": "green", "fail": "bold red", "inconclusive": "yellow"}
_SAID = {"pass": "passes", "fail": "fails", "inconclusive": "is inconclusive"}
_SHORTEST, _LONGEST = 12, 50


def verdict_table(console: Console, verdict: GateVerdict) -> None:
    """Print a line for each rule, what the evidence says of each in words, and the verdict."""
    title_lines(console, verdict, f"; seed {verdict.seed}; {verdict.provider}")
    level = level_of(verdict.noise)
    headings = ("verdict", "rule", level.name, "value", "bounds", "limit", "draws")
    rows = [_row(rule, level) for rule in verdict.rules]
    others = sum(max(cell_len(row[i]) for row in (headings, *rows)) + 2 for i in range(len(headings)) if i != 1)
    room = max(_SHORTEST, min(_LONGEST, console.width - others))
    table = plain_table()
    for heading in headings:
        wraps = heading == "rule"
        table.add_column(
            heading,
            justify="left" if heading in ("verdict", "rule") else "right",
            no_wrap=not wraps,
            overflow="fold" if wraps else "ellipsis",
            max_width=room if wraps else None,
        )
    for row in rows:
        table.add_row(Text(row[0], _STYLES[row[0]]), Text(safe(row[1])), *row[2:])
    print_table(console, table, 0)
    console.print()
    for rule in verdict.rules:
        console.print(
            Text.assemble(
                f'rule "{safe(rule.name)}" ', (_SAID[rule.verdict], _STYLES[rule.verdict]), f": {safe(rule.message)}"
            ),
        )
    console.print(Text("bounds: one-sided, at the rule's error, whenever one looks", "dim"))
    console.print(Text.assemble("verdict: ", (verdict.verdict, _STYLES[verdict.verdict])))


def checked(console: Console, rules: Rules) -> None:
    """Print that a rules file can be used, and its rules in words."""
    count = len(rules.rules)
    console.print(f"{safe(str(rules.path))}: {counted(count, 'rule')}, all can be used")
    for rule in rules.rules:
        place = rule.sweep if rule.layer is None else f"{rule.sweep}, layer {safe(rule.layer)}"
        console.print(
            f"  {safe(rule.name)}: {rule.quantity} of {METRIC_TITLES[rule.metric]} ≥ {rule.limit:.4g} ({place}, {rule.key} "
            f"{rule.level:g}, confidence {rule.confidence:g})",
        )


def _row(rule: RuleVerdict, level: Level) -> tuple[str, ...]:
    bounds = "-" if rule.low is None or rule.high is None else f"[{rule.low:.3f}, {rule.high:.3f}]"
    limit = f"≥ {rule.limit:.4g}"
    value = "-" if rule.value is None else f"{rule.value:.3f}"
    return rule.verdict, rule.name, level.number(rule.level), value, bounds, limit, str(rule.draws)


def started(console: Console, made: Started) -> None:
    """Print the files of a gate to start from, the rule in them, and how to hold the model to it."""
    title_lines(console, made.result, images=made.result.clean.images)
    at = level_of(made.result.noise).text(made.level)
    worst = "" if made.found.worst is None else f", the worst chip {made.found.worst:.3f}"
    console.print(f"all layers noisy at {at}: {made.found.mean:.3f} of the clean accuracy{worst}")
    console.print(f"rule: at least {made.least:g} of the clean accuracy at {at}")
    for path in made.paths:
        console.print(f"wrote {safe(str(path))}")
    console.print(
        f"next: `onnxnoise gate {safe(made.model)} --rules {safe(str(made.paths[0]))}`; the jobs run that, too: change in them "
        "what is installed, and include the GitLab job where you have one",
    )
