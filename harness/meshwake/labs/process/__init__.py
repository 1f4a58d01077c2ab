"""The process lab: real ztunnel binaries, their clocks moved, idle time skipped."""
