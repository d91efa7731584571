"""Results become joules, tables, figures and comparisons with published numbers."""
