"""What a person sees in the terminal, a file for each kind of output (with progress.py the only ones that know rich)."""
