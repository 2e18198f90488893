"""Rewrites of a graph before ONNX Runtime's optimizer sees it, one a file."""
