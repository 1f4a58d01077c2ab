"""`python -m harness` is `meshwake`."""

from harness.cli import main

main()
