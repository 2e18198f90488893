"""The commands, one a file: its flags, and the work that it does for them."""
