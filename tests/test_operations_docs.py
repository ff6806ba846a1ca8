"""The pages for whoever operates an installation hold what the program has."""

import re
from pathlib import Path

from streams.monitoring import FIGURES
from streams.worker_figures import WorkerFigures

PROJECT = Path(__file__).parents[1]
MONITORING = (PROJECT / "docs" / "monitoring.md").read_text()


def test_every_figure_is_documented_with_its_labels() -> None:
    """And no other is."""
    _, _, rest = MONITORING.partition("<!-- figures -->")
    table = rest.partition("<!-- figures: end -->")[0]
    documented = {
        name: tuple(re.findall(r"`(\w+)`", labels))
        for name, labels in re.findall(r"^\| `(resegment_\w+)` \|([^|]*)\|", table, re.MULTILINE)
    }
    assert documented == {figure.name: figure.labels for figure in (*FIGURES, *WorkerFigures.figures)}


def test_every_reason_not_to_be_ready_is_documented() -> None:
    """By the word that is in the answer."""
    source = (PROJECT / "streams" / "worker_figures.py").read_text()
    reasons = set(re.findall(r'Unready\("(\w+)"', source))
    assert len(reasons) == 7
    assert all(f"`{reason}`" in MONITORING for reason in reasons)
