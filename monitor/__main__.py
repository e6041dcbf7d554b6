"""Entry point of `python -m monitor`, the command `monitor`."""

from monitor.cli import main

main()
