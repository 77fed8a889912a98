"""`python -m engine` is the `viewfinder` command."""

from engine.app.cli import main

main()
