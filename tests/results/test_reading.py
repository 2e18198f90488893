"""Run files are read where nothing may be written, and a run notices that its file is no longer there."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from support import nets
from support.command import onnxnoise, refused
from support.runfiles import RunFile
from support.stores import opened, tally

from onnxnoise.errors import Interrupted, RunFileError
from onnxnoise.results.reading import open_run_file
from onnxnoise.results.run_file.database import Database
from onnxnoise.results.run_file.store import RunStore
from onnxnoise.run import runner
from onnxnoise.run.watching import Silent
from onnxnoise.spec import BenchSpec

NOBODY = 65534
AS_NOBODY = f"import os; os.setgid({NOBODY}); os.setuid({NOBODY})\n"
ROOT = hasattr(os, "geteuid") and os.geteuid() == 0


def as_nobody(code: str, path: Path) -> tuple[int, str]:
    """(exit code, last line of standard error) of a Python that may write nowhere in the folder of `path`."""
    before = AS_NOBODY if ROOT else ""
    code = f"import sys; from pathlib import Path; import onnxnoise\nfrom onnxnoise import load\n{before}path = Path(sys.argv[1])\n{code}"
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=False)
    return done.returncode, (done.stderr.splitlines() or [""])[-1]


@pytest.fixture
def locked(tmp_path: Path) -> Any:
    """A folder that others may read and enter."""
    folder = Path("/tmp") / f"onnxnoise-locked-{os.getpid()}-{tmp_path.name}"
    folder.mkdir()
    yield folder
    folder.chmod(0o755)
    shutil.rmtree(folder)


def test_a_file_that_may_only_be_read(locked: Path) -> None:
    made = RunFile(locked / "run.sqlite", sweeps=("all",))
    made.path.chmod(0o444)
    locked.chmod(0o555)
    assert as_nobody("assert len(load(path)) == 2", made.path) == (0, "")
    assert [each.name for each in locked.iterdir()] == ["run.sqlite"]


def test_what_lies_beside_a_file_that_may_only_be_read(locked: Path) -> None:
    with opened(locked / "run.sqlite") as store:
        store.append([tally()])
        copy = locked / "copy.sqlite"
        shutil.copyfile(store.path, copy)
        shutil.copyfile(f"{store.path}-wal", f"{copy}-wal")
    locked.chmod(0o555)
    code, said = as_nobody("load(path)", copy)
    assert code == 1
    assert "copy.sqlite-wal" in said
    assert "copy both" in said
    locked.chmod(0o755)
    with RunStore.existing(copy) as store:
        assert len(store.done()) == 1


def test_reading_beside_a_run_that_writes(tmp_path: Path) -> None:
    path = tmp_path / "run.sqlite"
    with opened(path) as store:
        store.append([tally()])
        with RunStore.existing(path) as reader:
            store.append([tally(draw=1)])
            assert len(reader.done()) == 2
            with pytest.raises(RunFileError):
                Database(tmp_path / "none.sqlite", "ro")
    assert [each.name for each in tmp_path.iterdir()] == ["run.sqlite"]


def test_every_row_is_verified(tmp_path: Path) -> None:
    made = RunFile(tmp_path / "run.sqlite", sweeps=("all",), asked={"draws": 3})
    with RunStore.existing(made.path) as store:
        assert store.verify() == 3 + 1 + 3 + 3 * (1 + 2 * 3), "records, the run, chunks, tallies"
    content = made.path.read_bytes().replace(b"conv1.weight", b"conv2.weight")
    made.path.write_bytes(content)
    with (
        pytest.raises(RunFileError, match="table record the row of description"),
        RunStore.existing(made.path) as store,
    ):
        store.verify()


class Meanwhile(Silent):
    """Does something to the run file once, at the third tally."""

    def __init__(self, act: Callable[[], None]) -> None:
        self.act, self.seen = act, 0

    def measured(self, tally: object) -> None:
        self.seen += 1
        if self.seen == 3:
            self.act()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> nets.Files:
    return nets.bench_files(tmp_path_factory.mktemp("moved"), count=24)


def spec(files: nets.Files, out: Path) -> BenchSpec:
    return BenchSpec(str(files.model), data=str(files.data), out=str(out), snrs=(10.0,), draws=2)


def other(path: Path) -> None:
    path.unlink()
    path.write_bytes(b"something else")


@pytest.mark.parametrize(
    ("act", "found"), [(Path.unlink, "it was removed"), (other, "another file was put in its place")]
)
def test_a_run_file_that_is_gone(act: Any, found: str, files: nets.Files, tmp_path: Path) -> None:
    out, whole = tmp_path / "run.sqlite", tmp_path / "whole.sqlite"
    runner.bench(spec(files, whole))
    with pytest.raises(RunFileError, match=rf"run\.sqlite: {found}.*run\.rescued\.sqlite.*goes on") as raised:
        runner.bench(spec(files, out), Meanwhile(lambda: act(out)))
    assert raised.value.exit_code == 3
    with suppress(FileNotFoundError):
        assert out.read_bytes() == b"something else"
        out.unlink()
    rescued = tmp_path / "run.rescued.sqlite"
    with RunStore.existing(rescued) as store:
        assert store.done()
    rescued.rename(out)
    runner.bench(spec(files, out))
    assert open_run_file(out).result.cells == open_run_file(whole).result.cells


def test_a_run_file_that_is_written_over(files: nets.Files, tmp_path: Path) -> None:
    out = tmp_path / "run.sqlite"
    with pytest.raises(RunFileError, match=r"run\.sqlite: ") as raised:
        runner.bench(spec(files, out), Meanwhile(lambda: os.truncate(out, 0)))
    assert raised.value.exit_code == 3


def test_a_run_file_that_is_gone_at_the_end(files: nets.Files, tmp_path: Path) -> None:
    out = tmp_path / "run.sqlite"
    with pytest.raises(RunFileError, match=r"run\.rescued\.sqlite"), runner.measured_run(spec(files, out)):
        out.unlink()
    out.write_bytes(b"")
    with pytest.raises(RunFileError, match=r"run\.rescued-2\.sqlite"), runner.measured_run(spec(files, out)):
        out.unlink()


def test_what_was_kept_is_said(files: nets.Files, tmp_path: Path) -> None:
    def stop() -> None:
        raise KeyboardInterrupt

    with pytest.raises(Interrupted, match=r"run\.sqlite.*same command"):
        runner.bench(spec(files, tmp_path / "run.sqlite"), Meanwhile(stop))
    with (
        pytest.raises(Interrupted, match="nothing was measured yet"),
        runner.measured_run(
            spec(files, tmp_path / "early.sqlite"),
            stop,  # type: ignore[arg-type]
        ),
    ):
        pass


def test_confidence_beyond_all_draws_is_refused(tmp_path: Path) -> None:
    made = RunFile(tmp_path / "run.sqlite", sweeps=("all",))
    rules = tmp_path / "rules.toml"
    rules.write_text('[[rule]]\nname = "sure"\nsnr = 10\nmin = 0.5\nconfidence = 0.9999999999999999\n')
    refused(onnxnoise("gate", made.path, "--rules", rules), 3, "confidence = 0.9999999999999999", "at most 0.999999")
    rules.write_text('[[rule]]\nname = "sure"\nsnr = 10\nmin = 0.5\nconfidence = 0.999999\n')
    assert onnxnoise("gate", made.path, "--rules", rules).code == 5
