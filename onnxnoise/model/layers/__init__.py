"""Initializers grouped into noise layers: which operator holds them, their order, their names, honest warnings."""
