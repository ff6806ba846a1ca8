"""The worked example of docs/priority.md is what the program says, and its limits are the ones that hold."""

import re
from pathlib import Path
from typing import NamedTuple

import pytest

from segmentation.classification import Traits
from segmentation.money import format_amount, format_minor
from segmentation.policy import Policy
from segmentation.population import Member
from segmentation.potential import COVERED_SHARE, ClassEstimates, PotentialRules
from segmentation.risk import Risk
from segmentation.segments import Segment, Stage
from segmentation.worklist import Assessment, Assessor
from streams.cli.top import show_top
from streams.ranking import WORKLISTS_SHARE
from streams.top import PAGE as READ_AT_ONCE
from streams.top import SPARE, PriorityData, Top, TopAccount, potential_data, priority_data, reasons
from streams.worklists import DAYS_BETWEEN
from tests.segmentation.test_risk import MODEL
from tests.test_potential_page import example_figures

PAGE = (Path(__file__).parents[1] / "docs" / "priority.md").read_text(encoding="utf-8")
TEXT = re.sub(r"\s+", " ", PAGE)
POLICY = Policy.default().with_changes(model=MODEL)
TODAY = 10_000
RISES = (None, 5_110_000, 4_300_000)
SOFTWARE = Traits(("software",), 60, "Kim", "emea")


class Example(NamedTuple):
    """An account of the page."""

    member: Member
    traits: Traits

    @property
    def assessment(self) -> Assessment:
        """By the policy of the page, as of today."""
        return Assessor(POLICY).assess(self.member, self.traits, TODAY, ClassEstimates(example_figures()), RISES)


def established(account_id: str, tier: int, silent_days: int) -> Example:
    """Five purchases 21 days apart, and then silence."""
    risk = Risk()
    risk.know(TODAY - silent_days - 84, TODAY - silent_days, 5, 5)
    member = Member(
        account_id, stage=Stage.ESTABLISHED, revenue_minor=3_650_000, tier=tier, version=1, day=TODAY, risk=risk
    )
    return Example(member, SOFTWARE)


EXAMPLES = (
    established("acme", 1, 21),
    established("bolt", 2, 160),
    Example(Member("cargo", version=1, day=TODAY), SOFTWARE),
    Example(Member("dune", version=1, day=TODAY), Traits(("retail",), 0, "", "")),
)


def usd(amount_minor: int | None) -> str:
    """Without the currency."""
    return "" if amount_minor is None else format_amount(amount_minor, "USD")


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.member.account_id)
def test_each_account_of_the_example_is_assessed(example: Example) -> None:
    """What is known of it, and what that counts."""
    (account_id, segment), found = (example.member.account_id, example.member.current_segment), example.assessment
    assert found.potential is not None
    known = [
        *(account_id, f"`{segment}`", usd(found.potential.expected_minor), usd(found.revenue_at_risk_minor)),
        *(str(example.traits.fit), usd(example.member.revenue_minor), usd(found.to_next_tier_minor)),
    ]
    parts = [account_id, *map(usd, found.priority), format_minor(found.priority.score_minor, "USD")]
    for cells in (known, parts):
        assert f"| {' | '.join(cells)} |".replace("|  |", "| |") in PAGE


def test_the_list_is_what_the_command_prints(capsys: pytest.CaptureFixture[str]) -> None:
    """The same accounts, the most at stake first."""
    accounts = [_told(example) for example in EXAMPLES]
    accounts.sort(key=lambda account: -account.priority.score_minor)
    show_top(Top(as_of_us=TODAY * 86_400_000_000, accounts=accounts[:3], unplaced=0), POLICY)
    printed = "\n".join(line.rstrip() for line in capsys.readouterr().out.splitlines())
    (written,) = [text for language, text in re.findall(r"```(\w*)\n(.*?)```", PAGE, re.DOTALL) if not language]
    assert printed == written.rstrip("\n")


def _told(example: Example) -> TopAccount:
    (member, traits), assessment = example, example.assessment
    playbook = POLICY.segments.of(member.current_segment)
    assert assessment.potential is not None
    why = reasons(assessment, POLICY, member.tier)
    if traits.fit:
        why.append("industry is software (+60 points of fit)")
    return TopAccount(
        account_id=member.account_id,
        population="all",
        segment=member.current_segment,
        owner=traits.owner,
        region=traits.region,
        rolling_revenue_minor=member.revenue_minor,
        priority=priority_data(assessment),
        potential=potential_data(assessment.potential, PotentialRules.of(POLICY)),
        reasons=why,
        next_step=playbook.next_step,
        role=playbook.role,
    )


def test_the_weights_on_the_page_are_the_default_ones() -> None:
    """Each line of the table."""
    for name, weight in POLICY.priority:
        assert f"\n{name} = {weight} " in PAGE


def test_the_fields_of_a_line_are_the_ones_that_the_page_names() -> None:
    """All of them, and those of the score."""
    named = set(re.findall(r"`(\w+)`", PAGE))
    assert set(TopAccount.model_fields) <= named
    assert set(PriorityData.model_fields) <= named
    assert set(Segment) <= named


def test_the_limits_are_the_ones_that_hold() -> None:
    """How often, how much of the time, how many are read."""
    assert DAYS_BETWEEN == 7 and "once in seven days" in TEXT
    assert WORKLISTS_SHARE == 0.03 and "3 % of a worker's time" in TEXT
    assert f"{READ_AT_ONCE} at a time" in TEXT and f"N + {SPARE}" in TEXT
    assert COVERED_SHARE == 0.8
