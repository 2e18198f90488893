"""The tables that `apply`, `margin` and `plan` print."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from onnxnoise.cli.output.terminal import METRIC_TITLES, chance_line, named_table, plain_table, print_table, title_lines
from onnxnoise.noise.base import Level
from onnxnoise.noise.models import deterministic, headline, level_of
from onnxnoise.records import Estimate
from onnxnoise.selection import index_ranges
from onnxnoise.text import counted, safe

if TYPE_CHECKING:
    from onnxnoise.decisions.design.chip import Chip
    from onnxnoise.decisions.design.digital_layers import Plan
    from onnxnoise.decisions.design.margins import Margin, Margins


def written(console: Console, chip: Chip) -> None:
    """Print the noise that the written file has."""
    at = level_of(chip.noise).text(chip.level)
    console.print(headline(chip.noise))
    console.print(
        f"{safe(chip.path)}: {safe(chip.model['name'])} ({chip.model['sha256'][:8]}) with draw {chip.draw} of seed "
        f"{chip.seed} at {at} in {counted(len(chip.layers), 'layer')}, {chip.parameters:,} parameters",
    )
    if chip.negative_variances:
        done = "kept" if chip.bn == "raw" else "stored as 0"
        console.print(f"{chip.negative_variances} batch-norm variances became negative and are {done}")


def margins(console: Console, found: Margins) -> None:
    """Print the noise margin of all layers together, or of each layer, the least robust first."""
    made = "chunks of images with draws of their own" if found.draws is None else counted(found.draws, "draw")
    title_lines(console, found, f", {made} of seed {found.seed}; {found.provider}")
    level = level_of(found.noise)
    wanted = f"{METRIC_TITLES[found.metric]} {found.measure} of at least {found.target:g} of the clean one"
    if found.margins[0].layer is None:
        (only,) = found.margins
        said = f"{wanted} {_from(only, found)}" if level.name == "SNR" else _kept(only, found)
        console.print(Text(f"All layers noisy: {said}", "bold"))
        if only.accuracy is not None:
            console.print(f"at {level.text(only.level)}: {_estimate(only.accuracy)}")
    else:
        extreme = "lowest" if level.less == "larger" else "highest"
        console.print()
        console.print(
            Text(
                f"One noisy layer at a time: {extreme} {level.name} with {wanted}",
                "bold",
            ),
        )
        ranked = sorted(found.margins, key=lambda margin: level.order(margin.level))
        rows: list[list[str | Text]] = [
            [
                str(margin.layer),
                margin.name or "",
                margin.kind or "",
                _bound(margin.level, found),
                _noise(margin.level, level),
                _interval(margin, found),
            ]
            for margin in ranked
        ]
        named_table(console, ["#", "layer", "kind", level.name, "noise", "95 % interval"], rows)
    chance_line(console, None, found.chance)
    to = "exactly" if level.whole or level.choices else f"to {found.tolerance:.0%}"
    console.print(Text(f"found {to}; noise: {level.share}", "dim"))


def _kept(margin: Margin, found: Margins) -> str:
    """A sentence that says in the level's own unit how much of the accuracy is kept, and up to where."""
    level = level_of(found.noise)
    loud, quiet = found.range
    what = f"{100 * found.target:g} % of the clean {METRIC_TITLES[found.metric]} accuracy"
    if margin.level == level.silent:
        return f"does not keep {what}, not even with {level.words(quiet)}"
    way = "down to" if level.less == "larger" else "up to"
    beyond = " and beyond, where it was not looked" if margin.level == loud else ""
    interval = "" if margin.interval is None else f", 95 % interval {_interval(margin, found)}"
    return f"keeps {what} {way} {level.words(margin.level)}{beyond}{interval}"


def _from(margin: Margin, found: Margins) -> str:
    level = level_of(found.noise)
    if margin.level == level.silent:
        return f"is not met up to {level.text(found.range[1])}"
    way = f"from {level.name} {_bound(margin.level, found)} on"
    return f"{way} ({_noise(margin.level, level)} noise), 95 % interval {_interval(margin, found)}"


