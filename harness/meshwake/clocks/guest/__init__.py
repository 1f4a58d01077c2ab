"""Clocks of a QEMU guest, and the guest itself."""
