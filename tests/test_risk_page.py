"""The worked example of docs/risk.md is what the program says."""

from pathlib import Path

import pytest

from segmentation.money import format_minor
from segmentation.policy import Policy
from segmentation.risk import Risk, RiskRules, score_of
from tests.segmentation.test_risk import MODEL

PAGE = (Path(__file__).parents[1] / "docs" / "risk.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("silent_days", [0, 21, 60, 61, 160])
def test_each_row_of_the_example_is_computed(silent_days: int) -> None:
    """Day by day, so that the band counts."""
    rules = RiskRules.of(Policy.default().with_changes(model=MODEL, risk={"watch": 50, "high": 80}))
    risk = Risk()
    risk.know(1_000, 1_084, 5, 1)
    for day in range(1_084, 1_084 + silent_days + 1):
        odds = risk.settle(rules, day, risk.level)
    at_risk = rules.revenue_at_risk_minor(risk.history(day), 3_650_000, odds)
    row = f"| {silent_days} | {score_of(odds):.1f} | {risk.level} | {format_minor(at_risk, 'USD')} |"
    assert row in PAGE


def test_the_defaults_are_those_that_the_page_names() -> None:
    """Each line of the table."""
    risk = Policy.default().risk.document()
    for name, value in {**risk.pop("evidence"), **risk}.items():
        assert f"\n{name} = {str(value).removesuffix('.0')} " in PAGE
