"""Joins run files that belong together: shards of one run, or parts of it that were measured apart."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from onnxnoise.errors import RunFileError, UsageError
from onnxnoise.noise.models import level_of
from onnxnoise.noise.settings import setting_of
from onnxnoise.records import Measured, Tally
from onnxnoise.results.question import is_chunked, streams_of
from onnxnoise.results.run_file.database import Database
from onnxnoise.results.run_file.store import RunStore, difference, joined_realized


@dataclass(frozen=True)
class Merged(Measured):
    """A joined run file.

    `sources` has for each one its path, the number of its tallies, and how many of these were there already. `empty` has the
    chunks without any tally.
    """

    path: Path
    sources: tuple[tuple[Path, int, int], ...]
    tallies: int
    images: int
    chunks: int
    empty: tuple[range, ...]


def merge(sources: Sequence[Path], out: Path) -> Merged:
    """Add all tallies of `sources` to the run file `out`, which may be there already; all of them are written, or none.

    Raises RunFileError, naming what differs, where they are not parts of one run: another model, data, seed, policy or
    choice of layers, images cut or decoded otherwise, or the same tally with other hits.
    """
    if len(sources) < 2:
        raise UsageError("merge: one run file is whole already; name at least two")
    with ExitStack() as stack:
        stores = [stack.enter_context(RunStore.existing(path)) for path in sources]
        first = stores[0]
        for other in stores[1:]:
            if differing := difference(first.identity, other.identity, first.description, other.description):
                raise _unlike(first, other, *differing)
        _check_layouts(stores)
        target = stack.enter_context(RunStore.open(out, first.identity, first.description))
        try:
            _check_layouts([target, *stores] if target.chunks() else stores)
            with target.database.transaction():
                counts = [_joined(target.database, store.database) for store in stores]
                found = [each for store in [target, *stores] for each in store.realized()]
                if found:
                    target.database.keep_realized(joined_realized(found))
        except BaseException:
            target.discard()
            raise
        chunks = target.chunks()
        measured = {start for start, digest in target.digests().items() if digest is not None}
        noise = setting_of(first.identity)
        return Merged(
            noise,
            out,
            tuple((store.path, *count) for store, count in zip(stores, counts, strict=True)),
            len(target.done()),
            max((chunk.stop for chunk in chunks), default=0),
            len(chunks),
            _lacking(target, chunks, measured),
        )


def _lacking(store: RunStore, chunks: Sequence[range], measured: set[int]) -> tuple[range, ...]:
    """The chunks without any tally; of a chunked run, which leaves out chunks that no cell needs, those of shards without any."""
    streams = streams_of(store)
    met = {number % streams for number, chunk in enumerate(chunks) if chunk.start in measured}
    return tuple(
        chunk
        for number, chunk in enumerate(chunks)
        if chunk.start not in measured and not (is_chunked(store.identity) and number % streams in met)
    )


def _check_layouts(stores: Sequence[RunStore]) -> None:
    longest = max(stores, key=lambda store: len(store.chunks()))
    whole = longest.chunks()
    for store in stores:
        chunks = store.chunks()
        for ours, theirs in zip(chunks, whole, strict=False):
            if ours != theirs:
                raise RunFileError(
                    f"{store.path}: cuts the images into other chunks than {longest.path} (images {ours.start} to "
                    f"{ours.stop - 1} there, {theirs.start} to {theirs.stop - 1} here); only equal chunks can be joined: measure "
                    "all parts with --shard I/N of the same N, --limit and --memory, or continue one of the run files"
                )


def _joined(target: Database, source: Database) -> tuple[int, int]:
    """Add the tallies of `source` to `target`; returns (their number, how many of them the target had)."""
    target.add_chunks(source.chunks())
    digests = {start: digest for start, digest in source.digests().items() if digest is not None}
    kept = target.digests()
    for start, digest in digests.items():
        if kept[start] not in (None, digest):
            raise RunFileError(
                f"{source.path}: its images from number {start} on are not those of the run files before it (changed files, or "
                "another Pillow decodes them differently); measure that part again with the same files and versions"
            )
    target.add_digests(digests)
    there = set(target.runs())
    target.add_runs(text for text in source.runs() if text not in there)
    tallies = known = 0
    for tally in source.all_tallies():
        tallies += 1
        if not target.add_tallies([tally]):
            known += 1
            if target.tally(tally.key) != tally:
                raise RunFileError(f"{source.path}: {_conflict(tally, source)}")
    return tallies, known


def _conflict(tally: Tally, source: Database) -> str:
    what = f"{tally.sweep}{'' if tally.layer is None else f', layer {tally.layer}'}"
    level = level_of(setting_of(source.record("identity")))
    noise = "" if tally.sweep == "clean" else f", {level.text(tally.level)}, draw {tally.draw}"
    return (
        f"has other hits than the run files before it for the same tally ({what}{noise}, images {tally.start} to "
        f"{tally.start + tally.images - 1}); they come from another processor type or other versions: keep one of the two"
    )


def _unlike(first: RunStore, other: RunStore, name: str, here: str, there: str) -> RunFileError:
    return RunFileError(
        f"{other.path}: holds a run with another {name} than {first.path} ({there} against {here}); only parts of one run "
        "can be joined"
    )
