"""Shards of a run, joined, are the run; what does not belong together stays apart."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support import nets, processes
from support.command import onnxnoise, refused
from support.stores import DESCRIPTION, IDENTITY, opened, tally

from onnxnoise.errors import RunFileError, UsageError
from onnxnoise.machine import Memory
from onnxnoise.records import Tally
from onnxnoise.results.run_file.merge import merge
from onnxnoise.run import runner
from onnxnoise.run.experiment import Experiment
from onnxnoise.run.opening import open_run, shard_of, shard_size
from onnxnoise.spec import BenchSpec

FLAGS = ("--snr", "20,2", "--draws", "2")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> nets.Files:
    return nets.bench_files(tmp_path_factory.mktemp("merge"))


def bench(files: nets.Files, *flags: object) -> Any:
    return onnxnoise("bench", files.model, "--data", files.data, *FLAGS, *flags)


def test_shards_joined_are_the_run(files: nets.Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    whole = bench(files, "--out", "whole.sqlite")
    for number in (2, 3, 1):
        outcome = bench(files, "--out", f"{number}.sqlite", "--shard", f"{number}/3")
        assert outcome.code == 0, outcome.err
        images = 14 if number < 3 else 12
        assert f"shard {number}/3 done: {images} of 40 images, in {number}.sqlite" in outcome.out
        assert "onnxnoise merge" in outcome.out
        assert "accuracy" not in outcome.out, "a part of the images is no result"
        assert "clean top-1" in outcome.err, "its progress is the usual one"
        again = bench(files, "--out", f"{number}.sqlite", "--shard", f"{number}/3")
        assert (again.code, again.out) == (0, outcome.out)
        assert "nothing is left to measure" in again.err
    some = onnxnoise("merge", "1.sqlite", "2.sqlite", "-o", "joined.sqlite")
    assert some.code == 0, some.err
    assert "joined.sqlite: 50 tallies on 40 images in 3 chunks" in some.out
    assert "nothing is measured on 1 of the chunks (the first: images 28 to 39): is a shard missing?" in some.out
    rest = onnxnoise("merge", "joined.sqlite", "3.sqlite", "-o", "joined.sqlite")
    assert rest.out == (
        "weight noise, SNR = sigma_w / sigma_noise, sigma per tensor; batch norms: group\n"
        "joined.sqlite: 50 tallies (50 there already)\n3.sqlite: 25 tallies\n"
        "joined.sqlite: 75 tallies on 40 images in 3 chunks\n"
    )
    joined = bench(files, "--out", "joined.sqlite")
    assert (joined.code, joined.out) == (0, whole.out)
    assert "complete: nothing is left to measure" in joined.err
    assert len(processes.rows(Path("joined.sqlite"), "SELECT * FROM run")) == 3, "who measured which part is kept"
    for number in (1, 2, 3):
        assert set(processes.tallies(Path(f"{number}.sqlite"))) < set(processes.tallies(Path("joined.sqlite")))
    assert not list(tmp_path.glob("*-wal"))


def test_shards_of_the_default_design_end_apart_and_are_a_run_together(
    files: nets.Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    command = ("bench", files.model, "--data", files.data, "--snr", "20", "--sweep", "all")
    for number in (1, 2):
        outcome = onnxnoise(*command, "--out", f"{number}.sqlite", "--shard", f"{number}/2")
        assert f"shard {number}/2 done: 20 of 40 images" in outcome.out, outcome.err
    met = [processes.rows(Path(f"{n}.sqlite"), "SELECT draw, start FROM tally WHERE sweep = 'all'") for n in (1, 2)]
    assert sorted(met[0] + met[1]) == [(draw, draw % 10 * 4) for draw in range(30)]
    assert {start // 4 % 2 for _, start in met[0]} == {0}
    joined = onnxnoise("merge", "1.sqlite", "2.sqlite", "-o", "joined.sqlite")
    assert "is a shard missing?" not in joined.out
    done = onnxnoise(*command, "--out", "joined.sqlite")
    assert "complete: nothing is left to measure" in done.err
    assert "30 draws, each on 4 images" in done.out


def test_shards_in_one_file_are_the_run_too(files: nets.Files, tmp_path: Path) -> None:
    out = tmp_path / "run.sqlite"
    for number in (1, 2):
        assert bench(files, "--out", out, "--shard", f"{number}/2").code == 0
    done = bench(files, "--out", out)
    assert "complete: nothing is left to measure" in done.err
    assert done.out == bench(files, "--out", tmp_path / "whole.sqlite").out


@pytest.mark.parametrize(("count", "limit"), [(1, 40), (2, 40), (3, 40), (7, 40), (3, 17), (12, 9)])
@pytest.mark.parametrize("batch", ["N", 4])
@pytest.mark.parametrize("draws", [3, None])
def test_every_shard_lays_down_the_same_chunks(
    draws: int | None, count: int, limit: int, batch: int | str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = nets.bench_files(tmp_path, batch=batch)
    seen, taken = set(), []
    for number in range(1, count + 1):
        # what the machine has: no shard's chunks may depend on it
        monkeypatch.setattr(
            "onnxnoise.run.experiment.memory", lambda number=number: Memory(number * 1_400_000, None, None)
        )
        out = tmp_path / f"{number}.sqlite"
        spec = BenchSpec(str(files.model), data=str(files.data), shard=(number, count), limit=limit, out=str(out))
        spec = replace(spec, draws=draws)
        run = open_run(Experiment.opened(spec))
        seen.add(tuple(run.store.chunks()))
        taken += [job.chunk for job in run.todo]
        run.store.close()
    (chunks,) = seen
    assert sorted(taken, key=lambda chunk: chunk.start) == list(chunks)
    assert sorted(position for chunk in chunks for position in chunk) == list(range(limit))
    least = -(-limit // count) if draws else 4
    assert least <= max(map(len, chunks)) < least + (batch if isinstance(batch, int) else 1)


def test_large_sets_are_cut_so_that_shards_are_equal(files: nets.Files) -> None:
    experiment = Experiment.opened(BenchSpec(str(files.model), data=str(files.data), shard=(1, 8)))
    assert shard_size(experiment, 50_000) == -(-50_000 // (8 * 7)), "seven chunks of at most 1,000 for each"
    assert shard_size(experiment, 10_000) == 625
    chunks = [range(i, i + 1) for i in range(10)]
    for count in (1, 3, 8, 12):
        parts = [shard_of(chunks, replace(experiment.spec, shard=(i, count))) for i in range(1, count + 1)]
        assert sorted(chunk.start for part in parts for chunk in part) == list(range(10))


def test_a_shard_has_no_result(files: nets.Files) -> None:
    spec = BenchSpec(str(files.model), data=str(files.data))
    with pytest.raises(UsageError, match="measure_shard"):
        runner.bench(replace(spec, shard=(1, 2)))
    with pytest.raises(UsageError, match="--shard 3/8"):
        runner.measure_shard(spec)


def part(path: Path, start: int, *others: Tally, digest: str = "d", chunk: int = 8, **changed: Any) -> Path:
    """A run file of 24 images with one tally on the chunk at `start`."""
    with opened(path, images=0, **changed) as store:
        store.lay_down(24, lambda: chunk)
        store.check_images(start, digest)
        store.append([tally(start=start), *others])
        store.begin({"command": path.name})
    return path


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"seed": 41}, ["another seed", "(41 against 40)"]),
        ({"model": "c" * 64}, ["another model", "net, digest cccccccc", "net, digest aaaaaaaa"]),
        ({"data": "c" * 64}, ["another data"]),
        ({"bn": "affine"}, ["another bn", '("affine" against "group")']),
        ({"layers": [1, 2]}, ["another layers", "(1-2 against 1-3,5)"]),
        (
            {"preprocessing": {"size": 33, "mean": [0.5, 0.5, 0.5], "layout": "nchw"}},
            ["preprocessing size", "(33 against 32)"],
        ),
        ({"provider": "CUDAExecutionProvider"}, ["another provider"]),
    ],
)
def test_another_run_is_not_joined(changed: dict[str, Any], words: list[str], tmp_path: Path) -> None:
    one, two, out = part(tmp_path / "one", 0), part(tmp_path / "two", 8, **changed), tmp_path / "out"
    refused(onnxnoise("merge", one, two, "-o", out), 3, f"{two}: holds a run with", str(one), *words)
    assert not out.exists()


def test_a_target_of_another_run_stays_as_it_is(tmp_path: Path) -> None:
    one, two, out = (part(tmp_path / name, 0) for name in ("one", "two", "out"))
    other = part(tmp_path / "other", 8, seed=41)
    before = processes.tallies(other)
    refused(onnxnoise("merge", one, two, "-o", other), 3, "other: holds a run with another seed")
    assert processes.tallies(other) == before
    text = tmp_path / "precious.txt"
    text.write_text("precious " * 1000)
    refused(onnxnoise("merge", one, two, "-o", text), 3, "not an onnxnoise run file")
    assert text.read_text() == "precious " * 1000
    assert merge([one, two], out).tallies == 1


def test_other_chunks_are_not_joined(tmp_path: Path) -> None:
    one, two, out = part(tmp_path / "one", 0), part(tmp_path / "two", 12, chunk=12), tmp_path / "out"
    with pytest.raises(
        RunFileError, match=r"two: cuts the images into other chunks than .*one.*0 to 11.*0 to 7.*--shard I/N"
    ):
        merge([one, two], out)
    assert not out.exists()
    with pytest.raises(RunFileError, match="other chunks"):
        merge([one, part(tmp_path / "three", 0)], two)


def test_a_run_over_fewer_images_is_a_part(tmp_path: Path) -> None:
    with opened(tmp_path / "short") as store:
        store.lay_down(8, lambda: 8)
        store.append([tally(start=0)])
    done = merge([tmp_path / "short", part(tmp_path / "long", 8)], tmp_path / "out")
    assert (done.images, done.chunks, done.tallies) == (24, 3, 2)
    with opened(tmp_path / "out") as store:
        assert store.chunks() == [range(8), range(8, 16), range(16, 24)]


def test_other_images_are_not_joined(tmp_path: Path) -> None:
    one, two, out = part(tmp_path / "one", 8), part(tmp_path / "two", 8, digest="other"), tmp_path / "out"
    with pytest.raises(RunFileError, match=r"two: its images from number 8 on are not those"):
        merge([one, two], out)
    assert not out.exists()


@pytest.mark.parametrize(
    ("other", "what"),
    [
        (
            Tally("single", 3, 2.5, 7, 8, 8, b"\x01", b"\xff", b"\x00", 3),
            "single, layer 3, SNR 2.5, draw 7, images 8 to 15",
        ),
        (Tally("all", None, 2.5, 7, 8, 8, b"\x00", b"\xfe", b"\x00", 3), "all, SNR 2.5, draw 7, images 8 to 15"),
        (Tally("clean", None, float("inf"), 0, 8, 8, b"\x00", b"\xff", b"\x80", 3), "(clean, images 8 to 15)"),
        (Tally("clean", None, float("inf"), 0, 8, 8, b"\x00", b"\xff", b"\x00", 4), "(clean, images 8 to 15)"),
    ],
)
def test_the_same_tally_with_other_hits_is_not_joined(other: Tally, what: str, tmp_path: Path) -> None:
    kept = replace(other, top1=b"\x00", top5=b"\xff", nonfinite=b"\x00", negative_variances=3)
    one, two, out = part(tmp_path / "one", 8, kept), part(tmp_path / "two", 8, other), tmp_path / "out"
    refused(onnxnoise("merge", one, two, "-o", out), 3, f"{two}: has other hits", what, "processor type")
    assert not out.exists()
    before = processes.tallies(one)
    refused(onnxnoise("merge", two, one, "-o", one), 3, "has other hits")
    assert processes.tallies(one) == before, "all of it or nothing"
    assert merge([one, one], out).sources == ((one, 2, 0), (one, 2, 2))


def test_what_can_t_be_joined_is_said(tmp_path: Path) -> None:
    one = part(tmp_path / "one", 0)
    refused(onnxnoise("merge", one, tmp_path / "missing", "-o", tmp_path / "out"), 3, "missing: no such run file")
    refused(onnxnoise("merge", one, "-o", tmp_path / "out"), 2, "at least two")
    refused(onnxnoise("merge", one, one), 2, "-o")
    refused(onnxnoise("merge", one, one, "-o", one / "out"), 3, "its folder can't be made")
    assert [file.name for file in tmp_path.iterdir()] == ["one"]
    assert (IDENTITY["seed"], DESCRIPTION["model"]) == (40, "net")
