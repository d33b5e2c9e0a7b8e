"""``python -m vrft`` is the command ``vrft``."""

from vrft.cli import main

main()
