"""Questions asked of many runs at once."""
