"""Noise models: what one draw of a tensor is, and what a level does to it."""
