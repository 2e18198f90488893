"""The output that a person sees in a terminal: tables, verdicts, progress and errors."""
