"""Experiments, each a file with its command on top."""
