"""The rewrites in the order in which they must happen."""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir

from onnxnoise.model.passes.batch_norms import restore_batch_norms
from onnxnoise.model.passes.einsum import restore_products
from onnxnoise.model.passes.filled_shapes import expand_parameters
from onnxnoise.model.passes.precision import to_single
from onnxnoise.model.passes.prelu import restore_prelu
from onnxnoise.model.passes.shapes import fold_sequences, fold_shapes
from onnxnoise.model.passes.standardized_kernels import compute_standardized
from onnxnoise.model.passes.subtracted_biases import add_subtracted_biases
from onnxnoise.model.passes.zero_biases import drop_zero_biases
from onnxnoise.records import Shape


def rewrite(model: ir.Model, shapes: Mapping[str, Shape]) -> None:
    """Rewrite a model in place; `shapes` has the shapes of its values by name, where they are known."""
    to_single(model)
    fold_shapes(model, shapes)
    fold_sequences(model)
    compute_standardized(model, shapes)
    expand_parameters(model)
    restore_products(model, shapes)
    drop_zero_biases(model)
    restore_batch_norms(model, shapes)
    add_subtracted_biases(model)
    restore_prelu(model)
