"""Shows what came out: to a program (result), to a person at a terminal (terminal). It computes no
verdict."""
