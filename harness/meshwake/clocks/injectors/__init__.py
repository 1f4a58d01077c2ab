"""Ways to move the clocks of one program, under one contract (`meshwake clock`)."""
