"""Intervals, tests and stopping rules for noisy accuracies; numbers in, numbers out."""
