"""meshwake forecast: when it will break next, for which workloads, for how long, and what to do
before the lid is closed.

Exit codes for scripts: 0 no outage ahead, 1 one is ahead or under way, 2 it is unknown, 3 what
was given is wrong, 4 the cluster does not answer. Errors are raised as HarnessError;
harness/meshwake/cli/app.py prints them.
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer

from meshwake.analysis.forecast import (
    IdentityForecast,
    NodeForecast,
    ObservedNode,
    exit_code_of,
    forecast_node,
)
from meshwake.analysis.forecast_files import read_nodes
from meshwake.cli.options import (
    ContextOption,
    JsonOption,
    KubeconfigOption,
    ZtunnelNamespaceOption,
)
from meshwake.cli.output import CommandExit, print_json, print_text
from meshwake.core.durations import NS_PER_S, format_duration, parse_option_ns, seconds
from meshwake.core.errors import BadInput, ExitCode
from meshwake.core.extras import require
from meshwake.core.json_types import MutableJsonObject
from meshwake.ztunnel.names import ISTIO_NAMESPACE

RESTART = "kubectl -n {} rollout restart daemonset/ztunnel"
LONGEST_SLEEP_NS = 100 * 365 * 24 * 3_600 * NS_PER_S
# The times that can be written as dates: years 1 to 9999.
_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001  every time here is UTC
# datetime.MINYEAR and MAXYEAR: 0001-01-01 and the end of 9999. Moments outside are shown as the
# nearest one that can be.
_EARLIEST_NS, _LATEST_NS = -62_135_596_800 * NS_PER_S, 253_402_300_800 * NS_PER_S - 1


def add_commands(app: typer.Typer) -> None:
    """Adds forecast to `app`."""
    app.command("forecast")(forecast)


def forecast(
    saved: Annotated[
        Path | None,
        typer.Option(
            "--from", metavar="DIR", help="What was saved from a cluster (docs/forecast.md)."
        ),
    ] = None,
    kubeconfig: KubeconfigOption = None,
    context: ContextOption = None,
    namespace: ZtunnelNamespaceOption = None,
    sleep: Annotated[
        str | None, typer.Option("--sleep", metavar="9h", help="What if it falls asleep now?")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Predict when it will break next, and what to do before the lid is closed."""
    if saved is not None and (kubeconfig is not None or context is not None):
        raise BadInput("--from and --kubeconfig: give one of the two")
    if saved is not None and namespace is not None:
        raise BadInput("--from and --namespace: leave --namespace out; pod.json has it")
    sleep_ns = _sleep_ns(sleep)
    nodes = read_nodes(saved) if saved is not None else _live(kubeconfig, context, namespace)

    # Nothing but what was observed goes in: a saved cluster and a live one are forecast alike.
    forecasts = [forecast_node(node, sleep_ns) for node in nodes]
    code = exit_code_of(forecasts)
    if as_json:
        print_json(forecast_json(forecasts, code))
    else:
        print_text("\n".join(_lines(forecasts)))
    raise CommandExit(code)


def _sleep_ns(text: str | None) -> int:
    sleep_ns = parse_option_ns(text, "--sleep") if text is not None else 0
    if sleep_ns < 0:
        raise BadInput(f"--sleep {text}: must not be negative")
    if sleep_ns > LONGEST_SLEEP_NS:
        raise BadInput(
            f"--sleep {text[:40] if text else ''}: at most 100 years (36500d) can be predicted"
        )
    return sleep_ns


def _live(
    kubeconfig: Path | None, context: str | None, namespace: str | None
) -> list[ObservedNode]:
    require("kind")
    from meshwake.analysis.forecast_cluster import observe_ztunnels
    from meshwake.kubernetes.kubeconfig import read_access
    from meshwake.kubernetes.through_kr8s import connect

    access = read_access(kubeconfig, context)
    kubernetes = connect(access)
    try:
        return list(observe_ztunnels(kubernetes, time.time_ns(), namespace))
    finally:
        kubernetes.close()


# --- JSON -----------------------------------------------------------------------------------------


def forecast_json(forecasts: Sequence[NodeForecast], code: ExitCode) -> MutableJsonObject:
    """What --json prints. Times are RFC 3339, of the node's own wall clock; lengths are seconds."""
    return {"nodes": [_node_json(each) for each in forecasts], "exit_code": int(code)}


def _node_json(node: NodeForecast) -> MutableJsonObject:
    drift = node.drift
    return {
        "node": node.node,
        "process": node.process,
        "namespace": node.namespace,
        "now": _stamp(node.now_wall_ns),
        "sleep_s": seconds(node.sleep_ns),
        "prospect": node.prospect,
        "drift_s": None if drift is None else seconds(drift.best_ns),
        "drift_least_s": None if drift is None else seconds(drift.least_ns),
        "drift_most_s": None if drift is None or drift.most_ns is None else seconds(drift.most_ns),
        "drift_known_from": None if drift is None else drift.known_from,
        "identities": [_identity_json(each) for each in node.identities],
    }


def _identity_json(each: IdentityForecast) -> MutableJsonObject:
    return {
        "identity": each.identity,
        "state": each.state,
        "prospect": each.prospect,
        "not_after": _stamp(each.not_after_wall_ns),
        "renews_at": _stamp(each.renews_wall_ns),
        "outage_from": _stamp(each.outage_from_wall_ns),
        "outage_to": _stamp(each.outage_to_wall_ns),
        "room_s": None if each.room_ns is None else seconds(each.room_ns),
        "renews_without_end": each.renews_without_end,
        "overdue_since": _stamp(each.overdue_since_wall_ns),
    }


