"""What a machine remembers of its sleep: its journals, turned into the faults of a scenario.

    formats.py   which kind of journal is this? opens it as text, whatever its encoding
    systemd.py   `journalctl -o json`: each entry carries wall and monotonic time, so every jump is measured, not
    believed pmset.py     macOS, `pmset -g log`
    windows.py   Windows event logs as XML or CSV; Hyper-V's worker log too
    libvirt.py   `virsh event`, `virsh qemu-monitor-event`, QMP, the log of a domain
    items.py     what all of them yield, and the tally of what was understood
    sleep_history.py  items -> sleeps, steps and boots in order
    scenario_writer.py  ... -> the text of a scenario

All read as a stream: a file of any size takes little memory. What is not understood is counted and
shown, never skipped in silence. docs/sleep-journals.md has the commands that make each kind.
"""
