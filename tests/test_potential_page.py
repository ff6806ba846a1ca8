"""The worked examples of docs/potential.md are what the program says."""

import re
from itertools import chain
from pathlib import Path
from statistics import mean, variance

import pytest

from segmentation.buying import BuyingHistory
from segmentation.money import format_amount, format_minor
from segmentation.policy import Policy
from segmentation.potential import (
    SERIES_ERROR,
    Buyer,
    ClassEstimates,
    ClassFigures,
    ClassPath,
    PotentialRules,
)
from segmentation.purchase_model import expected_purchases, expected_spend_minor, probability_no_purchase
from segmentation.segments import Stage
from tests.segmentation.test_risk import MODEL

PAGE = (Path(__file__).parents[1] / "docs" / "potential.md").read_text(encoding="utf-8")
TEXT = re.sub(r"\s+", " ", PAGE)
POLICY = Policy.default().with_changes(model=MODEL)
RULES = PotentialRules.of(POLICY)
REVENUE_MINOR = {
    "software": [400_000, 900_000, 500_000, 0, 1_200_000],
    "retail": [100_000, 40_000, 160_000, 0, 300_000, 120_000],
}
PROSPECTS = {"software": 3, "retail": 24}


def example_figures() -> dict[ClassPath, ClassFigures]:
    """Of the two classes of the page."""
    figures: dict[ClassPath, ClassFigures] = {}
    for name, revenues in REVENUE_MINOR.items():
        of_class = figures[(name,)] = ClassFigures()
        for revenue_minor in revenues:
            of_class.count(Stage.ESTABLISHED, revenue_minor)
        for _ in range(PROSPECTS[name]):
            of_class.count(Stage.PROSPECT, 0)
    return figures


def usd(amount_minor: float) -> str:
    """Without the currency."""
    return format_amount(round(amount_minor), "USD")


@pytest.mark.parametrize("silent_days", [21, 74, 160, 300])
def test_each_row_of_the_established_account_is_computed(silent_days: int) -> None:
    """And is what the formulas say, written out once more."""
    history = BuyingHistory(repeats=4, recency_days=84, age_days=84 + silent_days)
    bought = sum(day > history.age_days - POLICY.window_days for day in (0, 21, 42, 63, 84))
    revenue_minor = bought * 4_000
    potential = RULES.of_buyer(Buyer(history, revenue_minor, bought))

    spend = BuyingHistory(bought, history.recency_days, history.age_days, revenue_minor)
    assert RULES.spend is not None
    expected = expected_purchases(RULES.buying, history, RULES.horizon_days, SERIES_ERROR) * expected_spend_minor(
        RULES.spend, spend
    )
    last = 4 * revenue_minor // bought
    assert potential.expected_minor == (round(expected) + last) // 2
    nothing = probability_no_purchase(RULES.buying, history, RULES.horizon_days)
    row = (
        f"| {silent_days} | {usd(revenue_minor)} | {usd(expected)} | {usd(last)} "
        f"| {format_minor(potential.expected_minor, 'USD')} "
        f"| {usd(potential.low_minor)} to {usd(potential.high_minor)} | {100 * nothing:.1f} % |"
    )
    assert row in PAGE


def k_of(samples: list[list[float]]) -> float:
    """s² / τ² of classes of one parent, as in Bühlmann & Gisler (2005), 4.8, from the accounts themselves."""
    count, together = sum(map(len, samples)), mean(value for sample in samples for value in sample)
    within = sum((len(sample) - 1) * variance(sample) for sample in samples) / (count - len(samples))
    between = sum(len(sample) * (mean(sample) - together) ** 2 for sample in samples)
    weight = count - sum(len(sample) ** 2 for sample in samples) / count
    return within / ((between - (len(samples) - 1) * within) / weight)


def test_each_row_of_the_classes_is_computed() -> None:
    """And is what credibility says when it is worked out from the accounts and not from sums."""
    estimates = ClassEstimates(example_figures())
    revenues = {name: [float(revenue) for revenue in its] for name, its in REVENUE_MINOR.items()}
    bought = {name: [1.0] * len(its) + [0.0] * PROSPECTS[name] for name, its in REVENUE_MINOR.items()}
    k_revenue, k_bought = k_of([*revenues.values()]), k_of([*bought.values()])
    assert f"k = {k_revenue:.3f} for the revenue and k = {k_bought:.3f} for the conversion" in TEXT

    above = mean(chain(*revenues.values())), mean(chain(*bought.values()))
    assert row_of("all accounts", estimates, (), *above, "", "") in PAGE
    for name in REVENUE_MINOR:
        found, path = (mean(revenues[name]), mean(bought[name])), (name,)
        z_revenue = len(revenues[name]) / (len(revenues[name]) + k_revenue)
        z_bought = len(bought[name]) / (len(bought[name]) + k_bought)
        estimate = estimates.of(path)
        assert estimate is not None
        assert estimate.revenue_minor == pytest.approx(z_revenue * found[0] + (1 - z_revenue) * above[0])
        assert estimate.conversion == pytest.approx(z_bought * found[1] + (1 - z_bought) * above[1])
        assert row_of(name, estimates, path, *found, f"{z_revenue:.3f}"[1:], f"{z_bought:.3f}"[1:]) in PAGE


def row_of(
    name: str, estimates: ClassEstimates, path: ClassPath, own_minor: float, share: float, z_revenue: str, z_bought: str
) -> str:
    """Of the table of classes."""
    estimate, potential = estimates.of(path), estimates.potential(path, RULES, is_prospect=True)
    assert estimate is not None and potential is not None
    cells = [
        *(name, usd(own_minor), z_revenue, usd(estimate.revenue_minor)),
        *(f"{100 * share:.1f} %", z_bought, f"{100 * estimate.conversion:.1f} %"),
        format_minor(potential.expected_minor, "USD"),
        f"{usd(potential.low_minor)} to {usd(potential.high_minor)}",
    ]
    return f"| {' | '.join(cells)} |".replace("|  |", "| |")


def test_a_new_start_and_an_unknown_class_are_as_the_page_says() -> None:
    """The one as its class without the conversion, the other as all accounts."""
    estimates = ClassEstimates(example_figures())
    new_start = estimates.potential(("software",), RULES, is_prospect=False)
    assert new_start is not None
    assert f"A new start of `software` may bring {format_minor(new_start.expected_minor, 'USD')}." in TEXT
    assert estimates.potential(("mining",), RULES, is_prospect=True) == estimates.potential((), RULES, is_prospect=True)
    assert ClassEstimates({}).potential((), RULES, is_prospect=True) is None


def test_the_accounts_of_the_example_are_the_ones_it_names() -> None:
    """As the text above the table has them."""
    for name, revenues in REVENUE_MINOR.items():
        *amounts, last = [f"{revenue // 100:,}" for revenue in revenues]
        said = f"with {', '.join(amounts)} and {last} USD, and {PROSPECTS[name]} prospects"
        assert re.search(rf"- `{name}`: \w+ (established accounts )?{re.escape(said)}", TEXT)
    assert f"in the next {POLICY.potential.horizon_days} days" in TEXT


def test_what_was_bought_once_counts_as_nothing_once_it_is_established() -> None:
    """As the page says of what it does not know."""
    assert RULES.of_buyer(Buyer(BuyingHistory(0, 0, 100), 4_000, 1)).expected_minor == 0
