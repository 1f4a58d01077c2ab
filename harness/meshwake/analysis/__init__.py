"""Analyses of many runs: which fix holds, since which version, what is new tonight, what breaks
it."""
