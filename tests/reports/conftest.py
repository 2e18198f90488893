"""The run files that most tests of reports use."""

from __future__ import annotations

import pytest
from support.runfiles import RunFile


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFile:
    return RunFile(tmp_path_factory.mktemp("report") / "net.sqlite", names=("conv1", "bn1", "fc", "bn2"), draws=4)


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> RunFile:
    return RunFile(tmp_path_factory.mktemp("report") / "other.sqlite", model="other", seed=1, snrs=(100.0, 2.5))
