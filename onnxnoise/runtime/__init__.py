"""The only door to ONNX Runtime: sessions, providers, its optimizer."""
