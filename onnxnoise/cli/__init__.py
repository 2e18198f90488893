"""The command line: flags, exit codes, and the output that a person sees."""

from __future__ import annotations

import sys
import warnings


def main() -> None:
    """Run the `onnxnoise` command and exit with its code. Python's warnings are for who writes programs: `-W` shows them."""
    if not sys.warnoptions:
        warnings.simplefilter("ignore")
    from onnxnoise.cli.app import main as run

    run()
