"""A gate: rules held against a run file, or against a model whose draws are measured until every rule is decided."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from onnxnoise.decisions.gating.records import GateVerdict
from onnxnoise.decisions.gating.rule_state import Case, check_there, opened_baseline, places
from onnxnoise.decisions.gating.rules import Rules, check_levels, find_rules, load_rules
from onnxnoise.errors import DataError, RunFileError
from onnxnoise.flags import from_flags
from onnxnoise.noise.base import Level
from onnxnoise.protocols import PROTOCOLS
from onnxnoise.records import Notice, TallyKey
from onnxnoise.results.chance import at_chance, chance_of
from onnxnoise.results.question import Question
from onnxnoise.results.run_file.store import RunStore
from onnxnoise.results.run_hits import RunHits, is_run_file
from onnxnoise.results.summary import kept_header
from onnxnoise.run.experiment import Experiment
from onnxnoise.run.jobs import Job
from onnxnoise.run.opening import ScheduleOf
from onnxnoise.run.runner import measured_run
from onnxnoise.run.schedules import CLEAN, Schedule
from onnxnoise.run.unattached import refused_by_gate
from onnxnoise.run.watching import Watching, unwatched
from onnxnoise.spec import BenchSpec
from onnxnoise.statistics.sequential import LOOKS, RARE, RARE_IN_A_FILE, look_errors, overall
from onnxnoise.text import counted
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
    settings: dict[str, Any] = dict(book.bench)
    spec = spec or from_flags(str(subject), **settings)
    if is_run_file(str(subject)):
        return gate_run(Path(subject), book, spec.limit)
    return gate_model(replace(spec, model=str(subject)), book, watching)


def gate_run(path: Path, rules: Rules, images: int | None = None) -> GateVerdict:
    """Hold rules against all draws of the run file at `path`, in one look, on the first `images` images (default: all).

    Raises RunFileError where a file can't be read, or lacks what a rule asks for; UsageError for a pattern that matches no layer.
    """
    with ExitStack() as stack:
        run = stack.enter_context(RunHits.opened(path))
        _check_settings(run, rules)
        if without := refused_by_gate(run.description):
            raise RunFileError(
                f"{path}: was measured without noise in {without}: no gate passes what was not measured; export the network so "
                "that each weight is a constant operand of its layer's own operator, and bench it anew"
            )
        check_levels(rules, run.level)
        wanted = images or max(chunk.stop for chunk in run.store.chunks())
        if run.images < wanted:
            raise RunFileError(
                f"{path}: has {run.images:,} of {wanted:,} images measured (an unfinished run, or one shard): go on with its "
                "`onnxnoise bench`, merge its shards, or ask for fewer images with --limit"
            )
        images = wanted
        _check_chance(run, rules, images)
        layers = [layer for layer in run.layers if layer.index in run.selected]
        digest = run.identity["data"]
        cases = [
            Case(rule, places(rule, layers), opened_baseline(rule, run.noise, digest, images, stack))
            for rule in rules.rules
        ]
        for case in cases:
            for place in case.places:
                check_there(run, case.rule, place)
        for case in cases:
            case.look(run, None, 1.0 - case.rule.confidence, images, rare=RARE_IN_A_FILE)
        draws = {reading.draws for case in cases for reading in case.readings.values()}
        return _answer(run, rules, cases, images, (max(draws),))


def _check_settings(run: RunHits, rules: Rules) -> None:
    """Raise RunFileError where the run file was measured in another way than the rules' [bench] asks for."""
    asked = dict(rules.bench)
    if (protocol := asked.pop("protocol", None)) is not None:
        asked |= PROTOCOLS[str(protocol)].implied(asked)
    there = run.noise.whole()
    for key in there:
        if key in asked and str(asked[key]) != str(there[key]):
            raise RunFileError(
                f"{run.path}: was measured with {key} = {there[key]}, but [bench] in the rules asks for {asked[key]}; "
                "bench it as the rules ask, or change them"
            )


