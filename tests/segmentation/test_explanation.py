"""The forecast is what an account really goes through when nothing happens but time."""

from hypothesis import given
from hypothesis import strategies as st

from segmentation.explanation import Step, forecast
from segmentation.segments import TIERS, Segment

WINDOW_DAYS, NEW_START_DAYS, TODAY = 10, 4, 1_000
GATES = {None: (300, 100), 0: (290, 95), 1: (310, 95), 2: (310, 105)}


def _forecast(entries: list[tuple[int, int]], *, first_purchase_day: int = 900, tier: int | None) -> list[Step]:
    return forecast(
        entries,
        day=TODAY,
        window_days=WINDOW_DAYS,
        new_start_days=NEW_START_DAYS,
        first_purchase_day=first_purchase_day,
        tier=tier,
        gates_of=GATES.__getitem__,
    )


def test_an_account_falls_on_the_days_its_revenue_leaves_the_window_and_lapses_with_the_last() -> None:
    steps = _forecast([(994, 200), (996, 150), (999, 50)], tier=0)
    assert steps == [
        Step(1_004, 200, Segment.ENTERPRISE, False),
        Step(1_006, 50, Segment.COMMERCIAL, False),
        Step(1_009, 0, Segment.COMMERCIAL, True),
    ]


def test_the_band_keeps_an_account_where_the_pure_cutoff_would_not() -> None:
    assert _forecast([(994, 10), (999, 295)], tier=0)[0].day == 1_009
    assert _forecast([(994, 10), (999, 295)], tier=1)[0].day == 1_009


def test_a_new_start_graduates_to_the_tier_that_its_revenue_says() -> None:
    steps = _forecast([(998, 350)], first_purchase_day=998, tier=None)
    assert steps[0] == Step(1_002, 350, Segment.KEY, False)


def test_a_purchase_dated_ahead_makes_a_prospect_a_new_start_on_its_day() -> None:
    steps = _forecast([(1_003, 50)], first_purchase_day=1_003, tier=None)
    assert [(step.day, step.segment) for step in steps] == [
        (1_003, Segment.NEW_START),
        (1_007, Segment.COMMERCIAL),
        (1_013, Segment.COMMERCIAL),
    ]
    assert [step.lapsed for step in steps] == [False, False, True]


@given(
    st.lists(st.tuples(st.integers(TODAY - WINDOW_DAYS + 1, TODAY + 8), st.integers(-200, 400)), max_size=8),
    st.integers(985, 1_005),
)
def test_the_forecast_equals_a_walk_through_the_days(entries: list[tuple[int, int]], first_purchase_day: int) -> None:
    def where(day: int, tier: int | None) -> tuple[Segment, bool, int, int | None]:
        revenue = sum(amount for entry_day, amount in entries if day - WINDOW_DAYS < entry_day <= day)
        if first_purchase_day > day:
            return Segment.PROSPECT, False, revenue, None
        if day - first_purchase_day < NEW_START_DAYS:
            return Segment.NEW_START, False, revenue, None
        if revenue <= 0:
            return Segment.COMMERCIAL, True, revenue, None
        new_tier = [revenue >= gate for gate in (*GATES[tier], 0)].index(True)
        return TIERS[new_tier], False, revenue, new_tier

    segment, lapsed, _, tier = where(TODAY, None)
    expected = []
    for day in range(TODAY + 1, TODAY + 40):
        now_segment, now_lapsed, revenue, next_tier = where(day, tier)
        if (now_segment, now_lapsed) != (segment, lapsed):
            segment, lapsed = now_segment, now_lapsed
            expected.append(Step(day, revenue, segment, lapsed))
        tier = next_tier
    start = where(TODAY, None)[3]
    assert _forecast(entries, first_purchase_day=first_purchase_day, tier=start) == expected
