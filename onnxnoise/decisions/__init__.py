"""Decisions drawn from run files: which model is more robust, whether a build may ship, which layers to keep digital."""
