"""Frozen descriptions of a machine, read from YAML, and their resolution into integer tables."""
