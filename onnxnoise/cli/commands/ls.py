"""`onnxnoise ls`: the run files in a folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from onnxnoise.cli.options import Printer
from onnxnoise.errors import RunFileError
from onnxnoise.fields import flag


@dataclass(frozen=True, kw_only=True)
class ListFlags:
    """The flag that names the folder."""

    folder: str = flag("", "FOLDER", "Where to look", default=".")


def ls(own: ListFlags, printer: Printer) -> None:
    """List the run files in a folder: model, images, noise, how far each is, and what it found."""
    from onnxnoise.cli.output import listing
    from onnxnoise.results import listed

    folder = Path(own.folder)
    if not folder.is_dir():
        hint = f"; `onnxnoise show {folder}` prints a run file" if folder.is_file() else ""
        raise RunFileError(f"{folder}: is no folder{hint}")
    found = listed.run_files(folder)
    printer.result(lambda: listed.to_json(found), lambda shown: listing.run_files(shown, str(folder), found))
