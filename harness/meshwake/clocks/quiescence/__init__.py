"""Is every program idle, and until when: the question that skipping idle time rests on."""
