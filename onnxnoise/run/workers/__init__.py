"""Those who measure: this process, other processes of this machine, the workers of a cluster."""
