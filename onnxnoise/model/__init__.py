"""Turns any exporter's ONNX file into a normalized network with its noise layers."""
