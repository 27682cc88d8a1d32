"""`python -m indigo` is the `indigo` command."""

from indigo.cli.main import main

main()
