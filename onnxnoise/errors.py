"""Every error that a user can act on. The message says what was found, where, and what to do next.

OnnxNoiseError
├── UsageError        exit 2   a bad flag or value, a pattern that matches nothing
├── InputError        exit 3   something on disk can't be used, found or written
│   ├── ModelError             the ONNX file
│   ├── DataError              the images or their labels
│   ├── CardError              a model card or dataset manifest
│   ├── NoiseFileError         a table or function that --noise names
│   └── RunFileError           the run file, or another output
└── ProviderError     exit 4   the execution provider asked for is unknown or not there
"""

from __future__ import annotations


class OnnxNoiseError(Exception):
    """The base class of all errors here; `exit_code` is the command line's exit code for it."""

    exit_code = 70


class UsageError(OnnxNoiseError):
    exit_code = 2


class InputError(OnnxNoiseError):
    exit_code = 3


class ModelError(InputError):
    """The ONNX file can't be used."""


class DataError(InputError):
    """The images or their labels can't be used."""


class CardError(InputError):
    """A model card or a dataset manifest can't be used."""


class NoiseFileError(InputError):
    """A table or a function of the user's that noise is made with can't be used."""


class RunFileError(InputError):
    """The run file, or another output, can't be read or written."""


class Interrupted(KeyboardInterrupt):
    """Ctrl-C during a run; the message says what was kept of it, and what goes on from there."""


class ProviderError(OnnxNoiseError):
    exit_code = 4
