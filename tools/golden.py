"""Whether a change of structure changed an answer: hashes of what model and checks say.

    python tools/golden.py --write     remember today's answers in tools/golden.json
    python tools/golden.py --check     compare; exit code 1 names every difference

Two things are remembered. SHA-256 of the model's history, byte for byte, for every scenario of the
corpus, every behaviour class and three seeds; and of the facts in the JSON result of every recorded
history (verdicts and times, not sentences: wording may change without changing an answer).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from meshwake.core.history import Recorder
from meshwake.core.scenario import read_scenario
from meshwake.labs.model.ztunnel import BEHAVIOURS
from meshwake.report.result import result
from meshwake.runner.choose import choose
from meshwake.runner.execution import execute
from meshwake.runner.options import Options
from meshwake.runner.run import check_run

ROOT = Path(__file__).resolve().parent.parent
FILE = ROOT / "tools" / "golden.json"
SCENARIOS = ROOT / "scenarios"
RECORDED = ROOT / "tests" / "data" / "histories"
SEEDS = (0, 1, 2)
PROSE = ("because", "text")


def model_answer(scenario: str, behaviour_class: str, seed: int) -> str:
    """SHA-256 of the history's file, or why the model refuses the case."""
    options = Options(lab="model", as_class=behaviour_class, seed=seed)
    case = choose(read_scenario(SCENARIOS / scenario), options)[0]
    if case.refusal is not None:
        return "refused"
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "history.jsonl"
        execute(case.plan, recorder=Recorder(file))
        return hashlib.sha256(file.read_bytes()).hexdigest()


def recorded_answer(name: str) -> str:
    """SHA-256 of what today's checks find in a recorded history."""
    facts = without_prose(result(check_run(RECORDED / name)))
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def without_prose(value: Any) -> Any:
    """`value` without the sentences in it."""
    if isinstance(value, dict):
        return {key: without_prose(item) for key, item in value.items() if key not in PROSE}
    if isinstance(value, (list, tuple)):
        return [without_prose(item) for item in value]
    return value


def questions() -> Iterator[tuple[str, tuple[Any, ...]]]:
    """Name and arguments of every question."""
    for file in sorted(SCENARIOS.rglob("*.toml")):
        scenario = file.relative_to(SCENARIOS).as_posix()
        for behaviour_class in BEHAVIOURS:
            for seed in SEEDS:
                name = f"model {scenario} {behaviour_class} seed {seed}"
                yield name, (scenario, behaviour_class, seed)
    for directory in sorted(path for path in RECORDED.iterdir() if path.is_dir()):
        yield f"recorded {directory.name}", (directory.name,)


def answer(arguments: tuple[Any, ...]) -> str:
    """The answer to one question of `questions`."""
    return recorded_answer(*arguments) if len(arguments) == 1 else model_answer(*arguments)


def answers() -> dict[str, str]:
    """Every answer by its question's name."""
    arguments = dict(questions())
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        return dict(zip(arguments, pool.map(answer, arguments.values(), chunksize=4), strict=True))


def differences(before: dict[str, str], now: dict[str, str]) -> list[str]:
    """One line for each question whose answer is another, is new, or is gone."""
    lines = []
    for name in sorted(before.keys() | now.keys()):
        if name not in now:
            lines.append(f"gone: {name}")
        elif name not in before:
            lines.append(f"new: {name}")
        elif before[name] != now[name]:
            lines.append(f"different: {name}")
    return lines


def main() -> int:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help="remember today's answers")
    parser.add_argument("--check", action="store_true", help="compare with those remembered")
    arguments = parser.parse_args()
    if arguments.write == arguments.check:
        parser.error("say --write or --check")
    now = answers()
    if arguments.write:
        FILE.write_text(json.dumps(now, indent=0, sort_keys=True) + "\n", encoding="utf-8")
        print(f"{len(now)} answers written to {FILE.relative_to(ROOT)}")
        return 0
    lines = differences(json.loads(FILE.read_text(encoding="utf-8")), now)
    print("\n".join(lines) or f"{len(now)} answers, all as before")
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main())
