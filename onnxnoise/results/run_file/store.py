"""The run file: an SQLite database that tallies are appended to and a later run continues from."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from onnxnoise.errors import RunFileError
from onnxnoise.files import make_place
from onnxnoise.records import Realized, Tally, TallyKey
from onnxnoise.results.run_file.database import Database, is_database
from onnxnoise.selection import index_ranges
from onnxnoise.text import shortened


class Closing:
    """Something open that a `with` block closes."""

    def close(self) -> None: ...

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class RunStore(Closing):
    """An open run file. Every method raises RunFileError with what to do."""

    def __init__(self, database: Database) -> None:
        self.database, self.path = database, database.path
        self._images: dict[int, str] = {}

    @classmethod
    def open(cls, path: Path, identity: Mapping[str, Any], description: Mapping[str, Any]) -> Self:
        """Open the run file at `path`, or make it (an empty file is made one).

        `identity` is what must be equal to continue a run; `description` (layers, versions, command) is kept from the first run.
        """
        _check_place(path)
        database = Database(path, "rwc")
        with cls(database).closed_on_error() as store:
            if database.is_empty():
                database.write_ahead()
                with database.transaction():
                    if database.is_empty():  # another process may have been faster
                        database.create({"identity": identity, "description": description})
            database.check_kind()
            database.write_ahead()
            store._check_identity(identity, description)
            database.upgrade()
        return store

    @classmethod
    def existing(cls, path: Path) -> Self:
        """Open a run file that must be there, to be read: no permission to write is needed."""
        if not path.is_file():
            raise RunFileError(f"{path}: no such run file; `onnxnoise bench MODEL --out {path.name}` makes one")
        database = Database(path, "ro")
        with cls(database).closed_on_error() as store:
            database.check_kind()
        return store

    @contextmanager
    def closed_on_error(self) -> Iterator[Self]:
        """Close the file where the block raises."""
        try:
            yield self
        except BaseException:
            self.close()
            raise

    def _check_identity(self, asked: Mapping[str, Any], description: Mapping[str, Any]) -> None:
        if differing := difference(self.identity, asked, self.description, description):
            name, there, wanted = differing
            raise RunFileError(
                f"{self.path}: holds a run with another {name} ({there} there, {wanted} asked for); one run file holds one "
                "model, data, card, noise, policy, seed and choice of layers: leave out --out, since the usual name has all "
                "that, or name another file"
            )

    @property
    def identity(self) -> dict[str, Any]:
        return self.database.record("identity")

    @property
    def description(self) -> dict[str, Any]:
        return self.database.record("description")

    def realized(self) -> list[Realized]:
        """The noise that each layer's values really got at each level, as far as it was measured."""
        return self.database.realized()

    def keep_realized(self, found: Iterable[Realized]) -> None:
        """Add realized noise to what there is; of two for the same layer and level the one of more draws stays."""
        with self.database.transaction():
            self.database.keep_realized(joined_realized([*self.database.realized(), *found]))

    def begin(self, run: Mapping[str, Any]) -> None:
        """Remember who measures from now on: command, versions, machine."""
        with self.database.transaction():
            self.database.add_runs([json.dumps(run)])

    def runs(self) -> list[dict[str, Any]]:
        """The records that `begin` kept, oldest first: all runs that had a part in this file's tallies."""
        return [json.loads(text) for text in self.database.runs()]

    def chunks(self) -> list[range]:
        """The chunks of images laid down so far, in order: each as the range of positions in the data."""
        return self.database.chunks()

    def lay_down(self, images: int, size: Callable[[], int], there: float = math.inf) -> list[range]:
        """Cover the first `images` images with chunks, those that are there kept; all of them in order.

        `size` is asked for the new chunks' most images, only where one is lacking. Raises RunFileError for a chunk that ends
        beyond the `there` images of the data.
        """
        if _covered(self.chunks()) > there:
            raise RunFileError(
                f"{self.path}: damaged: its table chunk has {_covered(self.chunks()):,} images, the data {there:,}; "
                "measure it again into another file with --out"
            )
        if _covered(self.chunks()) < images:
            step = size()
            with self.database.transaction():  # another process may have been faster
                starts = range(_covered(self.chunks()), images, step)
                self.database.add_chunks(range(start, min(start + step, images)) for start in starts)
        return [chunk for chunk in self.chunks() if chunk.start < images]

    def check_images(self, start: int, sha256: str) -> None:
        """Remember the digest of a chunk's pixels and labels; refuse other images in the same place."""
        if self._images.get(start) == sha256:
            return  # a digest that is kept never changes
        kept = self.database.digest(start)
        if kept is None:
            with self.database.transaction():
                self.database.add_digests({start: sha256})
            kept = self.database.digest(start) or sha256  # another process may have been faster
        if kept != sha256:
            raise RunFileError(
                f"{self.path}: the images from number {start} on are not those it was measured with "
                "(changed files, or another Pillow decodes them differently); name another file with --out"
            )
        self._images[start] = sha256

    def digests(self) -> dict[int, str | None]:
        """The digest of each chunk's pixels and labels, by the chunk's start; None where none of it is measured."""
        return self.database.digests()

    def append(self, tallies: Iterable[Tally]) -> None:
        """Keep tallies, all of them or none, and end their leases; one that is there already stays as it is."""
        tallies = list(tallies)
        with self.database.transaction():
            self.database.add_tallies(tallies)
            self.database.end_leases(tally.key for tally in tallies)

    def done(self) -> set[TallyKey]:
        """Keys of all tallies that are there."""
        return self.database.keys()

    def tallies(self, sweep: str, layer: int | None = None, level: float = math.inf) -> Iterator[Tally]:
        """A cell's tallies, by draw and chunk; the clean pass is the cell ("clean", None, inf)."""
        return self.database.tallies(sweep, layer, level)

    def close(self) -> None:
        self.database.close()

    def verify(self) -> int:
        """Hold every row against its checksum and what it must be; how many there are. RunFileError names one that is wrong."""
        return self.database.verify()

    def check_place(self) -> None:
        """Raise RunFileError where the file was removed or replaced meanwhile; what it held is written beside it, and named."""
        self.database.check_place()

    def discard(self) -> None:
        """Close, and remove the file if it holds no tally: a run that failed before its first leaves nothing in the way."""
        empty = not self.done()
        self.close()
        if empty:
            self.path.unlink(missing_ok=True)


