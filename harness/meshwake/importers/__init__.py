"""Reads how a machine slept from its journals, and turns that into the faults of a scenario.

    formats.py          detects the kind of a journal, and opens it as text in any encoding
    systemd.py          the systemd journal: each entry has wall and monotonic time, so jumps are measured
    entries.py          its entries, from each form of journalctl
    pmset.py            macOS, `pmset -g log`
    windows.py          Windows event logs as XML or CSV; Hyper-V's worker log too
    libvirt.py          `virsh event`, `virsh qemu-monitor-event`, QMP, the log of a domain
    items.py            what all of them yield, and the tally of what was understood
    placement.py        places what was read on one calendar
    sleep_history.py    items -> sleeps, steps and boots in order
    scenario_writer.py  ... -> the text of a scenario

All read as a stream: a file of any size takes little memory. What is not understood is counted and
shown, never skipped in silence. docs/sleep-journals.md has the commands that make each kind.
"""
