"""What `apply`, `margin` and `plan` print."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from onnxnoise.cli.output.terminal import METRIC_TITLES, named_table, plain_table, policy_line, print_table
from onnxnoise.records import Estimate
from onnxnoise.selection import index_ranges
from onnxnoise.text import counted, safe

if TYPE_CHECKING:
    from onnxnoise.decisions.design.chip import Chip
    from onnxnoise.decisions.design.digital_layers import Plan
    from onnxnoise.decisions.design.margins import Margin, Margins


def written(console: Console, chip: Chip) -> None:
    """Which noise the written file has."""
    console.print(policy_line(chip.bn, chip.sigma_scope), soft_wrap=True)
    console.print(
        f"{safe(chip.path)}: {safe(chip.model['name'])} ({chip.model['sha256'][:8]}) with draw {chip.draw} of seed "
        f"{chip.seed} at SNR {chip.snr:g} in {counted(len(chip.layers), 'layer')}, {chip.parameters:,} parameters",
        soft_wrap=True,
    )
    if chip.negative_variances:
        done = "kept" if chip.bn == "raw" else "stored as 0"
        console.print(f"{chip.negative_variances} batch-norm variances became negative and are {done}", soft_wrap=True)


def margins(console: Console, found: Margins) -> None:
    """The noise margin of all layers together, or of each layer, the least robust first."""
    console.print(policy_line(found.bn, found.sigma_scope), soft_wrap=True)
    console.print(
        f"{safe(found.model['name'])} ({found.model['sha256'][:8]}) on {found.dataset['images']:,} images of "
        f"{safe(str(found.dataset['name']))}, {found.draws} draws of seed {found.seed}; {found.provider}",
        soft_wrap=True,
    )
    wanted = f"{METRIC_TITLES[found.metric]} accuracy of at least {found.target:g} of the clean one"
    if found.margins[0].layer is None:
        (only,) = found.margins
        console.print(Text(f"All layers noisy: {wanted} {_from(only, found)}", "bold"), soft_wrap=True)
        if only.accuracy is not None:
            console.print(f"at SNR {only.snr:g}: {_estimate(only.accuracy)} of clean", soft_wrap=True)
    else:
        console.print()
        console.print(Text(f"One noisy layer at a time: lowest SNR with {wanted}", "bold"), soft_wrap=True)
        ranked = sorted(found.margins, key=lambda margin: -margin.snr)
        rows: list[list[str | Text]] = [
            [
                str(margin.layer),
                margin.name or "",
                margin.kind or "",
                _snr(margin.snr, found),
                _noise(margin.snr),
                _interval(margin, found),
            ]
            for margin in ranked
        ]
        named_table(console, ["#", "layer", "kind", "SNR", "noise", "95 % interval"], rows)
    console.print(
        Text(f"found to {found.tolerance:.0%}; noise: sigma_noise as a share of sigma_w", "dim"), soft_wrap=True
    )


def _from(margin: Margin, found: Margins) -> str:
    if margin.snr == inf:
        return f"is not met up to SNR {found.range[1]:g}"
    return (
        f"from SNR {_snr(margin.snr, found)} on ({_noise(margin.snr)} noise), 95 % interval {_interval(margin, found)}"
    )


def _snr(snr: float, found: Margins) -> str:
    if snr == inf:
        return f"> {found.range[1]:g}"
    return f"<= {snr:g}" if snr <= found.range[0] else f"{snr:g}"


def _noise(snr: float) -> str:
    return "-" if snr == inf else f"{100 / snr:.3g} %"


def _interval(margin: Margin, found: Margins) -> str:
    if margin.interval is None:
        return "-"
    low, high = margin.interval
    return f"[{'< ' if low == 0 else ''}{low or found.range[0]:g}, {_snr(high, found)}]"


def plan(console: Console, made: Plan) -> None:
    """The layers to keep digital, what that costs and what it is worth."""
    console.print(policy_line(made.bn, made.sigma_scope), soft_wrap=True)
    console.print(
        f"{safe(made.model['name'])} ({made.model['sha256'][:8]}) on {made.dataset['images']:,} images of "
        f"{safe(str(made.dataset['name']))}; {made.provider}",
        soft_wrap=True,
    )
    goal = f"{METRIC_TITLES[made.metric]} accuracy of at least {made.target:g} of the clean one at SNR {made.snr:g}"
    many = f"{len(made.digital)} of {len(made.digital) + len(made.noisy)} layers digital"
    head = f"Keep {many}, {made.share:.2%} of the parameters" if made.digital else "No layer needs to be digital"
    if not made.met:
        head = f"No plan found (the best: {many}, {made.share:.2%} of the parameters)"
    console.print(Text(f"{head}, for {METRIC_TITLES[made.metric]} {goal.split(' ', 1)[1]}", "bold"), soft_wrap=True)
    if made.digital:
        rows: list[list[str | Text]] = [
            [str(layer.index), layer.name, layer.kind, f"{layer.parameters:,}"] for layer in made.digital
        ]
        named_table(console, ["#", "layer", "kind", "parameters"], rows)
        console.print(Text(f"noise stays in --layers {index_ranges(made.noisy)}", "dim"), soft_wrap=True)
    table = plain_table()
    for heading in ("accuracy / clean", "draws", "mean", "95 % interval", "worst"):
        table.add_column(heading, no_wrap=True, justify="left" if heading == "accuracy / clean" else "right")
    table.add_row("all layers noisy", f"{made.draws} (seed {made.seed})", *_columns(made.without))
    table.add_row("with this plan", f"{made.fresh_draws} fresh (seed {made.fresh_seed})", *_columns(made.verified))
    print_table(console, table, 0)
    console.print(_verdict(made), soft_wrap=True)


def _verdict(made: Plan) -> Text:
    if not made.met:
        return Text("the fresh draws miss the target: allow a larger --max-share, or a lower target", "red")
    sampled = made.verified.sampled
    if sampled is not None and sampled[0] < made.target:
        return Text(
            "the fresh draws meet the target, but their interval reaches below it: more --fresh-draws tell", "yellow"
        )
    return Text("the fresh draws meet the target", "green")


def _columns(estimate: Estimate) -> tuple[str, str, str]:
    sampled = estimate.sampled
    interval = "-" if sampled is None else f"[{sampled[0]:.3f}, {sampled[1]:.3f}]"
    return f"{estimate.mean:.3f}", interval, "-" if estimate.worst is None else f"{estimate.worst:.3f}"


def _estimate(estimate: Estimate) -> str:
    mean, interval, worst = _columns(estimate)
    return f"{mean} {interval}, worst draw {worst}"
