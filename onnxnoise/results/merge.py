"""Joins run files that belong together: shards of one run, or parts of it that were measured apart."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnxnoise.errors import RunFileError, UsageError
from onnxnoise.results.store import WHOLE, RunStore, difference

if TYPE_CHECKING:
    from sqlite3 import Connection


@dataclass(frozen=True)
class Merged:
    """A joined run file: of each source its tallies and how many of them were there already; `empty` chunks have none."""

    path: Path
    sources: tuple[tuple[Path, int, int], ...]
    tallies: int
    images: int
    chunks: int
    empty: tuple[range, ...]
    bn: str
    sigma_scope: str


def merge(sources: Sequence[Path], out: Path) -> Merged:
    """Write everything that `sources` hold to the run file `out`, all of it or nothing; one that is there is added to.

    Raises RunFileError, naming what differs, where they are not parts of one run: another model, data, seed, policy or
    choice of layers, images cut or decoded otherwise, or the same tally with other hits.
    """
    if len(sources) < 2:
        raise UsageError("merge: one run file is whole already; name at least two")
    with ExitStack() as stack:
        stores = [stack.enter_context(RunStore.existing(path)) for path in sources]
        first = stores[0]
        for other in stores[1:]:
            if differing := difference(first.identity, other.identity):
                raise _unlike(first, other, *differing)
        _check_layouts(stores)
        target = stack.enter_context(RunStore.open(out, first.identity, first.description))
        try:
            _check_layouts([target, *stores] if target.chunks() else stores)
            with target.transaction() as connection:
                counts = [_joined(connection, store) for store in stores]
        except BaseException:
            target.discard()
            raise
        chunks = target.chunks()
        measured = {start for start, digest in target.digests().items() if digest is not None}
        return Merged(
            out,
            tuple((store.path, *count) for store, count in zip(stores, counts, strict=True)),
            len(target.done()),
            max((chunk.stop for chunk in chunks), default=0),
            len(chunks),
            tuple(chunk for chunk in chunks if chunk.start not in measured),
            first.identity["bn"],
            first.identity["sigma_scope"],
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


def _joined(connection: Connection, store: RunStore) -> tuple[int, int]:
    """(tallies of `store`, how many of them the target had)."""
    for chunk in store.chunks():
        connection.execute("INSERT OR IGNORE INTO chunk VALUES (?, ?, NULL)", (chunk.start, len(chunk)))
    kept = dict(connection.execute("SELECT start, sha256 FROM chunk").fetchall())
    for start, digest in store.digests().items():
        if digest is not None and kept[start] not in (None, digest):
            raise RunFileError(
                f"{store.path}: its images from number {start} on are not those of the run files before it (changed files, or "
                "another Pillow decodes them differently); measure that part again with the same files and versions"
            )
        connection.execute("UPDATE chunk SET sha256 = coalesce(?, sha256) WHERE start = ?", (digest, start))
    there = {row[0] for row in connection.execute("SELECT json FROM run").fetchall()}
    own = [text for text in store.runs_as_kept() if text not in there]
    connection.executemany("INSERT INTO run (json) VALUES (?)", ((text,) for text in own))
    tallies = known = 0
    for row in store.rows():
        tallies += 1
        if not connection.execute("INSERT OR IGNORE INTO tally VALUES (?,?,?,?,?,?,?,?,?,?)", row).rowcount:
            known += 1
            query = "SELECT * FROM tally WHERE sweep = ? AND layer = ? AND snr = ? AND draw = ? AND start = ?"
            if connection.execute(query, row[:5]).fetchone() != row:
                raise RunFileError(f"{store.path}: {_conflict(row)}")
    return tallies, known


def _conflict(row: Sequence[Any]) -> str:
    sweep, layer, snr, draw, start, images = row[:6]
    what = f"{sweep}{'' if layer == WHOLE else f', layer {layer}'}"
    noise = "" if math.isinf(snr) else f", SNR {snr:g}, draw {draw}"
    return (
        f"has other hits than the run files before it for the same tally ({what}{noise}, images {start} to "
        f"{start + images - 1}); they come from another processor type or other versions: keep one of the two"
    )


def _unlike(first: RunStore, other: RunStore, name: str, here: str, there: str) -> RunFileError:
    return RunFileError(
        f"{other.path}: holds a run with another {name} than {first.path} ({there} against {here}); only parts of one run "
        "can be joined"
    )
