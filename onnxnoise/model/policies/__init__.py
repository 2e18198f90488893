"""The policies of `--bn` and `--analog`: the tensors that bear noise in a batch norm, and in other layers."""
