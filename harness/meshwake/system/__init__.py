"""One of each helper around processes and waiting."""
