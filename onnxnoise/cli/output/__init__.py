"""What a person sees in a terminal: tables, verdicts, progress and errors."""
