"""pimloom: a cycle-accurate, functionally proven simulator for processing-in-memory LLM accelerators."""

__version__ = "0.1.0"
