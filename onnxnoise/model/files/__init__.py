"""An ONNX file as bytes: a stub without its payload, the tensors beside it, and ONNX's own rules."""
