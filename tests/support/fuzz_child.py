"""Runs the commands on standard input, JSON lists of arguments, one after the other, with limits on memory and time.

For each it prints the exit code and the last line of standard error as JSON. A file on which it dies is the one after the last
line that it printed: whoever started it knows which that is.
"""

from __future__ import annotations

import json
import resource
import signal
import sys
import time

from support.command import onnxnoise

SECONDS = 10
"""Processor time for one file."""

BYTES = 3 << 30
"""Address space beyond that of the libraries."""


def main() -> None:
    used = int(open("/proc/self/statm", encoding="ascii").read().split()[0]) * resource.getpagesize()  # noqa: SIM115, PTH123
    resource.setrlimit(resource.RLIMIT_AS, (used + BYTES, used + BYTES))
    for line in sys.stdin:
        began = time.monotonic()
        signal.signal(signal.SIGPROF, signal.SIG_DFL)  # ends the process: nothing in it may swallow the signal
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        outcome = onnxnoise(*json.loads(line))
        signal.setitimer(signal.ITIMER_PROF, 0)
        said = (outcome.err.splitlines() or [""])[-1]
        print(json.dumps([outcome.code, said[:300], round(time.monotonic() - began, 2)]), flush=True)


if __name__ == "__main__":
    main()
