"""Operators become tasks: layouts, lowerings per operator and device kind, the plan of a run."""
