"""The worked example of docs/model.md is what the program says."""

import re
from pathlib import Path

import pytest

from segmentation.buying import BuyingHistory
from segmentation.money import format_minor
from segmentation.purchase_model import (
    BuyingModel,
    SpendModel,
    expected_purchases,
    expected_revenue_minor,
    planned_revenue_minor,
    probability_alive,
    probability_no_purchase,
)

PAGE = (Path(__file__).parents[1] / "docs" / "model.md").read_text(encoding="utf-8")
BUYING = BuyingModel(r=0.605217, alpha_days=56.4097, a=0.638518, b=1.17643)
SPEND = SpendModel(p=5.3947, q=3.77446, gamma_minor=1_874.09)


def example(silent_days: int) -> BuyingHistory:
    """Five purchases 21 days apart for 40.00 each, and then silence."""
    return BuyingHistory(repeats=4, recency_days=84, age_days=84 + silent_days, repeat_revenue_minor=16_000)


@pytest.mark.parametrize("silent_days", [0, 21, 74, 180])
def test_each_row_of_the_example_is_computed(silent_days: int) -> None:
    """To the digits that are printed."""
    history = example(silent_days)
    row = (
        f"| {silent_days} "
        f"| {100 * probability_alive(BUYING, history):.1f} % "
        f"| {100 * probability_no_purchase(BUYING, history, 90):.1f} % "
        f"| {expected_purchases(BUYING, history, 180):.2f} "
        f"| {format_minor(expected_revenue_minor(BUYING, SPEND, history, 180), 'USD')} |"
    )
    assert row in PAGE.replace("**", "")


def test_what_to_plan_with_in_the_example_is_computed() -> None:
    """From its own two numbers."""
    expected_minor = expected_revenue_minor(BUYING, SPEND, example(74), 180)
    planned = planned_revenue_minor(expected_minor, example(74), 16_000, horizon_days=180, new_start_days=90)
    said = f"halfway between 160.00 and {expected_minor / 100:.2f}: {format_minor(planned, 'USD')}"
    assert said in re.sub(r"\s+", " ", PAGE)


def test_the_parameters_of_the_example_are_the_ones_it_names() -> None:
    """As the text above it has them."""
    for name, value in {"r": BUYING.r, "a": BUYING.a, "b": BUYING.b, "p": SPEND.p, "q": SPEND.q}.items():
        assert re.search(rf"\b{name} = {re.escape(str(value))}[,;)]", PAGE), name
    assert f"alpha = {BUYING.alpha_days} days" in PAGE
    assert f"gamma = {SPEND.gamma_minor / 100:.4f} USD" in re.sub(r"\s+", " ", PAGE)
