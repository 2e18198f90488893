"""From an encoded image to the numbers that a model takes."""
