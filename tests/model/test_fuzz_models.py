"""Whatever is done to a model file, `onnxnoise layers` ends soon, in bounded memory, with a table or a reason.

`python tests/fuzz.py --minutes N` goes on for longer.
"""

from __future__ import annotations

from itertools import islice
from pathlib import Path

from support import graphs
from support.command import onnxnoise, refused
from support.fuzzing import failures
from support.model_mutants import SEEDS, mutants

COUNT = 300


def test_the_seeds_themselves_are_read(tmp_path: Path) -> None:
    files = [(name, make().SerializeToString()) for name, make in SEEDS.items()]
    assert [(found.what, found.how) for found in failures(files, tmp_path)] == []


def test_mutated_models_end_with_a_table_or_a_reason(tmp_path: Path) -> None:
    found = list(failures(islice(mutants(40), COUNT), tmp_path))
    assert [(each.what, each.how) for each in found] == []


def test_a_weight_without_values_is_refused(tmp_path: Path) -> None:
    """Found by `tests/fuzz.py --seed 7`."""
    net = (
        "(float[N,3,8,8] x, float[4,3,3,3] w, float[0,4] k, float[5,4] fw) => (float[N,5] y) { c = Conv(x, w)"
        " g = GlobalAveragePool(c)  f = Flatten(g)  e = Gemm<transB = 1>(f, k)  j = Concat<axis = 1>(f, e)"
        " y = Gemm<transB = 1>(j, fw) }"
    )
    refused(onnxnoise("layers", graphs.saved(graphs.model(net), tmp_path)), 3, "'k'", "has no values")