def _stamp(wall_ns: int | None) -> str | None:
    """RFC 3339 ends with the year 9999: what lies after it is shown as its last moment."""
    if wall_ns is None:
        return None
    wall_ns = min(max(wall_ns, _EARLIEST_NS), _LATEST_NS)
    return f"{_date(wall_ns).isoformat()}.{wall_ns % NS_PER_S // 1_000_000:03}Z"


def _date(wall_ns: int) -> datetime:
    return _EPOCH + timedelta(seconds=wall_ns // NS_PER_S)


# --- For people -----------------------------------------------------------------------------------


def _lines(forecasts: Sequence[NodeForecast]) -> Iterator[str]:
    for node in forecasts:
        yield from _node_lines(node)


def _node_lines(node: NodeForecast) -> Iterator[str]:
    yield f"{node.node} ({node.process}) at {_when(node.now_wall_ns)}: {_drift_words(node)}"
    if node.sleep_ns:
        wakes_wall_ns = node.now_wall_ns + node.sleep_ns
        yield (
            f"  if it sleeps now for {format_duration(node.sleep_ns)}, until "
            f"{_when(wakes_wall_ns)}:"
        )
    if not node.held:
        yield "  holds no certificate: no workload of the mesh runs here"
    for each in node.identities:
        yield f"  {each.identity}: {_identity_words(each)}"
    yield from (f"  {line}" for line in _advice(node))


def _drift_words(node: NodeForecast) -> str:
    drift = node.drift
    if drift is None:
        return (
            "how late its renewals are is unknown (docs/forecast.md: save its journal, or "
            "run the wake guard)"
        )
    late = f"renewals are {_length(drift.best_ns)} late"

    # Where only boottime could be read, a suspend is in both ages and does not show (forecast.py).
    if drift.most_ns is None:
        late = f"renewals are at least {_length(drift.least_ns)} late; sleep is not counted in that"
    elif not drift.is_exact:
        late = f"renewals are between {_length(drift.least_ns)} and {_length(drift.most_ns)} late"
    return f"{late} (known from: {drift.known_from})"


def _identity_words(each: IdentityForecast) -> str:
    # What is wrong already comes before what is going to be.
    if each.overdue_since_wall_ns is not None:
        return _overdue_words(each, each.overdue_since_wall_ns)
    if each.renews_wall_ns is None:
        return f"has no certificate: {each.state}"
    renews = (
        f"expires {_when(each.not_after_wall_ns or 0)}, is renewed {_when(each.renews_wall_ns)}"
    )

    # After a step back every renewal is due again at once (check ca_not_flooded).
    if each.renews_without_end:
        return f"{renews}; then again and again without a pause"
    if each.prospect == "unknown":
        return f"{renews} at the latest; whether in time is unknown"
    if each.outage_from_wall_ns is None or each.outage_to_wall_ns is None:
        return f"{renews}: no outage"
    lasts = _length(each.outage_to_wall_ns - each.outage_from_wall_ns)
    return f"{renews}: OUTAGE of {lasts} from {_when(each.outage_from_wall_ns)} on"


def _overdue_words(each: IdentityForecast, since_wall_ns: int) -> str:
    ends = _when(each.not_after_wall_ns or 0)
    since = f"should have been renewed {_when(since_wall_ns)}, and was not"
    if each.outage_from_wall_ns is None:
        return f"expires {ends}, {since}; whether in time is unknown"
    return f"expired {ends}, {since}: OUTAGE since then, until it gets a new one"


def _advice(node: NodeForecast) -> Iterator[str]:
    restart = RESTART.format(shlex.quote(node.namespace or ISTIO_NAMESPACE))
    # The most urgent first, and only one: the restart mends the others as well.
    if any(each.renews_without_end for each in node.identities):
        yield f"the clock was set back: restart ztunnel: {restart}"
    elif any(each.overdue_since_wall_ns is not None for each in node.identities):
        yield (
            "look whether istiod answers this ztunnel (see its log), then restart ztunnel: "
            f"{restart}"
        )
    elif node.prospect == "outage":
        when = "after the wake" if node.sleep_ns else "now"
        yield f"restart ztunnel {when}: {restart}"
        yield "then gateways and waypoints if they fail too; the wake guard does both by itself"
    elif node.prospect == "unknown":
        yield from _advice_without_answer(node)
    elif node.room_ns is not None:
        yield (
            f"nothing to do; from {_length(node.room_ns)} more of sleep on, every certificate "
            "would run out unrenewed"
        )


def _advice_without_answer(node: NodeForecast) -> Iterator[str]:
    """What is missing: how late renewals are, or a certificate to renew."""
    # Initializing, or dropped after a refused renewal.
    waiting = [each for each in node.identities if each.not_after_wall_ns is None]
    if waiting:
        yield (
            f"{len(waiting)} of {len(node.identities)} identities have no certificate yet; ask "
            "again when they do"
        )
    if len(waiting) < len(node.identities) or node.drift is None:
        yield (
            "save the node's journal as well (docs/forecast.md), or restart ztunnel after the wake"
        )


def _when(wall_ns: int) -> str:
    if wall_ns > _LATEST_NS:
        return "after the year 9999"
    return f"{_date(max(wall_ns, _EARLIEST_NS)).isoformat(' ')} UTC"


def _length(length_ns: int) -> str:
    # Seconds below an hour, minutes from there on: more digits than are known would mislead.
    unit_ns = NS_PER_S if abs(length_ns) < 3_600 * NS_PER_S else 60 * NS_PER_S
    return format_duration(round(length_ns / unit_ns) * unit_ns)
