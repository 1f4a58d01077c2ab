"""`python -m meshwake` is `meshwake`."""

from meshwake.cli.app import main

main()
