"""A gate: rules held against a run file, or against a model whose draws are measured until every rule is decided."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path

from onnxnoise.decisions.gating.draws import GatedRun
from onnxnoise.decisions.gating.records import GateVerdict
from onnxnoise.decisions.gating.rounds import Rounds
from onnxnoise.decisions.gating.rule_state import Case, check_there, opened_baseline, places, title
from onnxnoise.decisions.gating.rules import Rules, bench_spec, check_asked, check_levels, find_rules, load_rules
from onnxnoise.decisions.gating.same_data import other_data
from onnxnoise.errors import DataError, RunFileError
from onnxnoise.noise.settings import setting_of
from onnxnoise.protocols import PROTOCOLS
from onnxnoise.records import Notice, Verdict
from onnxnoise.results.chance import at_chance, chance_of
from onnxnoise.results.run_file.store import RunStore
from onnxnoise.results.run_hits import is_run_file
from onnxnoise.results.summary import kept_header
from onnxnoise.run.experiment import Experiment
from onnxnoise.run.forecast import Forecast, forecast
from onnxnoise.run.opening import Cut, ScheduleOf
from onnxnoise.run.runner import measured_run
from onnxnoise.run.unattached import refused_by_gate
from onnxnoise.run.watching import Watching, unwatched
from onnxnoise.selection import Selectable
from onnxnoise.spec import BenchSpec
from onnxnoise.statistics.betting import chunk_images
from onnxnoise.words import SWEEPS


def gate(
    subject: str | Path,
    rules: str | Path | Rules | None = None,
    spec: BenchSpec | None = None,
    watching: Watching = unwatched,
) -> GateVerdict:
    r"""Hold a model (a path, or a bundled name) or a run file to rules, as `onnxnoise gate` does; returns a record.

    `rules` is a rules file, by default the one of this folder (`rules.find_rules`). `spec` says how a model is benched, by
    default as the rules file's `[bench]` does; for a run file only its `limit` counts. Raises OnnxNoiseError's subclasses
    as `gate_run`, `gate_model` and `rules.load_rules` do.

    >>> _ = Path("rules.toml").write_text("[[rule]]\nname = 'far from the limit'\nsnr = 50\nmin = 0.3\n")
    >>> verdict = gate("resnet20-cifar10", "rules.toml", BenchSpec("resnet20-cifar10", limit=40, out="run.sqlite"))
    >>> verdict.verdict, [rule.name for rule in verdict.rules]
    ('pass', ['far from the limit'])
    """
    book = rules if isinstance(rules, Rules) else load_rules(find_rules(None if rules is None else str(rules)))
    spec = spec or bench_spec(str(subject), book, {})
    if is_run_file(str(subject)):
        return gate_run(Path(subject), book, spec.limit)
    return gate_model(replace(spec, model=str(subject)), book, watching)


def gate_run(path: Path, rules: Rules, images: int | None = None) -> GateVerdict:
    """Hold rules against all draws of the run file at `path`, on the first `images` images (default: all).

    Of a chunked run these are the first that were dealt, and what is measured of them counts. Raises RunFileError where a
    file can't be read, or lacks what a rule asks for; UsageError for a pattern that matches no layer.
    """
    with ExitStack() as stack:
        run = stack.enter_context(GatedRun.opened(path))
        _check_settings(run, rules, images)
        if without := refused_by_gate(run.description):
            raise RunFileError(
                f"{path}: was measured without noise in {without}: no gate passes what was not measured; export the network so "
                "that each weight is a constant operand of its layer's own operator, and bench it anew"
            )
        check_levels(rules, run.level)
        wanted = images or run.laid_down
        there = run.laid_down if run.chunked else run.images
        if there < wanted:
            raise RunFileError(
                f"{path}: has {there:,} of {wanted:,} images measured (an unfinished run, or one shard): go on with its "
                "`onnxnoise bench`, merge its shards, or ask for fewer images with --limit"
            )
        _check_chance(run, rules, wanted)
        layers = [layer for layer in run.layers if layer.index in run.selected]
        _check_layers(run, rules, layers)
        digest = run.identity["data"]
        cases = [
            Case(rule, places(rule, layers), opened_baseline(rule, run.noise, digest, wanted, stack))
            for rule in rules.rules
        ]
        for case in cases:
            for place in case.places:
                check_there(run, case.rule, place)
        for case in cases:
            began = time.perf_counter()
            case.look(run, wanted)
            case.seconds = time.perf_counter() - began
        draws = {bets.draws for case in cases for bets in case.bets.values()}
        return _answer(run.store, rules, cases, wanted, (max(draws),))


def _check_settings(run: GatedRun, rules: Rules, images: int | None) -> None:
    """Raise RunFileError where the run file was measured in another way than the rules' [bench] asks for."""
    asked = dict(rules.bench)
    if (protocol := asked.pop("protocol", None)) is not None:
        asked |= PROTOCOLS[str(protocol)].implied(asked)
    there = run.noise.whole()
    for key in there:
        if key in asked and str(asked[key]) != str(there[key]):
            raise _contradiction(run, rules, f"{key} = {there[key]}", f"{key} = {asked[key]}")
    clean_asked, clean_there = asked.get("labels") == "clean", run.identity.get("labels") == "clean"
    if clean_asked != clean_there:
        says = ("the clean model's own answers", "the data's own labels")
        to_say = says[not clean_asked] + (' (labels = "clean")' if clean_asked else ', having no labels = "clean"')
        raise _contradiction(run, rules, f"{says[not clean_there]} for labels", to_say)
    told = [dict(each.get("spec", {})) for each in run.store.runs()]
    card = asked.get("card")
    if (data := asked.get("data")) and (differing := other_data(str(data), str(card) if card else None, run, told)):
        raise _contradiction(run, rules, *differing)
    outputs = [each.get("output") for each in told]
    if (output := asked.get("output")) and output not in (*outputs, run.identity["output"]):
        raise _contradiction(run, rules, f"output = {run.identity['output']}", f"output = {output}")
    if (limit := asked.get("limit")) and int(limit) == images and images > run.laid_down:
        raise _contradiction(run, rules, f"{run.laid_down:,} images", f"limit = {limit}")


