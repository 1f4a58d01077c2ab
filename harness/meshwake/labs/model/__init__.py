"""Lab `model`: ztunnel's renewal algorithms on virtual clocks. Runs anywhere; a week takes
milliseconds."""
