"""Run files, and what is computed from their tallies; nothing here knows ONNX."""
