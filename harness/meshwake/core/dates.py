"""Dates for the moments of a run whose days people know: a month that really happened, or a
scenario with its own beginning."""

from __future__ import annotations

from dataclasses import dataclass

from meshwake.core.zones import UTC_ZONE, Zone, offset_text, zone_of


@dataclass(frozen=True)
class Dates:
    """The calendar of a run. `from_wall_s`: Unix time at world time 0; dates are those of `zone`."""

    from_wall_s: int
    zone: Zone = UTC_ZONE

    def to_the_minute(self, world_s: int) -> str:
        """'Tue 2026-11-24 15:57'. Where clocks show that twice, the offset is behind it."""
        return self._text(world_s, "%a %Y-%m-%d %H:%M")

    def to_the_second(self, world_s: int) -> str:
        """'Tue 2026-11-24 15:57:02', likewise."""
        return self._text(world_s, "%a %Y-%m-%d %H:%M:%S")

    def _text(self, world_s: int, form: str) -> str:
        wall_s = self.from_wall_s + world_s
        shown = f"{self.zone.local(wall_s):{form}}"

        # In the hour that comes twice, when summer time ends.
        if self.zone.is_repeated(wall_s):
            offset_s = self.zone.offset_s(wall_s)
            return f"{shown} {offset_text(offset_s)}"
        return shown


def dates_of(from_wall_s: int | None, zone: str | None) -> Dates | None:
    """The calendar that a plan or a row of results has; None where it has none. `zone`: as text,
    None for UTC. Raises ValueError for a zone that this machine does not know."""
    if from_wall_s is None:
        return None
    if zone is None:
        return Dates(from_wall_s)
    return Dates(from_wall_s, zone_of(zone))
