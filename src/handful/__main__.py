"""`python -m handful`."""

from handful.cli.main import main

main()
