"""Questions asked of many runs: which fix holds, since which version, what tonight, what breaks it."""
