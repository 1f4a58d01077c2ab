"""The helper on a node: puts chosen programs under a clock page, those that run and those started
later.

    python -m meshwake.clocks.movers.node_helper serve --socket S --state F
        in a privileged container that sees all processes of the node
    python -m meshwake.clocks.movers.node_helper send --socket S '{"version": 3, "do": "list"}'
        one request (- : each line of standard input), by `kubectl exec` into that container

    __main__.py    the two commands
    server.py      the socket: requests in, answers out, nothing ever stuck
    client.py      one request to it
    protocol.py    what a request may say; every value checked
    node.py        what each request does
    rules.py       which programs are meant
    pages.py       the two clock pages of a node, and who is on them
    programs.py    finding programs: scans, and the watch over execs
    sleep.py       stopping programs and waking them, whatever becomes of us
    idleness.py    does every program wait for something to happen?
    lease.py       whose the node is, and when the owner counts as gone
    state.py       what outlives the helper
    processes.py   what /proc shows of a process

How clocks are kept from going back for a program that runs: an offset of the monotonic clock goes
down only at the end of a `sleep`, by no more than that sleep has lasted, and what is ahead is never
detached. Without `ends` no monotonic clock may be ahead, so detaching moves it forward. With
`ends` clocks may be ahead by days, and at the release a program that is ahead is ended (SIGKILL),
those that keep their monotonic clock first; kubelet starts them again, and they are not caught any
more. So no program that is right asks istiod while that is ahead: where no such program runs, a
release without a request (a lease that ran out) waits for those of the other nodes.

When the helper ends:
    killed     programs keep running with the clocks that they have; execs that wait go on; a
               `sleep` is brought to its end by a child of its own. Started again, it finds page,
               rules and lease again (state file, /proc).
    SIGTERM    everything is released.
    stuck      an alarm ends it after 30 s, because an exec may be waiting for its answer.
    forgotten  when the owner sends nothing for `lease_s` it releases everything, and reports in
               `list` (`given_up`) of whom, how far clocks were moved, and which programs began on
               moved clocks, until the next take. Only time counts in which it was awake to receive:
               neither that of a machine that slept nor its own.
"""
