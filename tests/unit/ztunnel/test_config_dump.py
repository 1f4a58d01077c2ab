"""One reader of /config_dump, for the forms of every release and for what is none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from meshwake.ztunnel.config_dump import ServedCertificate, parse_config_dump

from tests.support.paths import DATA

DUMPS = sorted((DATA / "config_dumps").glob("*.json"))
CLIENT = "spiffe://cluster.local/ns/default/sa/client"
# As src/admin.rs prints it at 1.18.0 to 1.21.6: snake_case, and the leaf apart from its chain.
BEFORE_1_22 = {
    "serial_number": "77",
    "valid_from": "2026-11-30T08:00:00Z",
    "expiration_time": "2026-12-01T08:02:00Z",
    "pem": "",
}
SINCE_1_22 = {
    "serialNumber": "77",
    "validFrom": "2026-11-30T08:00:00Z",
    "expirationTime": "2026-12-01T08:02:00Z",
}
READ = ServedCertificate(CLIENT, "Available", "77", 1_796_025_600, 1_796_112_120)


@pytest.mark.parametrize("path", DUMPS, ids=lambda path: path.stem)
def test_dumps_of_real_ztunnels(path: Path) -> None:
    """Recorded from the binaries of three releases."""
    held = parse_config_dump(path.read_bytes())
    assert held
    for each in held:
        assert "/" in each.identity and not each.identity.startswith("spiffe:")
        assert (each.serial is not None) == ("unavailable" not in path.stem)


@pytest.mark.parametrize(
    "entry",
    [
        {"identity": CLIENT, "state": "Available", "ca_cert": [BEFORE_1_22], "cert_chain": []},
        {
            "identity": CLIENT,
            "state": "Available",
            "ca_cert": [BEFORE_1_22],
            "cert_chain": [BEFORE_1_22 | {"serial_number": "1"}],
        },
        {
            "identity": CLIENT,
            "state": "Available",
            "certChain": [SINCE_1_22, SINCE_1_22 | {"serialNumber": "1"}],
        },
    ],
)
def test_the_leaf_of_every_form(entry: dict[str, Any]) -> None:
    """What signed it is never taken for it."""
    assert parse_config_dump(json.dumps({"certificates": [entry]})) == (READ,)
    assert parse_config_dump(json.dumps([entry])) == (READ,), "as istioctl prints it"


@pytest.mark.parametrize(
    ("state", "read"),
    [
        ("Available", "Available"),
        ("Unavailable: the authority is down", "Unavailable: the authority is down"),
        ({"Unavailable": "the authority is down"}, "Unavailable: the authority is down"),
        ("Initializing", "Initializing"),
        (None, "Unknown"),
    ],
)
def test_states(state: Any, read: str) -> None:
    """A word, or a word with its error."""
    without: tuple[dict[str, Any], ...] = (
        {},
        {"certChain": []},
        {"ca_cert": [], "cert_chain": []},
        {"certChain": None},
    )
    for empty in without:
        (held,) = parse_config_dump(
            json.dumps({"certificates": [{"identity": CLIENT, "state": state} | empty]})
        )
        assert held == ServedCertificate(CLIENT, read)


@pytest.mark.parametrize("text", ['{"certificates": null}', '{"certificates": []}', "[]"])
def test_no_certificate(text: str) -> None:
    """A node without a workload of the mesh."""
    assert parse_config_dump(text) == ()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "it is empty"),
        ("error: no pod", "found no JSON"),
        ("7", "to be a list"),
        ("[7]", "with an 'identity', found 7"),
        (
            '[{"identity": "x", "certChain": [{}]}]',
            "serialNumber, validFrom, expirationTime, found {}",
        ),
        (
            json.dumps([{"identity": "x", "certChain": [SINCE_1_22 | {"validFrom": "soon"}]}]),
            "found 'soon'",
        ),
        (
            json.dumps(
                [{"identity": "x", "certChain": [SINCE_1_22 | {"validFrom": "2026-01-01"}]}]
            ),
            "with its zone",
        ),
        ("[" * 100_000, "found no JSON"),
    ],
)
def test_what_is_none(text: str, message: str) -> None:
    with pytest.raises(ValueError, match="expected") as caught:
        parse_config_dump(text)
    assert message in str(caught.value)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: (
            st.lists(inner)
            | st.dictionaries(
                st.sampled_from(
                    ["certificates", "identity", "state", "certChain", "ca_cert", "validFrom"]
                ),
                inner,
            )
        ),
        max_leaves=12,
    )
)
def test_any_json_is_read_or_refused(value: Any) -> None:
    """Nothing but ValueError comes out."""
    try:
        parse_config_dump(json.dumps(value))
    except ValueError:
        return


def test_identities() -> None:
    """A SPIFFE identity that is not of Istio's form stays as it is."""
    assert ServedCertificate(CLIENT, "Available").identity == "default/client"
    assert ServedCertificate("spiffe://other/x", "Available").identity == "spiffe://other/x"
