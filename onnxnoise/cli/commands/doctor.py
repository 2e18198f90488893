"""`onnxnoise doctor`: what works on this machine, and what should be repaired."""

from __future__ import annotations

from onnxnoise.cli.options import Printer
from onnxnoise.errors import ProviderError


def doctor(printer: Printer) -> None:
    """Show versions, the providers that really work, devices and memory, and what should be repaired.

    Exits with 4 where not even the CPU provider works.
    """
    from onnxnoise.cli.output import doctor as shown_as
    from onnxnoise.runtime import doctor as examiner

    found = examiner.examine()
    printer.result(lambda: examiner.to_json(found), lambda shown: shown_as.examination(shown, found))
    if not found.works:
        raise ProviderError("the CPU provider does not work here; the problems above say what to repair")
