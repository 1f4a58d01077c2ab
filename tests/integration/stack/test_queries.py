from __future__ import annotations

from tests.integration.stack.queries import labels_in_text, labels_of, series_of

HARD = (
    'count by (node) (up{job="ztunnel"} == 1) unless on (node) count by (node) (other_total '
    "offset 5m)"
)


def test_series_are_found_and_words_are_not() -> None:
    assert series_of(HARD) == {"up", "other_total"}
    assert series_of("histogram_quantile(0.99, sum by (le, pod) (rate(x_bucket[1m])))") == {
        "x_bucket"
    }
    assert series_of("max(abs(a)) - time() or vector(0)") == {"a"}


def test_labels_are_found_where_they_are_chosen_grouped_by_or_shown() -> None:
    assert labels_of(HARD) == {"node", "job"}
    assert labels_of("sum(a)") == set()
    assert labels_in_text("{{node}} {{ $labels.name }} {{ $value }}") == {"node", "name"}
