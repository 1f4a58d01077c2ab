"""Values that all the others hand to one another."""
