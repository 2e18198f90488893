"""Reports of runs: a page, an image or rows. Importing this package or its list of figures loads nothing else."""
