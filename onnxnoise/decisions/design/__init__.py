"""Answers for who designs hardware: the most noise that is bearable, layers to keep digital, one chip as a file."""