def _bound(value: float, found: Margins) -> str:
    """A level that the search found; where it only knows that the level lies beyond its range, that end of the range."""
    level = level_of(found.noise)
    loud, quiet = found.range
    less, more = ("<", ">") if level.less == "larger" else (">", "<")
    if value == level.silent:
        return f"{more} {level.number(quiet)}"
    if value == level.endless:
        return f"{less} {level.number(loud)}"
    return f"{less}= {level.number(loud)}" if value == loud else level.number(value)


def _noise(value: float, level: Level) -> str:
    return "-" if value == level.silent else level.percent_text(value)


def _interval(margin: Margin, found: Margins) -> str:
    if margin.interval is None:
        return "-"
    low, high = (_bound(end, found) for end in margin.interval)
    return f"[{low}, {high}]"


def plan(console: Console, made: Plan) -> None:
    """Print the layers to keep digital, what that costs and what it is worth."""
    title_lines(console, made, f"; {made.provider}")
    at = level_of(made.noise).text(made.level)
    goal = f"{METRIC_TITLES[made.metric]} {made.measure} of at least {made.target:g} of the clean one at {at}"
    many = f"{len(made.digital)} of {len(made.digital) + len(made.noisy)} layers digital"
    head = f"Keep {many}, {made.share:.2%} of the parameters" if made.digital else "No layer needs to be digital"
    if not made.met:
        head = f"No plan found (the best: {many}, {made.share:.2%} of the parameters)"
    console.print(Text(f"{head}, for {METRIC_TITLES[made.metric]} {goal.split(' ', 1)[1]}", "bold"))
    if made.digital:
        rows: list[list[str | Text]] = [
            [str(layer.index), layer.name, layer.kind, f"{layer.parameters:,}"] for layer in made.digital
        ]
        named_table(console, ["#", "layer", "kind", "parameters"], rows)
        console.print(Text(f"noise stays in --layers {index_ranges(made.noisy)}", "dim"))
    table = plain_table()
    for heading in (f"{made.measure} / clean", "draws", "mean", "95 % interval", "worst"):
        table.add_column(heading, no_wrap=True, justify="left" if heading.endswith("clean") else "right")
    one = deterministic(made.noise)
    draws, fresh = f"{made.draws} (seed {made.seed})", f"{made.fresh_draws} fresh (seed {made.fresh_seed})"
    table.add_row("all layers noisy", "every chip" if one else draws, *_columns(made.without))
    table.add_row("with this plan", "every chip" if one else fresh, *_columns(made.verified))
    print_table(console, table, 0)
    chance_line(console, None, made.chance)
    console.print(_verdict(made))


def _verdict(made: Plan) -> Text:
    one = deterministic(made.noise)
    if not made.met:
        missed = "the plan misses" if one else "the fresh draws miss"
        return Text(f"{missed} the target: allow a larger --max-share, or a lower target", "red")
    sampled = made.verified.sampled
    if sampled is not None and sampled[0] < made.target:
        return Text(
            "the fresh draws meet the target, but their interval reaches below it: more --fresh-draws tell", "yellow"
        )
    met = "the plan meets the target on these images; nothing is random" if one else "the fresh draws meet the target"
    return Text(met, "green")


def _columns(estimate: Estimate) -> tuple[str, str, str]:
    sampled = estimate.sampled
    interval = "-" if sampled is None else f"[{sampled[0]:.3f}, {sampled[1]:.3f}]"
    return f"{estimate.mean:.3f}", interval, "-" if estimate.worst is None else f"{estimate.worst:.3f}"


def _estimate(estimate: Estimate) -> str:
    mean, interval, worst = _columns(estimate)
    return f"{mean} {interval} of clean" + ("" if estimate.worst is None else f", the worst draw {worst}")
