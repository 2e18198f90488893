"""`onnxnoise doctor`: what works on this machine, and what should be repaired."""

from __future__ import annotations

from onnxnoise.cli.options import JsonOption, check_target, write
from onnxnoise.errors import ProviderError


def doctor(json_file: JsonOption = None) -> None:
    """Show versions, the providers that really work, devices and memory, and what should be repaired.

    Exits with 4 where not even the CPU provider works.
    """
    from onnxnoise.cli.output import doctor as shown
    from onnxnoise.cli.output import terminal
    from onnxnoise.runtime import doctor as examiner

    check_target(json_file)
    found = examiner.examine()
    if json_file is not None:
        write(json_file, examiner.to_json(found))
    if json_file != "-":
        shown.examination(terminal.consoles(quiet=False)[0], found)
    if not found.works:
        raise ProviderError("the CPU provider does not work here; the problems above say what to repair")
