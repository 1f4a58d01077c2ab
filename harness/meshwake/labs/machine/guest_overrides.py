"""Settings of ztunnel that are overridden inside a guest.

A ztunnel that gets the file of the authority's root certificate watches it (1.31 and newer): a
thread that wakes twice a second for ever, which in an emulated machine is most of what an idle hour
costs. Given the certificate itself, as the same option allows in every release, it has nothing to
watch. Nothing else depends on it; what does (the fault `ca_root_change`) is refused before the run.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from meshwake.labs.process.dedicated import Dedicated
from meshwake.labs.process.workloads import ZtunnelSpec


def guest_overrides(root_pem: str) -> dict[str, str]:
    """To be merged over the settings of the process lab."""
    return {"CA_ROOT_CA": root_pem}


class DedicatedInGuest(Dedicated):
    """See modes.Mode."""

    def environment(self, spec: ZtunnelSpec, root_file: Path) -> Mapping[str, str]:
        """See modes.Mode."""
        return dict(super().environment(spec, root_file)) | guest_overrides(root_file.read_text())
