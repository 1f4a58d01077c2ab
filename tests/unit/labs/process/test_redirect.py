"""The rules of redirection on real connections, in a network namespace of the test's own."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
from meshwake.labs import load_lab

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="namespaces are for Linux")

SCRIPT = """
import json, socket
from meshwake.labs.process.namespaces import AUTHORITY_ADDRESS, Network, enter_own_namespaces, in_namespace, listen
from meshwake.labs.process.redirect import (ZTUNNEL_MARK, redirected_here)
from meshwake.ztunnel.ports import INBOUND_PLAINTEXT_PORT
from meshwake.ztunnel.ports import OUTBOUND_PORT
enter_own_namespaces()
network = Network()
pod, address = network.add("pod")
reached_port = {}
with in_namespace(pod):
    if not redirected_here():
        print("null"); raise SystemExit
    servers = {port: listen("0.0.0.0", port) for port in (OUTBOUND_PORT, INBOUND_PLAINTEXT_PORT, 8080, 15008)}
outside = listen(AUTHORITY_ADDRESS, 8080)
def reached(address, port, mark=0, within=None):
    with socket.socket() as client:
        client.settimeout(5)
        if mark: client.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark)
        client.connect((address, port))
        for name, server in [*servers.items(), ("outside", outside)]:
            server.settimeout(0.3)
            try:
                server.accept()[0].close(); return name
            except TimeoutError: pass
with in_namespace(pod):
    reached_port["sent"] = reached(AUTHORITY_ADDRESS, 8080)
    reached_port["sent by ztunnel"] = reached(AUTHORITY_ADDRESS, 8080, ZTUNNEL_MARK)
    reached_port["sent to itself"] = reached("127.0.0.1", 8080)
    reached_port["by ztunnel to the application"] = reached(address, 8080, ZTUNNEL_MARK)
reached_port["came"] = reached(address, 8080)
reached_port["came as HBONE"] = reached(address, 15008)
print(json.dumps(reached_port))
"""


@pytest.fixture(scope="module")
def reached_port() -> Any:
    """Which port each connection reached."""
    from pathlib import Path

    if reasons := load_lab("process").missing(Path(sys.executable)):
        pytest.skip(reasons[0])
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    reached = json.loads(done.stdout)
    if reached is None:
        pytest.skip("this kernel has no nftables redirection")
    return reached


def test_what_a_pod_sends_goes_into_its_ztunnel(reached_port: Any) -> None:
    """An ordinary client's connection, and not what ztunnel itself sends, nor what stays on the
    loopback."""
    assert reached_port["sent"] == 15001
    assert reached_port["sent by ztunnel"] == "outside"
    assert reached_port["sent to itself"] == 8080


def test_what_comes_goes_through_ztunnel_too(reached_port: Any) -> None:
    """Plain text from outside to its port for that, HBONE straight, and from ztunnel to the
    application."""
    assert reached_port["came"] == 15006
    assert reached_port["came as HBONE"] == 15008
    assert reached_port["by ztunnel to the application"] == 8080
