"""The command line: flags, exit codes, and the output that a person sees."""

from __future__ import annotations

import atexit
import os
import sys
import warnings
from contextlib import suppress


def main() -> None:
    """Run the `onnxnoise` command and exit with its code. Python's warnings are for who writes programs: `-W` shows them.

    An interrupted command ends at once: Python would wait for its threads, and one may wait for ever for the work that ended.
    """
    if not sys.warnoptions:
        warnings.simplefilter("ignore")
    from onnxnoise.cli.app import INTERRUPTED
    from onnxnoise.cli.app import main as run

    try:
        run()
    except SystemExit as end:
        if end.code == INTERRUPTED:
            atexit._run_exitfuncs()  # what libraries do at the end, but for the wait
            for stream in (sys.stdout, sys.stderr):
                with suppress(AttributeError, OSError, ValueError):  # closed by the shell, or nobody reads it any more
                    stream.flush()
            os._exit(INTERRUPTED)
        raise