def _contradiction(run: GatedRun, rules: Rules, there: str, asked: str) -> RunFileError:
    return RunFileError(
        f"{run.path}: was measured with {there}, but [bench] in {rules.path} asks for {asked}; bench it as the rules ask, or "
        "change them"
    )


def _check_layers(run: GatedRun, rules: Rules, noisy: Sequence[Selectable]) -> None:
    """Raise RunFileError where a rule is about layers that had no noise in the run: `noisy` are those that had.

    Noise in the layers that `bench --layers` chose says nothing about noise in all of them.
    """
    if len(noisy) == len(run.layers):
        return
    for rule in rules.rules:
        if rule.sweep != "single" or places(rule, noisy) != places(rule, run.layers):
            raise RunFileError(
                f"{run.path}: has noise in {len(noisy)} of {len(run.layers)} layers (--layers), but {title(rule)} is about "
                "others, too; bench it without --layers, or give the rule only layers of these, with sweep = 'single'"
            )


def _check_chance(run: GatedRun, rules: Rules, images: int) -> None:
    """Raise DataError where the clean accuracy by a rule's metric can't be told from chance: whatever it says would be void."""
    for metric in dict.fromkeys(rule.metric for rule in rules.rules):
        hits, seen = run.clean_hits(metric, images)
        if said := at_chance(hits, seen, chance_of(run.store, images), metric):
            raise DataError(f"{run.name}: {said}. No gate passes or fails such a model")


def gate_model(spec: BenchSpec, rules: Rules, watching: Watching = unwatched) -> GateVerdict:
    """Measure draws of a model, each on a chunk of images of its own, until every rule is decided; decided places get no
    more.

    `spec` says how the model is benched; its levels and sweeps are the rules'. Draws that its run file has are used. Where
    the draws (`betting.most_draws`) or the time (`spec.budget`) are used up, a rule stays inconclusive. Of noise in which
    nothing is random there is one chip, which meets all images at once. Raises OnnxNoiseError's subclasses for a model, card,
    images or run file that can't be used.
    """
    spec = gated_spec(spec, rules)
    with ExitStack() as stack:
        run = stack.enter_context(
            measured_run(spec, watching, schedule_for=partial(rounds_for, rules, stack), cut=_cut(spec, rules))
        )
        taken = run.schedule
        assert isinstance(taken, Rounds)
        taken.look(run.store)
        if run.store.done():
            _check_chance(GatedRun(run.store), rules, run.experiment.count)
        return _answer(run.store, rules, taken.cases, run.experiment.count, tuple(taken.looks))


def gate_forecast(spec: BenchSpec, rules: Rules) -> Forecast:
    """The work that `gate_model` would do at the least and at the most; raises what that raises before it measures."""
    with ExitStack() as stack:
        spec = gated_spec(spec, rules)
        return forecast(spec, partial(rounds_for, rules, stack), _cut(spec, rules))


def _cut(spec: BenchSpec, rules: Rules) -> Cut | None:
    """The images of a chunk of a gate's run; where nothing is random, as many as bench takes."""
    return None if spec.deterministic else partial(_chunk_images, rules)


def _chunk_images(rules: Rules, images: int) -> int:
    """The images of a chunk: as many as in those of a chunked baseline, whose draws then meet the same images."""
    for path in {rule.baseline: None for rule in rules.rules if rule.baseline is not None}:
        with GatedRun.opened(path) as baseline:
            if baseline.chunked:
                return len(baseline.store.chunks()[0])
    return chunk_images(images)


def gated_spec(spec: BenchSpec, rules: Rules) -> BenchSpec:
    """The spec of the run that a gate measures; raises InputError for a rule whose level isn't one of the noise."""
    check_asked(rules, spec)
    levels = spec.level.in_order(rule.level for rule in rules.rules)
    sweeps = tuple(sweep for sweep in SWEEPS if sweep in {rule.sweep for rule in rules.rules})
    precision = None if spec.deterministic else 0.01
    return replace(
        spec.at(*levels), sweeps=sweeps, draws=None, precision=precision, max_draws=None, allow_unattached=False
    )


def rounds_for(rules: Rules, stack: ExitStack, experiment: Experiment) -> ScheduleOf:
    """A function that makes a gate's schedule; opens baselines, until `stack` ends, and raises what that raises."""
    layers, digest = experiment.subject.layers, experiment.images.digest
    cases = [
        Case(rule, places(rule, layers), opened_baseline(rule, experiment.noise, digest, experiment.count, stack))
        for rule in rules.rules
    ]
    return lambda _, chunks: Rounds(cases, experiment, chunks)


def _answer(store: RunStore, rules: Rules, cases: Sequence[Case], images: int, looks: tuple[int, ...]) -> GateVerdict:
    identity, description = store.identity, store.description
    verdicts = [case.verdict for case in cases]
    verdict: Verdict = "fail" if "fail" in verdicts else "inconclusive" if "inconclusive" in verdicts else "pass"
    return GateVerdict(
        **kept_header(identity, description, images),
        verdict=verdict,
        run_file=str(store.path),
        rules_file=str(rules.path),
        looks=looks,
        rules=setting_of(identity).with_snr(case.judged() for case in cases),
        warnings=tuple(Notice(**each) for each in description["notices"]),
        seconds=tuple(case.seconds for case in cases),
    )
