"""From any exporter's ONNX file to a normalized network with its noise layers."""