def joined_realized(found: Iterable[Realized]) -> list[Realized]:
    """The realized noise of each layer and level once, that of the most draws, by level and layer."""
    most: dict[tuple[float, int], Realized] = {}
    for each in found:
        key = each.level, each.layer
        if key not in most or most[key].draws < each.draws:
            most[key] = each
    return [most[key] for key in sorted(most)]


def kept_identity(path: Path) -> dict[str, Any] | None:
    """The identity in the run file at `path`; None where no readable one is there: opening it for a run says what is wrong."""
    try:
        if not path.is_file() or not is_database(path):
            return None
        with RunStore.existing(path) as store:
            return store.identity
    except (OSError, RunFileError):
        return None


def _covered(chunks: Sequence[range]) -> int:
    """The number of images that the chunks cover."""
    return max((chunk.stop for chunk in chunks), default=0)


def _check_place(path: Path) -> None:
    if path.is_dir():
        raise RunFileError(f"{path}: is a folder; name a file in it with --out")
    try:
        make_place(path)
    except OSError as error:
        raise RunFileError(
            f"{path}: can't be written: its folder can't be made ({error.strerror or error}); name another file with --out"
        ) from error
    if path.exists() and not path.is_file():
        raise RunFileError(f"{path}: is no regular file; name another file with --out")


_NAMES = {"model": "model", "data": "dataset"}
"""The key of a description that has the name of what an identity knows by its digest."""


def difference(
    kept: Mapping[str, Any], asked: Mapping[str, Any], kept_as: Mapping[str, Any], asked_as: Mapping[str, Any]
) -> tuple[str, str, str] | None:
    """The first key in which two identities differ, and both values, as a person reads them; None where they are equal.

    `kept_as` and `asked_as` are the descriptions, which have the names of models and data.
    """
    kept, asked = (_flat(json.loads(json.dumps(each))) for each in (kept, asked))
    for key in {**kept, **asked}:
        if kept.get(key) != asked.get(key):
            there, wanted = (
                f"{shortened(str(told.get(_NAMES[key])), 60)}, digest {str(each.get(key))[:8]}"
                if key in _NAMES
                else _short(each.get(key))
                for each, told in ((kept, kept_as), (asked, asked_as))
            )
            return key.replace("_", " "), there, wanted
    return None


def _flat(record: Mapping[str, Any]) -> dict[str, Any]:
    """Nested tables one level up, so that a difference is named by its own key."""
    flat: dict[str, Any] = {}
    for name, value in record.items():
        flat |= {f"{name} {key}": each for key, each in value.items()} if isinstance(value, dict) else {name: value}
    return flat


def _short(value: Any) -> str:
    text = (
        index_ranges(value) if isinstance(value, list) and all(isinstance(v, int) for v in value) else json.dumps(value)
    )
    return text if len(text) <= 80 else f"{text[:77]}..."
