"""`python -m ubhpd` is the command `ubhpd`."""

from ubhpd.cli import main

main()
