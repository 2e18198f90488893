"""Readers of data sets, one layout a file."""
