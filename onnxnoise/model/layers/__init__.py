"""Groups initializers into noise layers: the operators that hold them, their order, their names, honest warnings."""
