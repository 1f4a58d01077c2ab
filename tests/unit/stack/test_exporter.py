from __future__ import annotations

import http.client
import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from harness.stack.exporter import METRICS, Answer, Clocks, Exporter, Process, ask, find_ztunnels, server
from harness.stack.observability import EXPORTER

DUMPS = Path(__file__).parents[2] / "data" / "config_dumps"
ZTUNNEL = Process(7, 100, "ztunnel-x")
LEFT = "meshwake_ztunnel_certificate_left_seconds"


def certificates(name: str) -> list[dict[str, Any]]:
    return list(json.loads((DUMPS / f"{name}.json").read_text(encoding="utf-8"))["certificates"])


def samples(page: str) -> dict[tuple[str, str], float]:
    """Value by series and identity, read by Prometheus' own parser."""
    return {
        (sample.name, sample.labels.get("identity", "")): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    }


def page(answers: list[Answer], wall_s: float, monotonic_s: float = 0.0) -> dict[tuple[str, str], float]:
    return samples(Exporter().page(answers, Clocks(wall_s, monotonic_s)))


def certificate(not_before: str, not_after: str, **others: object) -> dict[str, Any]:
    chain = [{"validFrom": not_before, "expirationTime": not_after}]
    return {"identity": "spiffe://cluster.local/ns/shop/sa/web", "state": "Available", "certChain": chain, **others}


LIVES_1000_S = certificate("1970-01-01T00:00:00Z", "1970-01-01T00:16:40Z")


@pytest.mark.parametrize(
    ("wall_s", "left_s", "ratio", "late_s"),
    [(0, 1000, 1, 0), (500, 500, 0.5, 0), (700, 300, 0.3, 200), (1100, -100, -0.1, 600)],
)
def test_what_is_left_of_a_certificate(wall_s: float, left_s: float, ratio: float, late_s: float) -> None:
    """By the node's wall clock; renewal is due at half of its life; below nothing: expired."""
    told = page([Answer(ZTUNNEL, [LIVES_1000_S])], wall_s)
    assert told[LEFT, "shop/web"] == left_s
    assert told["meshwake_ztunnel_certificate_left_ratio", "shop/web"] == pytest.approx(ratio)
    assert told["meshwake_ztunnel_renewal_late_seconds", "shop/web"] == late_s


@pytest.mark.parametrize("name", [path.stem for path in sorted(DUMPS.glob("*.json"))])
def test_every_recorded_dump_is_understood(name: str) -> None:
    """Of real ztunnels: each entry is told of, and a state with an error is no certificate."""
    entries = certificates(name)
    told = page([Answer(ZTUNNEL, entries)], 0)
    assert len([key for key in told if key[0] == "meshwake_ztunnel_certificate_unavailable"]) == len(entries)
    unavailable = {value for key, value in told.items() if key[0] == "meshwake_ztunnel_certificate_unavailable"}
    assert unavailable == {1.0 if name.endswith("-unavailable") else 0.0}
    assert all(left_s > 0 for (series, _), left_s in told.items() if series == LEFT)


def test_every_series_has_its_help_and_no_other_is_told() -> None:
    text = Exporter().page([Answer(ZTUNNEL, [LIVES_1000_S])], Clocks(1, 0))
    assert {family.name: family.documentation for family in text_string_to_metric_families(text)} == dict(METRICS)


def test_a_ztunnel_that_does_not_answer_is_told_of() -> None:
    told = page([Answer(ZTUNNEL, None)], 0)
    assert told["meshwake_ztunnel_up", ""] == 0
    assert not [key for key in told if key[0] == LEFT]


def test_drift_counts_from_the_first_look_at_a_process() -> None:
    """Another process under the same number begins anew."""
    exporter = Exporter()

    def drift_s(process: Process, wall_s: float, monotonic_s: float) -> float:
        told = samples(exporter.page([Answer(process, [])], Clocks(wall_s, monotonic_s)))
        return told["meshwake_ztunnel_clock_drift_seconds", ""]

    assert drift_s(ZTUNNEL, 1000, 10) == 0
    assert drift_s(ZTUNNEL, 1060, 70) == 0
    assert drift_s(ZTUNNEL, 1120, 100) == 30
    assert drift_s(Process(7, 200, "ztunnel-y"), 1130, 110) == 0


