"""`onnxnoise protocols`: what each name that `--protocol` takes stands for."""

from __future__ import annotations

from onnxnoise.protocols import PROTOCOLS


def protocols() -> None:
    """List the published protocols: their flags, sources, constants, and what each leaves out."""
    from onnxnoise.cli.output import terminal

    shown, _ = terminal.consoles(quiet=False)
    for number, each in enumerate(PROTOCOLS.values()):
        if number:
            shown.print()
        rows = [
            (each.name, each.about),
            ("  means", each.flags),
            ("  source", each.source),
            ("  constants", each.constants),
            ("  leaves out", each.omits),
            *([("  figures", each.figures)] if each.figures else []),
        ]
        terminal.pairs(shown, rows)
