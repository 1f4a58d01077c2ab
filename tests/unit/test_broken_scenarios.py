from __future__ import annotations

import pytest
from meshwake.cli.app import run_command
from meshwake.core.errors import ExitCode

from tests.support.paths import DATA

BROKEN = DATA / "broken_scenarios"
DURATION = "'1h30m'"
# file -> what its message must name: the key, the value read, what is allowed.
MUST_NAME = {
    "at_the_very_beginning": ("fault[0].at", "'0s'", "let it begin later, at '1s'"),
    "node_called_apart": ("node[0].name", "'apart'", "give the node another name"),
    "rate_is_not_a_number": ("fault[0].rate", "nan", "between 0.1 and 10"),
    "starts_before_time": ("starts", "1965-01-01", "the years 1971 to 2200"),
    "wall_clock_out_of_range": ("fault", "2027-01-04", "the years 1971 to 2200"),
    "after_the_end": ("fault[0].at", "'2d2h'", "the scenario lasts 2d"),
    "authority_on_unknown_node": (
        "authority.node",
        "'aprt'",
        "laptop, apart",
        "did you mean 'apart'",
    ),
    "bad_identity": ("node[0].identities[0]", "'client'", "namespace/serviceaccount"),
    "bad_version_range": ("expect[0].versions", "'1.28 and up'", "'>=1.24,<1.28'"),
    "before_the_beginning": ("fault[0].at", "'-1h'", "world time starts at 0"),
    "comes_again_too_soon": ("fault[0].every", "'4h'", "it takes 8h"),
    "fault_on_unknown_node": ("fault[0].node", "'laptp'", "laptop, *", "did you mean 'laptop'"),
    "fault_without_kind": ("fault[0].kind", "is missing", "suspend, pause, step, drift, freeze"),
    "fault_without_length": ("fault[0].lasts", "is missing", DURATION),
    "fraction_of_a_second": ("certificate.lifetime", "'1500ms'", "whole seconds"),
    "impossible_rate": ("fault[0].rate", "25", "between 0.1 and 10"),
    "manifest_missing": ("fix.manifest", "cronjb.yaml", "not a file in"),
    "negative_length": ("fault[0].lasts", "'-8h'", "more than 0"),
    "no_because": ("expect[0].because", "''", "expected a text that is not empty"),
    "no_expectations": ("expect", "is missing", "write what should hold, or break"),
    "no_labs": ("labs", "[]", "at least one entry"),
    "no_unit": ("duration", "2", DURATION),
    "node_twice": ("node[1].name", "'laptop'", "a name of its own"),
    "not_toml": ("is not TOML", "line 1", "scenarios/README.md"),
    "overlapping_faults": ("fault[1].at", "'16h'", "one clock fault at a time"),
    "pair_from_nowhere": ("traffic.pairs[0]", "'default/clent'", "did you mean 'default/client'"),
    "pair_with_itself": ("traffic.pairs[0]", "default/client", "connects an identity to itself"),
    "pause_never_corrected": ("fault[0].corrected_after", "is missing", DURATION),
    "repeats_without_end": ("fault[0].every", "'1ms'", "more than 20000 faults"),
    "start_without_zone": ("starts", "2027-01-04T08:00:00", "needs a zone"),
    "step_by_nothing": ("fault[0].by", "'0s'", "a step by 0"),
    "too_many_attempts": ("traffic.every", "'1ms'", "1000000 attempts"),
    "two_rows_for_one_check": ("expect", "traffic_flows", "narrow their 'versions'"),
    "unknown_check": ("expect[0].check", "'trafic_flows'", "did you mean 'traffic_flows'"),
    "unknown_fault": ("fault[0].kind", "'suspnd'", "did you mean 'suspend'"),
    "unknown_key": ("'durations'", "top level", "did you mean 'duration'"),
    "unknown_key_in_certificate": (
        "'lifetme'",
        "certificate",
        "expected one of lifetime, backdate",
    ),
    "unknown_key_in_fault": ("'last'", "fault[0]", "expected one of at, every, kind, lasts, node"),
    "unknown_lab": ("labs[0]", "'modell'", "model, process, machine, kind"),
    "unknown_verdict": ("expect[0].verdict", "'hold'", "holds, broken, unknown"),
    "wrong_unit": ("fault[0].lasts", "'8 hours'", DURATION),
}


def test_every_broken_file_has_its_row() -> None:
    """At least twenty, and none is forgotten."""
    assert sorted(MUST_NAME) == sorted(path.stem for path in BROKEN.glob("*.toml"))
    assert len(MUST_NAME) >= 20


@pytest.mark.parametrize("name", MUST_NAME)
def test_refused_with_a_message_to_act_on(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit 3; the message names file, key, value read and what is allowed; no traceback."""
    path = BROKEN / f"{name}.toml"
    assert run_command(["run", str(path), "--lab", "model"]) == ExitCode.BAD_INPUT
    out, err = capsys.readouterr()
    assert out == ""
    for words in (str(path), *MUST_NAME[name]):
        assert words in err
    assert "Traceback" not in err