def _check_chance(run: RunHits, rules: Rules, images: int) -> None:
    """Raise DataError where the clean accuracy by a rule's metric can't be told from chance: whatever it says would be void."""
    for metric in dict.fromkeys(rule.metric for rule in rules.rules):
        clean = run.clean(metric, images)
        if said := at_chance(int(clean.sum()), images, chance_of(run.store, images), metric):
            raise DataError(f"{run.name}: {said}. No gate passes or fails such a model")


def gate_model(spec: BenchSpec, rules: Rules, watching: Watching = unwatched) -> GateVerdict:
    """Measure draws of a model, up to the looks at 5, 10, 20 and 40, until every rule is decided; decided cells get no more.

    `spec` says how the model is benched; its levels, sweeps and draws are the rules'. Draws that its run file has are used.
    Raises OnnxNoiseError's subclasses for a model, card, images or run file that can't be used.
    """
    check_levels(rules, spec.level)
    levels = spec.level.in_order(rule.level for rule in rules.rules)
    sweeps = tuple(sweep for sweep in SWEEPS if sweep in {rule.sweep for rule in rules.rules})
    spec = replace(spec.at(*levels), sweeps=sweeps, draws=LOOKS[-1], allow_unattached=False)
    with ExitStack() as stack:
        looks: list[_Looks] = []

        def schedule_for(experiment: Experiment) -> ScheduleOf:
            images = min(len(experiment.images), spec.limit or len(experiment.images))
            layers = experiment.subject.layers
            digest = experiment.images.digest
            cases = [
                Case(rule, places(rule, layers), opened_baseline(rule, spec.setting, digest, images, stack))
                for rule in rules.rules
            ]

            def schedule(_: Question, chunks: tuple[range, ...]) -> Schedule:
                looks.append(_Looks(cases, images, chunks, spec.level))
                return looks[0]

            return schedule

        run = stack.enter_context(measured_run(spec, watching, schedule_for=schedule_for))
        (taken,) = looks
        hits = RunHits(run.store)
        _check_chance(hits, rules, taken.images)
        return _answer(hits, rules, taken.cases, taken.images, LOOKS[: taken.taken])


class _Looks:
    """A gate's schedule: draws up to the next look for the places still open, until all are decided or all looks taken."""

    def __init__(self, cases: Sequence[Case], images: int, chunks: tuple[range, ...], level: Level) -> None:
        self.cases, self.images, self.chunks, self.level = cases, images, chunks, level
        self.taken = 0

    def about(self, _level: Level, /) -> str:
        return f"{counted(len(self.cases), 'rule')}, at most {LOOKS[-1]} draws"

    def round(self, store: RunStore) -> list[Job]:
        """The jobs before the next look, none when all is decided; takes each look whose draws are there."""
        while self.taken < len(LOOKS) and any(case.open for case in self.cases):
            done = store.done()
            wanted = ((chunk, self._keys(chunk.start)) for chunk in self.chunks)
            owed = [Job(chunk, tuple(key for key in keys if key not in done)) for chunk, keys in wanted]
            if owed := [job for job in owed if job.keys]:
                return owed
            run = RunHits(store)
            for case in self.cases:
                error = look_errors(case.rule.confidence)[self.taken]
                case.look(run, LOOKS[self.taken], error, self.images, rare=RARE)
            self.taken += 1
        return []

    def _keys(self, start: int) -> list[TallyKey]:
        """The clean pass of a chunk, and the draws of every cell that an open place needs."""
        cells = {
            (case.rule.sweep, layer, case.rule.level)
            for case in self.cases
            for place in case.open
            for layer in place.layers
        }
        ordered = sorted(cells, key=lambda cell: (SWEEPS.index(cell[0]), cell[1] or 0, self.level.order(cell[2])))
        draws = range(LOOKS[self.taken])
        return [(*CLEAN, start), *((*cell, draw, start) for cell in ordered for draw in draws)]


def _answer(run: RunHits, rules: Rules, cases: Sequence[Case], images: int, looks: tuple[int, ...]) -> GateVerdict:
    return GateVerdict(
        **kept_header(run.identity, run.description, images),
        verdict=overall([case.verdict for case in cases]),
        run_file=str(run.path),
        rules_file=str(rules.path),
        looks=looks,
        rules=run.noise.with_snr(case.judged() for case in cases),
        warnings=tuple(Notice(**each) for each in run.description["notices"]),
    )
