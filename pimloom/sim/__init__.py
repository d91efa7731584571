"""Tasks become time and numbers: Numba kernels, the SimPy engine, functional execution, results."""
