"""Bringing clusters up and down, on simulated engines and APIs."""
