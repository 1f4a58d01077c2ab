"""Which series an expression asks for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from meshwake.analysis.promql import absent_in, evaluated_at_each_step, parse_query


@pytest.mark.parametrize(
    ("expression", "series", "labels"),
    [
        ("up == 0", ["up"], set()),
        ("vector(1)", [], set()),
        ("time() > 5", [], set()),
        ("hour() == 3 and on() vector(1)", [], set()),
        ('absent(up{job="ztunnel"} == 1)', ['up{job="ztunnel"}'], set()),
        ("sum by (node) (increase(a_total[10m])) >= 3", ["a_total"], {"node"}),
        ("sum(increase(a_total[10m])) without (pod, node) >= 3", ["a_total"], {"pod", "node"}),
        ("max_over_time((a - on (node) group_left () max by (node) (b))[2d:5m])", ["a", "b"], {"node"}),
        ("mesh:failed:increase10m > bool 1e3", ["mesh:failed:increase10m"], set()),
        ("rate(a[5m] offset 1h) / b @ end() # c\n unless d", ["a", "b", "d"], set()),
        ('{__name__="a", x=~"b{c}"}', ['a{x=~"b{c}"}'], set()),
        ('{"a.b", x="y"}', ['a.b{x="y"}'], set()),
        ('{job="x"}', ['{job="x"}'], set()),
        ('label_replace(a, "b", "$1", "c", "d(e)")', ["a"], set()),
        ("histogram_quantile(0.9, sum by (le) (rate(a_bucket[5m])))", ["a_bucket"], {"le"}),
        ("count_values('v', a) > 0x1f", ["a"], set()),
        ("a > Inf or b < NaN", ["a", "b"], set()),
        ("topk(3, a) and ignoring(x) b", ["a", "b"], {"x"}),
    ],
)  # fmt: skip
def test_series_and_labels_are_found(expression: str, series: list[str], labels: set[str]) -> None:
    query = parse_query(expression)
    assert [str(each) for each in query.selectors] == series
    assert query.labels == labels


@pytest.mark.parametrize(
    ("expression", "series"),
    [
        ("absent(a)", {"a"}),
        ("a or absent(sum by (x) (b{c='d'})) or d", {"b"}),
        ("absent_over_time(a[5m]) and ABSENT(b)", {"a", "b"}),
        ("absent + a", set()),
        ("rate(absent_total[5m])", set()),
        ("absent(", set()),
    ],
)
def test_whose_absence_is_queried(expression: str, series: set[str]) -> None:
    assert absent_in(expression) == series


@pytest.mark.parametrize(
    ("expression", "meant"),
    [
        ("a @ end()", "a"),
        ("rate(a[5m] @ start ( )) > b @end()", "rate(a[5m]) > b"),
        ("a @ 1795420800 > 1", "a @ 1795420800 > 1"),
        ("a{b='@ end()'} # @ end()", "a{b='@ end()'} # @ end()"),
    ],
)
def test_the_ends_of_a_query_are_the_moment_of_a_look(expression: str, meant: str) -> None:
    assert evaluated_at_each_step(expression) == meant


@given(st.text() | st.text("absent( )@end{}[]"))
def test_any_text_is_read(text: str) -> None:
    """Whether it is an expression, Prometheus says."""
    parse_query(text)
    absent_in(text)
    assert "@" in text or evaluated_at_each_step(text) == text
