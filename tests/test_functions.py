"""A user's Python file: what its code prints is no part of a command's result."""

from __future__ import annotations

import sys
from pathlib import Path
from threading import Barrier, Thread

import pytest

from onnxnoise.functions import module_of, printing_aside


def test_threads_that_overlap_leave_standard_output_as_it_was(capsys: pytest.CaptureFixture[str]) -> None:
    before, both, left = sys.stdout, Barrier(3), Barrier(2)

    def first() -> None:
        with printing_aside():
            both.wait()
            print("one")
        left.wait()

    def second() -> None:
        with printing_aside():
            with printing_aside():
                both.wait()
            left.wait()
            print("two")

    threads = [Thread(target=each) for each in (first, second)]
    for thread in threads:
        thread.start()
    both.wait()
    print("mine")
    for thread in threads:
        thread.join()
    assert sys.stdout is before
    print("mine again")
    said = capsys.readouterr()
    assert said.out == "mine\nmine again\n"
    assert sorted(said.err.split()) == ["one", "two"]


def test_what_a_file_prints_when_it_is_run_goes_to_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    before = sys.stdout
    module_of(str(Path("own.py")), b"import sys\nprint('loaded')\nsys.stdout.flush()\n")
    with pytest.raises(ZeroDivisionError):
        module_of(str(Path("own.py")), b"print('fails')\n1 / 0\n")
    assert sys.stdout is before
    assert capsys.readouterr() == ("", "loaded\nfails\n")
