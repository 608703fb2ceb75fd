"""`python -m edgelip`."""

from edgelip.cli import main

main()
