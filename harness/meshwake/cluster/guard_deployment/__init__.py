"""The wake guard as a user deploys it, until it is uninstalled: not the one of a run.

manifest.py   its objects, from the one manifest in clusters/fixes/wake-guard
image.py      which image it runs, and what to do where there is none
install.py    install, wait until every node is guarded, uninstall
status.py     what the guard of each node reports
alerts.py     the alert rules and the scrape configuration that belong to it
"""
