"""A run from start to end: the experiment is opened; tallies that its run file lacks are scheduled, measured and kept."""
