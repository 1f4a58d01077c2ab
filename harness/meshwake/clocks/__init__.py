"""The subject of this program: reading clocks and moving them."""
