"""Is every program idle, and until when: what skipping idle time rests on."""
