"""Choosing cases, running them, and what is asked around that."""
