"""One measured number, and how a part of the bench hands its numbers over."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any

from tests.support.paths import REPOSITORY

NIGHTLY_SLEEP = REPOSITORY / "scenarios" / "nightly_sleep.toml"
DAY_S = 86_400
MIB = 2**20


@dataclass(frozen=True)
class Number:
    """`value` in `unit`, and how many times that of `peer` it is. What cannot run here has a
    `refusal` instead."""

    part: str
    key: str
    value: float | None
    unit: str = ""
    ratio: float | None = None
    peer: str = ""
    refusal: str = ""


def hand_over(numbers: Iterable[Number]) -> None:
    """To standard output, for `measured_apart`."""
    sys.stdout.write(json.dumps([asdict(number) for number in numbers]) + "\n")


def measured_apart(module: str, *arguments: str) -> list[Number]:
    """The numbers of `module`, measured in a process of its own: what ran before leaves no mark on
    them."""
    command = [sys.executable, "-m", f"tests.bench.{module}", *arguments]
    answer = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    if answer.returncode:
        last_words = (answer.stderr.strip().splitlines() or ["no word"])[-1]
        return [Number(" ".join((module, *arguments)), "", None, refusal=last_words)]
    return [Number(**number) for number in json.loads(answer.stdout)]


def seconds_of(work: Callable[[], Any]) -> float:
    """Real time that `work` takes, once."""
    began_s = time.perf_counter()
    work()
    return time.perf_counter() - began_s
