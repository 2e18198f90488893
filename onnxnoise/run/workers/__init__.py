"""The workers that measure a run: this process, other processes of this machine, or the workers of a cluster."""
