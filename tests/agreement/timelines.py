"""Timelines drawn at random, from a seed: what no author of a scenario would think of."""

from __future__ import annotations

from random import Random

CLOCK_KINDS = ("suspend", "pause", "step", "freeze", "drift")
SERVICE_KINDS = ("ca_outage", "token_expired", "ca_hang")


def random_scenario(seed: int) -> str:
    """A scenario of one or two nodes and one to five days, with up to six clock faults, one service
    fault, slow answers and one restart; the same text for the same seed. Clock faults on a node
    never overlap; none is refused."""
    random = Random(seed)
    days = random.randint(1, 5)
    nodes = ["a", "b"][: random.randint(1, 2)]
    lifetime_m = random.choice([60, 240, 720, 1440])
    lines = [
        f'title = "Drawn from seed {seed}"',
        f'duration = "{days}d"',
        f'[certificate]\nlifetime = "{lifetime_m}m"\nbackdate = "{random.choice([0, 1, 2, 10])}m"',
    ]
    identities = ["default/client", "default/server"]
    for place, node in enumerate(nodes):
        mine = identities if len(nodes) == 1 else [identities[place]]
        lines.append(f'[[node]]\nname = "{node}"\nidentities = {mine}')
    lines.append(f'[authority]\nnode = "{random.choice([*nodes, "apart"])}"')
    lines.append(
        '[traffic]\npairs = [["default/client", "default/server"], ["default/server", '
        '"default/client"]]'
    )
    lines.append(f'every = "{random.choice([30, 60, 240])}m"')
    for node in nodes:
        lines += _clock_faults(random, node, days * 1440)
    if random.random() < 0.3:
        lines.append(_service_fault(random, days * 1440))
    lines += _slow_answers(Random(f"slow {seed}"), days * 1440)
    for _ in range(random.randint(0, 1)):
        at_m = random.randint(1, days * 1440 - 1)
        lines.append(
            f'[[fault]]\nkind = "restart"\nnode = "{random.choice(nodes)}"\nat = "{at_m}m"'
        )
    lines.append(
        '[[expect]]\ncheck = "alert_before_outage"\nverdict = "unknown"\nbecause = "only '
        'agreement counts"'
    )
    return "\n".join(lines) + "\n"


def _clock_faults(random: Random, node: str, end_m: int) -> list[str]:
    lines = []
    at_m = random.randint(1, 900)
    for _ in range(random.randint(0, 3)):
        kind = random.choice(CLOCK_KINDS)
        lasts_m = random.randint(1, 1200)
        if at_m + lasts_m >= end_m:
            break
        lines.append(
            f'[[fault]]\nkind = "{kind}"\nnode = "{node}"\nat = '
            f'"{at_m}m"\n{_length(random, kind, lasts_m)}'
        )
        at_m += lasts_m + 30 + random.randint(0, 900)
    return lines


def _length(random: Random, kind: str, lasts_m: int) -> str:
    if kind == "pause":
        return f'lasts = "{lasts_m}m"\ncorrected_after = "{random.choice(["0s", "25s", "20m"])}"'
    if kind == "step":
        return f'by = "{random.choice(["", "-"])}{random.randint(1, 400)}m"'
    if kind == "drift":
        return f'lasts = "{lasts_m}m"\nrate = {random.choice([0.9, 1.01, 1.025, 1.5])}'
    return f'lasts = "{lasts_m}m"'


def _service_fault(random: Random, end_m: int) -> str:
    at_m = random.randint(1, end_m - 2)
    lasts_m = random.randint(1, end_m - at_m)
    return (
        f'[[fault]]\nkind = "{random.choice(SERVICE_KINDS)}"\nat = "{at_m}m"\nlasts = "{lasts_m}m"'
    )


def _slow_answers(random: Random, end_m: int) -> list[str]:
    """In one scenario of five."""
    if random.random() > 0.2:
        return []
    at_m = random.randint(1, end_m - 2)
    lasts_m = random.randint(1, end_m - at_m)
    after = f"{random.choice([1, 45, 600, 7200])}s"
    return [
        f'[[fault]]\nkind = "ca_slow"\nat = "{at_m}m"\nlasts = "{lasts_m}m"\nanswers_after '
        f'= "{after}"'
    ]
