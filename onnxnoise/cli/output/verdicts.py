"""The table that `gate` prints: a verdict for each rule, and the one that counts."""

from __future__ import annotations

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from onnxnoise.cli.output.terminal import fitted, plain_table, print_table, title_lines
from onnxnoise.decisions.gating.records import GateVerdict, RuleVerdict
from onnxnoise.noise.base import Level
from onnxnoise.noise.models import level_of
from onnxnoise.text import safe

_STYLES: dict[str, str] = {"pass": "green", "fail": "bold red", "inconclusive": "yellow"}
_SHORTEST, _LONGEST = 12, 50


def verdict_table(console: Console, verdict: GateVerdict) -> None:
    """Print a line for each rule, the reasons of rules that did not pass, and the verdict."""
    title_lines(console, verdict, f"; seed {verdict.seed}; {verdict.provider}")
    level = level_of(verdict.noise)
    headings = ("verdict", "rule", level.name, "value", "bounds", "limit", "draws")
    rows = [_row(rule, level) for rule in verdict.rules]
    others = sum(max(cell_len(row[i]) for row in (headings, *rows)) + 2 for i in range(len(headings)) if i != 1)
    room = max(_SHORTEST, min(_LONGEST, console.width - others))
    table = plain_table()
    for heading in headings:
        table.add_column(heading, justify="left" if heading in ("verdict", "rule") else "right", no_wrap=True)
    for row in rows:
        table.add_row(Text(row[0], _STYLES[row[0]]), fitted(row[1], room), *row[2:])
    print_table(console, table, 0)
    console.print()
    for rule in verdict.rules:
        if rule.verdict != "pass":
            console.print(
                Text.assemble((rule.verdict, _STYLES[rule.verdict]), f" {safe(rule.name)}: {safe(rule.message)}"),
                soft_wrap=not console.is_terminal,
            )
    looks = ", ".join(map(str, verdict.looks))
    console.print(
        Text(f"bounds: one-sided, at the error that a look may spend; looked at {looks} draws", "dim"), soft_wrap=True
    )
    console.print(Text.assemble("verdict: ", (verdict.verdict, _STYLES[verdict.verdict])))


def _row(rule: RuleVerdict, level: Level) -> tuple[str, ...]:
    bounds = "-" if rule.low is None or rule.high is None else f"[{rule.low:.3f}, {rule.high:.3f}]"
    limit = f"≥ {rule.limit:.4g}"
    return rule.verdict, rule.name, level.number(rule.level), f"{rule.value:.3f}", bounds, limit, str(rule.draws)
