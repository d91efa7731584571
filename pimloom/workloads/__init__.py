"""Models, operators, weights and requests: everything about the work, nothing about the machine."""