def test_labels_are_escaped() -> None:
    odd = Process(1, 1, 'a"b\\c\nd')
    (family,) = [
        family
        for family in text_string_to_metric_families(Exporter().page([Answer(odd, None)], Clocks(0, 0)))
        if family.name == "meshwake_ztunnel_up"
    ]
    assert family.samples[0].labels["ztunnel"] == 'a"b\\c\nd'


def test_ztunnels_are_found_by_name_with_their_pod(tmp_path: Path) -> None:
    for pid, name, environ in [(10, "ztunnel", b"A=1\0POD_NAME=ztunnel-a\0"), (9, "ztunnel", b""), (8, "sleep", b"")]:
        folder = tmp_path / str(pid)
        folder.mkdir()
        (folder / "comm").write_text(f"{name}\n")
        (folder / "stat").write_text(f"{pid} ({name}) S " + " ".join(str(number) for number in range(4, 40)))
        (folder / "environ").write_bytes(environ)
    (tmp_path / "11").mkdir()  # has ended meanwhile
    # The 22nd field of stat is when the process started.
    assert find_ztunnels(tmp_path) == [Process(9, 22, "pid-9"), Process(10, 22, "ztunnel-a")]


def test_a_process_that_has_ended_gives_no_answer() -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    assert ask(Process(ended.pid, 0, "gone")).certificates is None


def test_it_serves_its_page_and_nothing_else(tmp_path: Path) -> None:
    with server("127.0.0.1", 0, tmp_path) as serving:
        thread = threading.Thread(target=serving.serve_forever, daemon=True)
        thread.start()
        answers = {}
        for path in ("/metrics", "/"):
            connection = http.client.HTTPConnection("127.0.0.1", serving.server_port, timeout=10)
            connection.request("GET", path)
            answer = connection.getresponse()
            answers[path] = (answer.status, answer.read().decode())
            connection.close()
        serving.shutdown()
        thread.join()
    assert answers["/metrics"][0] == 200
    assert samples(answers["/metrics"][1])["meshwake_node_wall_minus_monotonic_seconds", ""] > 0
    assert answers["/"][0] == 404


def test_it_runs_as_a_file_alone(tmp_path: Path) -> None:
    """As in the pod: from a ConfigMap, on a plain Python, without this package or any library."""
    (tmp_path / "exporter.py").write_text(EXPORTER.read_text(encoding="utf-8"), encoding="utf-8")
    alone = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    said = subprocess.run(
        [sys.executable, "-I", "-S", "-B", "exporter.py", "--help"],
        cwd=tmp_path,
        env=alone,
        capture_output=True,
        text=True,
        check=False,
    )
    assert said.returncode == 0 and "--port" in said.stdout, said.stderr


SERVES_A_DUMP = """
import subprocess, sys
from http.server import BaseHTTPRequestHandler, HTTPServer
subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(open(sys.argv[1], "rb").read() if self.path == "/config_dump" else b"")
    def log_message(self, *args): pass
with HTTPServer(("127.0.0.1", 15000), Handler) as serving:
    print("ready", flush=True)
    serving.serve_forever()
"""


def test_a_process_is_asked_within_its_own_network() -> None:
    """Its admin port is on its own localhost; ours, and that of the thread that asked, stays where it was."""
    if not (shutil.which("unshare") and shutil.which("ip")):
        pytest.skip("needs the programs unshare and ip (Debian, Ubuntu: apt install util-linux iproute2)")
    dump = DUMPS / "1.28.0-available.json"
    serving = subprocess.Popen(
        ["unshare", "--net", sys.executable, "-I", "-c", SERVES_A_DUMP, str(dump)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert serving.stdout is not None and serving.stderr is not None
    with serving.stdout, serving.stderr:
        try:
            if serving.stdout.readline() != "ready\n":
                pytest.skip(f"no network namespace can be made here: {serving.stderr.read().strip()}")
            ours = Path("/proc/self/ns/net").readlink()
            answer = ask(Process(serving.pid, 0, "ztunnel-x"))
            assert answer.certificates == certificates("1.28.0-available")
            assert Path("/proc/self/ns/net").readlink() == ours
        finally:
            serving.kill()
            serving.wait()
