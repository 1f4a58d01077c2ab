"""Questions asked of many runs: since which version, which class, what tonight."""
