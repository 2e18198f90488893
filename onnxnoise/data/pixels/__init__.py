"""The way of an image from its encoded bytes to the numbers that a model takes."""
