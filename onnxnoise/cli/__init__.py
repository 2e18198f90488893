"""The command line: flags, exit codes, and the output that a person sees."""

from __future__ import annotations


def main() -> None:
    """Run the `onnxnoise` command and exit with its code."""
    from onnxnoise.cli.app import main as run

    run()
