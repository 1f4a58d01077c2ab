"""What tests of several folders share. Look here before writing a helper.

    paths.py              where things are in the repository
    scenarios.py          a small scenario as text, to change a line of
    plans.py              plans and their histories on the model, from the tables of a scenario
    histories.py          histories written by hand, for checks
    http_server.py        an HTTP server that answers as a test says
    ports.py              free ports
    forecasts.py          forecasts compared with what then happened in a run
    fake_ztunnel.py       a program that the process lab takes for ztunnel
    processes.py          the state of a process
    unprivileged_user.py  programs run as a user without rights, by tests that root runs

Tests import these as `tests.support.NAME`.
"""
