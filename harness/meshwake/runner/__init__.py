"""Choosing cases, running them, and what belongs to that."""
