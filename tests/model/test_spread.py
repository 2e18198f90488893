from __future__ import annotations

import numpy as np
import pytest

from onnxnoise.model.spread import pooled_sigma, sigma


@pytest.mark.parametrize("size", [2, 3, 1000, (1 << 22) + 3])
def test_standard_deviations_in_float64(size: int) -> None:
    values = np.random.default_rng(size).normal(1000, 0.01, size).astype(np.float32)
    np.testing.assert_allclose(sigma(values), values.astype(np.float64).std(), rtol=1e-9)
    parts = [values[: size // 2], values[size // 2 :] * np.float32(3), np.float32([])]
    together = np.concatenate([part.astype(np.float64) for part in parts])
    np.testing.assert_allclose(pooled_sigma(parts), together.std(), rtol=1e-9)


def test_nothing_has_no_deviation() -> None:
    assert sigma(np.float32([5])) == 0
    assert sigma(np.full(100, 0.1, np.float32)) == 0
