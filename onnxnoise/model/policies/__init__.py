"""What noise means for a batch norm: the policies of `--bn`."""
