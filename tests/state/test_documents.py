"""What is written of an account or a member is read back, whatever it holds."""

from hypothesis import given, settings
from hypothesis import strategies as st

from segmentation.account import NEVER, Account, Profile
from segmentation.events import AttributeValue
from segmentation.ledger import OPEN_ENTRIES_MAX, Ledger
from segmentation.population import Member
from segmentation.risk import LEVELS, NO_EVIDENCE, Level, Risk
from segmentation.segments import Segment, Stage
from state.documents import (
    decode_account,
    decode_member,
    decode_profile,
    encode_account,
    encode_member,
    encode_profile,
)

days = st.integers(0, NEVER)
revenues = st.one_of(
    st.integers(-(2**127), 2**127 - 1), st.sampled_from([0, 1, -1, 2**63, -(2**63) - 1, -(2**127), 2**127 - 1])
)
counts = st.integers(0, 2**32 - 1)
entries = st.lists(
    st.tuples(st.integers(1, NEVER - 1), st.integers(-(2**63), 2**63 - 1), st.binary(min_size=8, max_size=8)),
    max_size=3 * OPEN_ENTRIES_MAX,
)


@settings(max_examples=150)
@given(days, days, days, counts, revenues, st.booleans(), st.lists(st.integers(20_000, 20_729)), entries)
def test_an_account_is_read_as_it_was_written(
    day: int,
    first_purchase_day: int,
    due_day: int,
    records: int,
    revenue_minor: int,
    announced: bool,
    bought: list[int],
    history: list[tuple[int, int, bytes]],
) -> None:
    """With all its numbers, its open block and the index of its closed ones."""
    account = Account(
        "acme",
        day=day,
        first_purchase_day=first_purchase_day,
        due_day=due_day,
        version=records,
        revenue_minor=revenue_minor,
        announced=announced,
        evidence_days=(day, 0, first_purchase_day),
    )
    for bought_on in bought:
        account.purchase_days.add(bought_on)
    for entry in history:
        account.history.append(*entry)
    document = encode_account(account)
    assert type(document) is bytes
    assert len(document) < 640, "where the cost of writing it jumps"
    read = decode_account("acme", document, account.history.index or None)
    for name in (
        "account_id",
        "day",
        "first_purchase_day",
        "due_day",
        "version",
        "revenue_minor",
        "announced",
        "evidence_days",
    ):
        assert getattr(read, name) == getattr(account, name)
    assert read.purchase_days.first_day == account.purchase_days.first_day
    assert read.purchase_days.bits == account.purchase_days.bits
    assert read.history.open == account.history.open
    assert read.history.closed == account.history.closed
    assert encode_account(read) == document
    # what is read can go on: its open block is its own, and is not the document
    read.history.append(1, 1, bytes(8))
    assert encode_account(account) == document


def test_an_account_without_anything_has_no_index() -> None:
    """An empty ledger writes nothing, and nothing is read as an empty ledger."""
    account = Account("acme")
    assert account.history.index == b""
    read = decode_account("acme", encode_account(account), None)
    assert read.history.open == b""
    assert read.history.closed == []
    assert Ledger().index == b""


optional_tiers = st.one_of(st.none(), st.integers(0, 2))


@settings(max_examples=150)
@given(
    st.sampled_from(Stage),
    revenues,
    optional_tiers,
    st.one_of(st.none(), st.sampled_from(Segment)),
    counts,
    st.integers(-(2**63), 2**63 - 1),
    st.integers(0, 2**64 - 1),
    days,
    st.text(st.characters(exclude_categories=["C"]), max_size=30),
)
def test_a_member_is_read_as_it_was_written(
    stage: Stage,
    revenue_minor: int,
    tier: int | None,
    segment: Segment | None,
    sequence: int,
    effective_at_us: int,
    version: int,
    day: int,
    population: str,
) -> None:
    """With its population, whatever that is called."""
    member = Member(
        "acme",
        stage=str(stage),
        revenue_minor=revenue_minor,
        tier=tier,
        segment=segment,
        sequence=sequence,
        effective_at_us=effective_at_us,
        version=version,
        day=day,
    )
    read, read_population = decode_member("acme", encode_member(member, population))
    assert read_population == population
    assert {name: getattr(read, name) for name in Member.__slots__} == {
        name: getattr(member, name) for name in Member.__slots__
    }
    assert (read.current_segment, read.lapsed) == (member.current_segment, member.lapsed)


@given(
    st.tuples(days, days, st.integers(0, NEVER)),
    st.sampled_from(LEVELS),
    st.sampled_from(LEVELS),
    counts,
    st.integers(0, 2**64 - 1),
    days,
    st.tuples(days, days, days, days) | st.just(NO_EVIDENCE),
    st.booleans(),
)
def test_a_risk_is_read_as_it_was_written(
    bought: tuple[int, int, int],
    level: Level,
    told_level: Level,
    sequence: int,
    effective_at_us: int,
    due_day: int,
    evidence_days: tuple[int, ...],
    fell: bool,
) -> None:
    """Also where nothing is known of it but a fall that the log told of."""
    risk = Risk(*bought, level, told_level, sequence, effective_at_us, due_day, evidence_days, bought[2] // 2, fell)
    read, _ = decode_member("acme", encode_member(Member("acme", risk=risk), "all"))
    if not (bought[2] or sequence or any(evidence_days)):
        assert read.risk is None
        return
    assert read.risk is not None
    for name in Risk.__slots__:
        assert getattr(read.risk, name) == getattr(risk, name)
    assert (read.risk.evidence_days is NO_EVIDENCE) is (not any(evidence_days))


def test_a_fall_alone_is_kept() -> None:
    """Learnt at a claim, before the account's purchases are known again."""
    member = Member("acme", risk=Risk(evidence_days=(0, 0, 0, 20_001)))
    read, _ = decode_member("acme", encode_member(member, "all"))
    assert read.risk is not None and read.risk.evidence_days == (0, 0, 0, 20_001)


attribute_values = st.one_of(
    st.text(max_size=20),
    st.integers(-(2**53), 2**53),
    st.floats(allow_nan=False, allow_infinity=False),
)
fields = st.dictionaries(
    st.one_of(st.just("name"), st.from_regex(r"attributes\.[a-z][a-z0-9_]{0,9}", fullmatch=True)),
    st.tuples(attribute_values, st.integers(0, 2**62)),
    max_size=8,
)


@settings(max_examples=150)
@given(fields)
def test_a_profile_is_read_as_it_was_written(stated: dict[str, tuple[AttributeValue, int]]) -> None:
    """Values keep their type: 1 and 1.0 are two statements; and the same profile is always the same bytes."""
    document = encode_profile(Profile(stated))
    read = decode_profile(document)
    assert {field: (repr(value), at) for field, (value, at) in read.fields.items()} == {
        field: (repr(value), at) for field, (value, at) in stated.items()
    }
    assert not read.changed
    assert encode_profile(Profile(dict(reversed(stated.items())))) == document
    assert decode_profile(None).fields == {}
