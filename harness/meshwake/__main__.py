"""`python -m meshwake` is `meshwake`."""

from meshwake.cli.main import main

main()
