"""One command a file: its signature, and what it does with what it is given."""
