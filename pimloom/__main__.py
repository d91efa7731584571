"""`python -m pimloom` is the command `pimloom`."""

from pimloom.cli import main

main()
