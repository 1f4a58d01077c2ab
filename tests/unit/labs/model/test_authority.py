from __future__ import annotations

import pytest
from meshwake.clocks.virtual import clocks_of
from meshwake.core.durations import NS_PER_S
from meshwake.labs.model.authority import Answer, ModelAuthority, SignedCertificate

from tests.support.plans import TWO_NODES, plan


def answer(body: str, at_s: float, nodes: str = TWO_NODES) -> Answer:
    of = plan(body, nodes=nodes)
    authority = ModelAuthority(of, clocks_of(of)[of.authority_node])
    return authority.answer(lifetime_s=600, world_ns=int(at_s * NS_PER_S))


def fault(kind: str, at: str = "10s", lasts: str = "10s") -> str:
    return f'[[fault]]\nkind = "{kind}"\nat = "{at}"\nlasts = "{lasts}"\n'


def test_it_dates_as_istiod_does_in_whole_seconds() -> None:
    """Backdated by two minutes, and what is left of the second is cut off on both dates."""
    starts_s = plan().starts_wall_s
    assert answer("", at_s=7.9) == Answer(
        "issued", SignedCertificate("1", starts_s + 7 - 120, starts_s + 7 + 600)
    )


def test_it_signs_by_the_clock_of_its_own_node() -> None:
    """A step of its node shows in the dates; the same step of another node does not."""
    step = '[[fault]]\nkind = "step"\nat = "1s"\nby = "1h"\nnode = "{}"'
    starts_s = plan().starts_wall_s
    own, other = (
        answer(step.format("east"), 2).certificate,
        answer(step.format("west"), 2).certificate,
    )
    assert own and own.not_after_wall_s == starts_s + 2 + 3_600 + 600
    assert other and other.not_after_wall_s == starts_s + 2 + 600


def test_an_authority_apart_never_sleeps() -> None:
    """It answers while every node of the plan is asleep."""
    night = '[[fault]]\nkind = "suspend"\nnode = "*"\nat = "1s"\nlasts = "1h"\n'
    assert answer(night, 60).outcome == "refused"
    assert answer('[authority]\nnode = "apart"\n' + night, 60).outcome == "issued"


@pytest.mark.parametrize(
    ("kind", "outcome"),
    [("ca_outage", "refused"), ("ca_hang", "hung"), ("token_expired", "unauthenticated")],
)
def test_a_fault_of_the_service_lasts_from_its_first_moment_to_just_before_its_end(
    kind: str, outcome: str
) -> None:
    """Faults come first within one world time: at its end a fault is over."""
    outcomes = [answer(fault(kind), at_s).outcome for at_s in (9.999999999, 10, 19.999999999, 20)]
    assert outcomes == ["issued", outcome, outcome, "issued"]


def test_it_dates_and_signs_as_its_faults_say() -> None:
    """A clock of its own, a lifetime of its own, another root: while they last, and together."""
    body = (
        fault("ca_clock")
        + 'by = "-1h"\n'
        + fault("ca_lifetime", at="15s")
        + 'lifetime = "90s"\n'
        + fault("ca_root", at="15s")
    )
    starts_s = plan().starts_wall_s
    behind, all_three, after = (answer(body, at_s).certificate for at_s in (12, 17, 26))
    assert behind == SignedCertificate(
        "1", starts_s + 12 - 3600 - 120, starts_s + 12 - 3600 + 600, root=0
    )
    assert all_three == SignedCertificate(
        "1", starts_s + 17 - 3600 - 120, starts_s + 17 - 3600 + 90, root=1
    )
    assert after == SignedCertificate("1", starts_s + 26 - 120, starts_s + 26 + 600)


def test_a_slow_answer_comes_that_much_later_by_the_monotonic_clock() -> None:
    """A sleep of its node puts it off; what is taken at the end of the fault is answered at once."""
    slow = fault("ca_slow") + 'answers_after = "1m"\n'
    asleep = '[[fault]]\nkind = "suspend"\nnode = "east"\nat = "30s"\nlasts = "1h"\n'
    assert answer(slow, 15) == Answer("slow", answers_world_ns=75 * NS_PER_S)
    assert answer(slow + asleep, 15) == Answer("slow", answers_world_ns=(3_600 + 75) * NS_PER_S)
    assert answer(slow, 20).outcome == "issued"


def test_a_sleeping_authority_cannot_even_hang() -> None:
    """The connection is not accepted."""
    asleep = '[[fault]]\nkind = "freeze"\nnode = "east"\nat = "10s"\nlasts = "10s"\n'
    assert answer(asleep + fault("ca_hang"), 15).outcome == "refused"


def test_serials_name_certificates_of_one_run() -> None:
    """1, 2, 3 ... of what was signed; what was refused takes no number."""
    of = plan(fault("ca_outage"))
    authority = ModelAuthority(of, clocks_of(of)[of.authority_node])
    certificates = [
        authority.answer(600, world_s * NS_PER_S).certificate for world_s in (1, 15, 30)
    ]
    assert [certificate.serial if certificate else None for certificate in certificates] == [
        "1",
        None,
        "2",
    ]


def test_who_trusts_an_older_root_is_refused() -> None:
    """From the change on; who has the root of now is served, and so is everybody before."""
    of = plan(
        '[[fault]]\nkind = "ca_root_change"\nat = "10s"\n[[fault]]\nkind = '
        '"ca_root_change"\nat = "30s"\n'
    )
    authority = ModelAuthority(of, clocks_of(of)[of.authority_node])

    def outcome(at_s: int, root_of_s: int | None) -> str:
        root_of_ns = None if root_of_s is None else root_of_s * NS_PER_S
        return authority.answer(600, at_s * NS_PER_S, root_of_ns).outcome

    assert [outcome(at_s, 0) for at_s in (9, 10, 40)] == ["issued", "not_trusted", "not_trusted"]
    assert [outcome(at_s, 10) for at_s in (10, 29, 30)] == ["issued", "issued", "not_trusted"]
    assert outcome(40, None) == outcome(40, 30) == "issued"
