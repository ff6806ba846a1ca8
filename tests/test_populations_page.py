"""The worked example of docs/populations.md is what the program says."""

import re
from pathlib import Path

from segmentation.account import Reason, Standing
from segmentation.money import format_amount
from segmentation.order_index import Basis
from segmentation.policy import Policy
from segmentation.population import Change, Population
from segmentation.segments import TIERS
from segmentation.transfers import HandOver

PAGE = (Path(__file__).parents[1] / "docs" / "populations.md").read_text(encoding="utf-8")
ROW = re.compile(r"^\| ([a-z]+) \| ([a-z]+) \| ([\d,.]+) \| (\d+) % \| (\w+) \| (\w+) \|$", re.MULTILINE)
POLICY = Policy.default()


def population(name: str) -> Population:
    """By the default shares, without a band."""
    return Population(name, basis=Basis(POLICY.basis), boundaries=POLICY.boundaries, band=0)


def standing(account: str, name: str, revenue_minor: int, version: int = 1, transfer: int = 0) -> Standing:
    """Of an account that has been there for long."""
    reason = Reason.POPULATION_CHANGED if transfer else Reason.PURCHASE
    event_id = f"s-{account}-2" if transfer else "p"
    told = Standing(account, "established", revenue_minor, version, 20_000, reason, event_id, None)
    return told._replace(population=name, transfer=transfer)


def of_page() -> list[tuple[str, str, int, str, str, str]]:
    """The rows of the example: account, region, revenue, percent above, tier, tier among all."""
    rows = ROW.findall(PAGE)
    assert len(rows) == 8
    return [(name, region, int(re.sub(r"\D", "", amount)), *rest) for name, region, amount, *rest in rows]


def test_each_account_has_the_tiers_of_the_table() -> None:
    """Among its region's, and among all."""
    rows = of_page()
    regions = {region: population(region) for _, region, *_ in rows}
    together = population("all")
    for region, ranked in regions.items():
        ranked.apply([standing(name, region, revenue) for name, its, revenue, *_ in rows if its == region], 0)
    together.apply([standing(name, "all", revenue) for name, _, revenue, *_ in rows], 0)
    for name, region, revenue, percent, tier, among_all in rows:
        above, total = regions[region].tiers.position(revenue)
        assert (f"{100 * above // total}", 100 * above % total) == (percent, 0)
        assert regions[region].members[name].current_segment == tier
        assert together.members[name].current_segment == among_all
        assert f" {format_amount(revenue, POLICY.base_currency)} " in PAGE


def test_who_moves_is_announced_as_the_page_says() -> None:
    """By the protocol between two populations; the displaced neighbour, too."""
    rows = of_page()
    regions = {name: population(name) for name in ("emea", "apac")}
    for name, region, revenue, *_ in rows:
        regions[region].apply([standing(name, region, revenue)], 0)
    segments = {name: regions[region].members[name].segment for name, region, *_ in rows}
    found = dict[str, Change]()
    cem = regions["emea"].told_of("cem")
    # it began in emea on this page, so what leads there is left out
    changes, _ = regions["emea"].apply([], 0, leaving=["cem"])
    found |= {change.account_id: change for change in changes}
    moved = standing("cem", "apac", 1_500_000, transfer=1)
    regions["apac"].arrive(HandOver("cem", 1, "emea", "apac", cem))
    changes, _ = regions["apac"].apply([moved], 0)
    found |= {change.account_id: change for change in changes}
    assert set(found) == {"cem", "eva", "gus"}
    change = found["cem"]
    for field in ("population", "previous_population", "previous_segment", "current_segment", "direction"):
        assert f'"{field}": "{getattr(change, field)}"' in PAGE
    assert f'"kind": "{change.cause.kind}", "event_id": "{change.cause.event_id}"' in PAGE
    assert change.current_segment is TIERS[0] and segments["eva"] is TIERS[0]
    assert (found["eva"].current_segment, found["gus"].current_segment) == ("enterprise", "commercial")
