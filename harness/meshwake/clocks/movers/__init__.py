"""Ways to move a node's clocks, and to restore them."""
