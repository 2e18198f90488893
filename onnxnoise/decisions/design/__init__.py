"""What to build: the most noise that is bearable, layers to keep digital, one chip as a file."""
