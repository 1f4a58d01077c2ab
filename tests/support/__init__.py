"""What tests of several folders share. Look here before writing a helper.

    paths.py              where things are in the repository
    scenarios.py          a small scenario as text, to change a line of
    plans.py              plans and their histories on the model, from the tables of a scenario
    histories.py          histories written by hand, for checks
    faults.py             a planned fault of every kind
    http_server.py        an HTTP server that answers as a test says
    api_server.py         an API server: answers to GET, ports and programs of pods
    fake_kubernetes.py    a cluster behind the interface of kubernetes/api.py, without HTTP
    kubeconfigs.py        a kubeconfig that leads to an address
    ports.py              free ports
    forecasts.py          forecasts compared with what then happened in a run
    fake_ztunnel.py       a program that the process lab takes for ztunnel
    processes.py          the state of a process
    unprivileged_user.py  programs run as a user without rights, by tests that root runs

Tests import these as `tests.support.NAME`.
"""
