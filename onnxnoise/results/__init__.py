"""Run files, and the results that are computed from their tallies; nothing here knows ONNX."""
