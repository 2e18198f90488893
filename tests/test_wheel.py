"""The wheel has all that the package needs, and works where the repository is not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from support import schema

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    python("-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("installed")
    python(
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--no-compile",
        "--disable-pip-version-check",
        "--target",
        folder,
        wheel,
    )
    return folder


def python(*arguments: object, path: Path | None = None, where: Path | None = None) -> str:
    done = subprocess.run(
        [sys.executable, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        cwd=where,
        env={**os.environ, **({"PYTHONPATH": str(path)} if path else {})},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_contents(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        (metadata,) = (archive.read(name).decode() for name in names if name.endswith("dist-info/METADATA"))
        (entry_points,) = (archive.read(name).decode() for name in names if name.endswith("entry_points.txt"))
    assert {name.split("/")[0].split("-")[0] for name in names} == {"onnxnoise"}, "one import name, and its dist-info"
    assert "onnxnoise/py.typed" in names
    source = {f"onnxnoise/{file.relative_to(ROOT / 'onnxnoise')}" for file in (ROOT / "onnxnoise").rglob("*.py")}
    data = {
        f"onnxnoise/{file.relative_to(ROOT)}"
        for folder in ("model_cards", "datasets")
        for file in (ROOT / folder).iterdir()
    }
    assert sorted((source | data) - names) == []
    assert sorted(name for name in names if "dist-info" not in name and name not in source | data) == [
        "onnxnoise/ARCHITECTURE.md",
        "onnxnoise/STATISTICS.md",
        "onnxnoise/py.typed",
        "onnxnoise/reports/page.css",
        "onnxnoise/reports/page.html",
        "onnxnoise/reports/page.js",
        "onnxnoise/reports/reading.html",
    ]
    assert "onnxnoise = onnxnoise.cli:main" in entry_points
    assert "License-Expression: MIT" in metadata


def test_the_bundled_model_is_measured_away_from_the_repository(installed: Path, tmp_path: Path) -> None:
    home = python("-c", "import onnxnoise; print(onnxnoise.__file__)", path=installed, where=tmp_path)
    assert Path(home.strip()).is_relative_to(installed)
    listed = json.loads(
        python("-m", "onnxnoise", "layers", "resnet20-cifar10", "--json", "-", path=installed, where=tmp_path)
    )
    schema.layer_list(listed)
    flags = ("--limit", 40, "--snr", 10, "--draws", 1, "--layers", "1-2", "--json", "-")
    result = json.loads(python("-m", "onnxnoise", "bench", "resnet20-cifar10", *flags, path=installed, where=tmp_path))
    schema.result(result)
    assert result["layers"] == listed["layers"]
    assert result["dataset"]["images"] == 40
    assert result["clean"]["top1_hits"] > 30
    assert [file.suffix for file in tmp_path.iterdir()] == [".sqlite"]
