"""Files of the user's that noise models are made of: read once, and the same from the beginning of a run to its end."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from onnxnoise.errors import NoiseFileError
from onnxnoise.files import read_file

_LARGEST = 64 << 20
"""The most bytes that such a file may have."""


@dataclass(frozen=True)
class UserFile:
    """A file's absolute path, its bytes and their SHA-256."""

    path: Path
    content: bytes
    sha256: str

    @classmethod
    def read(cls, path: Path) -> UserFile:
        """The file as it is now. Raises NoiseFileError where it can't be read."""
        try:
            content = read_file(path, _LARGEST)
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            raise NoiseFileError(f"{path}: can't be read: {why}; --noise names it") from error
        if len(content) > _LARGEST:
            raise NoiseFileError(f"{path}: has more than {_LARGEST >> 20} MB; is it the file of a noise model?")
        return cls(path.absolute(), content, hashlib.sha256(content).hexdigest())


@lru_cache(maxsize=16)
def unchanged(path: str, sha256: str) -> bytes:
    """The bytes of the file at `path`; raises NoiseFileError where they are no longer those with this SHA-256."""
    found = UserFile.read(Path(path))
    if found.sha256 != sha256:
        raise NoiseFileError(
            f"{path}: has changed since the run began (SHA-256 {found.sha256[:12]}, was {sha256[:12]}); put the old file back, "
            "or measure anew with another --out"
        )
    return found.content
