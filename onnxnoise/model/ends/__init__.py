"""The two ends of a network: the image input, and the logits that rank the classes."""
