"""Runs held against rules: a verdict, and the reports that pipelines read."""
