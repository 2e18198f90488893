"""The examples in the docstrings of the package's own functions say what happens."""

from __future__ import annotations

import doctest
from importlib import import_module
from pathlib import Path

import pytest

import onnxnoise


@pytest.mark.parametrize("name", ["apply", "bench", "compare", "gate", "load", "margin", "plan"])
def test_the_example_of(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    function = getattr(onnxnoise, name)
    module = import_module(function.__module__)
    found = doctest.DocTestFinder(recurse=False).find(function, name, module)
    assert [len(test.examples) > 0 for test in found] == [True]
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    assert runner.run(found[0]).failed == 0
