"""A run from start to end: the experiment is opened, what its run file lacks is scheduled, measured by workers and kept."""
