"""What outlives the helper: one file on the node, replaced whole after every change.

The file says which boot of the machine it is of; after another boot nothing in it is true any more.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from meshwake.clocks.movers.node_helper.answers import SavedState
from meshwake.clocks.movers.node_helper.protocol import PROTOCOL_VERSION

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def boot_id() -> str:
    """Which boot of which kernel this is."""
    return _BOOT_ID.read_text().strip()


def save_state(file: Path, values: SavedState) -> None:
    """Replaces the file; a reader finds the old one or the new one, never a part."""
    state = {"format": PROTOCOL_VERSION, "boot_id": boot_id(), **values}
    fresh = file.with_suffix(".new")
    fresh.write_text(json.dumps(state))
    fresh.replace(file)


def load_state(file: Path) -> SavedState | None:
    """What a helper before us has saved on this boot of the machine; None when there is nothing
    that counts."""
    try:
        state = json.loads(file.read_text())
    except FileNotFoundError:
        return None
    except ValueError as error:
        state = {"format": f"unreadable: {error}"}
    if state.get("format") != PROTOCOL_VERSION:
        # To refuse to start would be worse: what that helper moved is found again by the rules of a
        # take or a release.
        sys.stderr.write(f"{file}: not that of this version ({state.get('format')}); forgotten\n")
        return None
    if state["boot_id"] != boot_id():
        return None
    saved: SavedState = state
    return saved
