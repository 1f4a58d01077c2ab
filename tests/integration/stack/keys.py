"""Every key of every chart that we set: `python -m tests.integration.stack.keys >
tests/integration/stack/keys.txt` writes the list again.

A change of that file is a change of what is installed on a user's machine, so it is to be seen in
a review.
"""

from __future__ import annotations

import sys
from pathlib import Path

from meshwake.cluster.stack.pins import read_pins

from tests.integration.stack.charts import keys_of, our_charts

KEYS_FILE = Path(__file__).with_name("keys.txt")


def lines() -> list[str]:
    """chart, key; sorted. Of all minors of Istio together: some keys are known from one minor on
    only."""
    of_minors = {
        f"{chart.chart} {key}"
        for minor in read_pins().istio.minor
        for chart in our_charts(minor).values()
        for key in keys_of(chart.values)
    }
    return sorted(of_minors)


if __name__ == "__main__":
    sys.stdout.write("".join(f"{line}\n" for line in lines()))
