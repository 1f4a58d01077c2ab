"""How fast the labs are, and what they need: `make bench`. Ratios to compare with yesterday's, not
limits.

__main__.py   every part in a process of its own, then the table and build/bench.json start.py
what starting costs, compared with pytest --version model.py      lab model, compared with simpy's
bare loop process.py    lab process, on every ztunnel of the cache, and on a program that polls
clocks.py     what a call of clock_gettime costs, untouched and rewritten calls.py      ... as
counted inside one process, by a loop in machine code use.py        peaks of memory, time on a CPU
numbers.py    a measured number, and how a part hands its numbers over profile.py    where the
runner of lab process spends its time (by hand: python -m tests.bench.profile)"""
