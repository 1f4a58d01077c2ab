from __future__ import annotations

from pathlib import Path

import pytest
from meshwake.core.durations import NS_PER_S
from meshwake.core.errors import BadInput
from meshwake.core.faults import fault_times_ns
from meshwake.core.scenario import parse_scenario, read_scenario

from tests.support.scenarios import SMALL, small, write

HOUR_NS = 3_600 * NS_PER_S


def parse(text: str) -> None:
    parse_scenario(text, "small.toml", "small")


def test_defaults_are_those_of_istio() -> None:
    """The defaults: certificates of 24 h, dated back by 2 min, as ztunnel requests and istiod
    signs."""
    scenario = parse_scenario(SMALL, "small.toml", "small")
    assert scenario.certificate.lifetime == 24 * HOUR_NS
    assert scenario.certificate.backdate == 120 * NS_PER_S


@pytest.mark.parametrize(
    ("ztunnel", "fault", "why"),
    [
        ("", 'identity = "default/client"\nat = "1h"', "no other ztunnel learns"),
        (
            'mode = "in-pod"',
            'identity = "default/client"\nat = "1h"',
            "no other ztunnel learns",
        ),
        (
            'mode = "in-pod"\nworkloads = "discovery"',
            'identity = "default/clint"\nat = "1h"',
            "did you mean 'default/client'",
        ),
        (
            'mode = "in-pod"\nworkloads = "discovery"',
            'identity = "default/client"\nat = "0s"',
            "let it begin later",
        ),
        ('workloads = "discovery"', "", "needs mode = 'in-pod'"),
    ],
)
def test_what_no_ztunnel_could_do_is_refused(ztunnel: str, fault: str, why: str) -> None:
    """Pods come and go where ztunnel can learn of it; discovery is for in-pod mode."""
    text = SMALL + f"\n[ztunnel]\n{ztunnel}\n"
    if fault:
        text += f'[[fault]]\nkind = "pod_restart"\n{fault}\n'
    with pytest.raises(BadInput, match=why):
        parse(text)


@pytest.mark.parametrize(
    ("zone", "message"),
    [
        ("Europe/Berln", r"invalid value 'Europe/Berln' for recorded_zone: .*'Europe/Berlin'\?"),
        ("localtime", "invalid value 'localtime' for recorded_zone: expected a time zone such as"),
        ("../etc/passwd", "for recorded_zone: expected a time zone such as Europe/Berlin, or an"),
        ("+25:00", "for recorded_zone: expected a time zone"),
        ("+01:00, +02:00", "a change of it as '-07:00 from 2026-11-01T08:00:00Z'"),
    ],
)
def test_a_zone_that_is_not_one(zone: str, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        parse(f'recorded_from = 2026-11-22T08:00:00Z\nrecorded_zone = "{zone}"\n' + SMALL)


def test_a_zone_without_a_recorded_date() -> None:
    with pytest.raises(BadInput, match="recorded_from is missing: expected the date"):
        parse('recorded_zone = "Europe/Berlin"\n' + SMALL)


def test_a_recorded_date_needs_a_zone() -> None:
    with pytest.raises(BadInput, match="recorded_from: .*needs a zone"):
        parse("recorded_from = 2026-11-22T08:00:00\n" + SMALL)


def test_a_scenario_is_named_for_its_file(tmp_path: Path) -> None:
    """The name is the file's, and its path is kept for messages."""
    path = write(tmp_path, name="my_laptop")
    scenario = read_scenario(path)
    assert (scenario.name, scenario.path) == ("my_laptop", str(path))


def test_repeats_run_to_the_end() -> None:
    """`every` repeats a fault for as long as the scenario lasts, the end excluded."""
    scenario = parse_scenario(
        small(
            ('duration = "2d"', 'duration = "63h"'), ('lasts = "8h"', 'lasts = "8h"\nevery = "24h"')
        ),
        "p",
        "n",
    )
    times_ns = fault_times_ns(scenario.fault[0], scenario.duration)
    assert list(times_ns) == [15 * HOUR_NS, 39 * HOUR_NS]


def test_every_mistake_is_named_at_once() -> None:
    """Two mistakes make two lines: a person mends a file once."""
    with pytest.raises(BadInput) as refused:
        parse(small(('lasts = "8h"', 'lasts = "8"'), ('every = "30m"', 'every = "30"')))
    assert len(str(refused.value).splitlines()) == 2


def test_other_faults_may_lie_within_a_drift() -> None:
    """A clock that drifts may sleep as well; across the end of the drift it may not."""
    drift = '[[fault]]\nkind  = "drift"\nat    = "1h"\nlasts = "{}"\nrate  = 1.025\n\n[[expect]]'
    parse(small(("[[expect]]", drift.format("30h"))))
    with pytest.raises(BadInput, match="is across an end of fault 1"):
        parse(small(("[[expect]]", drift.format("16h"))))


def test_a_node_must_be_named_where_there_are_two() -> None:
    """With two nodes it is not guessed which one sleeps."""
    second = '[[node]]\nname       = "desk"\nidentities = ["default/other"]\n\n[traffic]'
    with pytest.raises(
        BadInput, match=r"fault\[0\].node is missing: expected one of laptop, desk, \*"
    ):
        parse(small(("[traffic]", second)))


def test_real_time_faults_are_checked_against_their_own_duration() -> None:
    """[real_time] has a timeline of its own, and the same rules."""
    table = (
        '[real_time]\nlifetime = "10m"\nduration = "5m"\n\n'
        '[[real_time.fault]]\nkind  = "suspend"\nat    = "6m"\nlasts = "1m"\n\n[[expect]]'
    )
    with pytest.raises(BadInput, match=r"invalid value '6m'"):
        parse(small(("[[expect]]", table)))


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    """The message is for a person, not an OSError."""
    with pytest.raises(BadInput, match="cannot be read"):
        read_scenario(tmp_path / "nothing.toml")


@pytest.mark.parametrize(
    ("written", "instead", "message"),
    [
        ('labs     = ["model"]', 'labs = "model"', "invalid value 'model' for labs: expected a li"),
        ("[[node]]", "[node]", "node is one table: .* write \\[\\[node\\]\\], with two brackets"),
        (
            'title    = "One',
            'title = ""  # "',
            "invalid value '' for title: expected a text that is",
        ),
        (
            'title    = "One',
            'title = 5  # "',
            "invalid value 5 for title: expected a text, in quot",
        ),
        (
            "title ",
            "starts = 2026-10-10\ntitle ",
            "value 2026-10-10 for starts: expected a date wi",
        ),
        ("title ", 'starts = "now"\ntitle ', "value 'now' for starts: expected a date with time a"),
    ],
)
def test_a_value_of_another_type_is_refused_in_our_words(
    written: str, instead: str, message: str
) -> None:
    """Of TOML, not of Python: what was expected there."""
    with pytest.raises(BadInput, match=message) as refused:
        parse(small((written, instead)))
    assert "should" not in str(refused.value)
