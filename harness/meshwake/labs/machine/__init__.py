"""Lab `machine`: the process lab inside a QEMU guest whose kernel is really suspended, or paused
from outside."""
