"""The language between mapping and simulation: programs, tasks, layouts, command traces and their checker."""
