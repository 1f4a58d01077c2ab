# ruff: noqa: E501  scripts, rules and manifests in tables stay in one piece
"""Whatever is given as a fix, a hook, a setting or a file of rules, it is read or refused; it
never breaks down.

Real samples, spoilt at random. MESHWAKE_FUZZ=10000 tries so many of each, MESHWAKE_FUZZ_SEED begins
elsewhere.
"""

from __future__ import annotations

import os
import random
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from meshwake.analysis.alert_replay import missing_for
from meshwake.analysis.alert_rules import read_rule_files
from meshwake.clocks.virtual import clocks_of
from meshwake.core.errors import BadInput
from meshwake.core.plan import Plan, PlannedFix
from meshwake.fixes import FIXES, adapted, deploy

from tests.support.paths import REPOSITORY
from tests.support.plans import NIGHTS, plan
from tests.unit.fixes.test_cron import with_script

TRIES = int(os.environ.get("MESHWAKE_FUZZ", "150"))
SEED = int(os.environ.get("MESHWAKE_FUZZ_SEED", "1"))
WORLD: Plan = plan(NIGHTS, duration="2d", every="12h")
RULES = sorted((REPOSITORY / "clusters" / "observability").rglob("*.yml"))
ODD = [
    *("", " ", "\n", "\t", "\x00", "\r", "\ufeff", "\U000f0000", "ß", "'", '"', "`", "$", "$(", "${", "}", ")", "((", "))", "\\", "#"),
    *("|", "||", "&", "&&", ";", ";;", "<<", "<<EOF\n", "<", ">", "[", "]", "[[", "]]", "{", "{{", "!", "*", "&a", "*a", "!!binary x"),
    *("if ", "then ", "fi", "for x in ", "do ", "done", "case ", "esac", "in ", "while true; do ", "function ", "() {", "exit", "return"),
    *("null", "true", "~", "-1", "0", "1e999", "99999999999999999999", ".nan", "0x", "1:2:3", "2024-99-99", "[]", "{}", "- ", "? ", ": "),
    *("kubectl ", "-n ", "--all", "-l app=ztunnel", "ds/ztunnel", "rollout restart ", "xargs ", "sh -c ", "eval ", "timeout 5 ", "grep -E '(' "),
    *("@every 1ns", "@every 9999999h", "*/0", "1-99", "L", "TZ=x", "CRON_TZ=", "Local", "kind: List\nitems: ", "---\n", "&x [*x]", "<<: *a"),
    *("rate(", "[5m:", '{__name__=~"x"}', "by (", "@ end()", "offset -1h", "for: 1y", "record: x", "groups: ", "expr: [1]", "labels: 3"),
]  # fmt: skip


def spoilt(chance: random.Random, samples: list[str]) -> str:
    """A sample after some accidents."""
    text = chance.choice(samples)
    for _ in range(chance.choice([1, 1, 2, 3, 8])):
        at, to = sorted(chance.randrange(len(text) + 1) for _ in range(2))
        lines = text.split("\n")
        line = chance.randrange(len(lines))
        accident = chance.randrange(8)
        if accident == 0:
            text = text[:at] + chance.choice(ODD) + text[at:]
        elif accident == 1:
            text = text[:at] + text[min(to, at + 12) :]
        elif accident == 2:
            del lines[line]
            text = "\n".join(lines)
        elif accident == 3:
            lines.insert(line, chance.choice(lines))
            text = "\n".join(lines)
        elif accident == 4:
            words = list(re.finditer(r"[\w./:-]+", text))
            if words:
                word = chance.choice(words)
                text = text[: word.start()] + chance.choice(ODD) + text[word.end() :]
        elif accident == 5:
            text = text[:at]
        elif accident == 6:
            other = chance.choice(samples)
            text = text[:at] + other[chance.randrange(len(other) + 1) :]
        else:
            lines[line] = (
                lines[line].replace("  ", "", 1) if chance.random() < 0.5 else "  " + lines[line]
            )
            text = "\n".join(lines)
    return text


def manifests(*names: str) -> list[str]:
    return [text for name in names if (text := FIXES[name].read_manifest()) is not None]


def tried(name: str) -> Callable[[str, Path], None]:
    def give(text: str, folder: Path) -> None:
        of = adapted(WORLD.model_copy(update={"fix": PlannedFix(name=name, manifest=text)}))
        deploy(of, clocks_of(of))

    return give


def read_rules(text: str, folder: Path) -> None:
    path = folder / "rules.yml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    rules = read_rule_files([path])
    for expression in (
        *(each.expression for each in rules.alerts),
        *(each.expression for each in rules.records),
    ):
        missing_for(expression, WORLD, {})


CRON = ("weekly-restart", "daily-restart", "log-watchdog", "near-expiry", "restart-applications")
UNIT = "[Unit]\nAfter=suspend.target\n[Service]\nType=oneshot\nEnvironment=A=b\nExecStart=/bin/sh -c 'kubectl -n istio-system rollout restart ds/ztunnel'\n[Install]\nWantedBy=suspend.target\n"  # fmt: skip
HOOKS = [
    *manifests("sleep-hook"),
    UNIT,
    '#!/bin/bash\nset -e\nrestart() { kubectl -n istio-system rollout restart "ds/${1:-ztunnel}"; }\ncase "$1/$2" in\n  post/*) for i in 1 2; do restart && break; sleep 5; done ;;\nesac\n',
    '#!/bin/sh\nif [ "$1" = post ] && [ "$(date +%u)" -lt 6 ]; then crictl stop $(crictl ps -q --name istio-proxy | head -1); fi\n',
    "#!/bin/sh\nkubectl get pods -n istio-system | grep ztunnel | awk '{print $1}' | while read p x; do kubectl delete pod \"$p\" -n istio-system; done\n",
]  # fmt: skip
READERS = {
    **{name: (tried(name), [*manifests(*CRON), with_script("[sh, /scripts/restart.sh]")]) for name in CRON},
    "sleep-hook": (tried("sleep-hook"), HOOKS),
    "secret-ttl-720h": (tried("secret-ttl-720h"), manifests("secret-ttl-720h", "istiod-default-ttl", "wake-guard")),
    "chrony-makestep": (tried("chrony-makestep"), [*manifests("chrony-makestep"), "server a minpoll 4\nrefclock PHC /dev/x poll 3\nmaxchange 1 2 3\nmakestep 1 3\n"]),
    "rules": (read_rules, [path.read_text(encoding="utf-8") for path in RULES]),
}  # fmt: skip


@pytest.mark.slow(reason="hundreds of damaged files for each reader")
@pytest.mark.parametrize("name", READERS)
def test_what_is_spoilt_is_read_or_refused(name: str, tmp_path: Path) -> None:
    read, samples = READERS[name]
    refused = 0
    for number in range(SEED, SEED + TRIES):
        text = spoilt(random.Random(f"{name} {number}"), samples)
        try:
            read(text, tmp_path)
        except BadInput:
            refused += 1
        except Exception as error:
            raise AssertionError(f"seed {number} of {name} broke down on:\n{text}") from error
    assert 0 < refused < TRIES
