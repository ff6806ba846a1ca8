from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segmentation import classification
from segmentation.account import Profile
from segmentation.classification import Classifier, Traits, attributes_of, number_of
from segmentation.events import AttributeValue, Signup
from segmentation.policy import Policy

VALUES = st.one_of(st.text(max_size=80), st.integers(-(2**53), 2**53), st.floats(allow_nan=False, allow_infinity=False))
ICP = [
    {"attribute": "industry", "any_of": ["software", "finance"], "points": 40},
    {"attribute": "employees", "at_least": 100, "at_most": 5_000, "points": 30},
    {"attribute": "region", "any_of": ["apac"], "points": -20},
]


def classifier(**tables: Any) -> Classifier:
    """By the default policy with these tables."""
    return Classifier.of(Policy.default().with_changes(**tables))


def fit_of(rule: Mapping[str, object], value: AttributeValue) -> int:
    """What this rule gives an account whose attribute is this."""
    return classifier(icp=[{"attribute": "a", "points": 1, **rule}]).traits({"a": value}).fit


def test_attributes_make_traits() -> None:
    """The class, the coarsest first; what the rules give together; who has it, and where."""
    by_policy = classifier(icp=ICP)
    attributes: dict[str, AttributeValue] = {
        "industry": " Software ", "employees": 420, "region": "EMEA", "owner": "Kim", "floor": 3,
    }  # fmt: skip

    assert by_policy.traits(attributes) == Traits(("software", "mid", "emea"), 70, "Kim", "emea")
    assert by_policy.fit_reasons(attributes) == [("industry is software", 40), ("employees is 420 (100 to 5000)", 30)]


def test_an_account_without_attributes_is_unknown() -> None:
    """No rule holds of it, whatever the rule asks."""
    by_policy = classifier(icp=[*ICP, {"attribute": "employees", "at_most": 10, "points": 5}])

    assert by_policy.traits({}) == Traits(("unknown",) * 3, 0, "", "")
    assert by_policy.traits({}) is by_policy.traits({"floor": 3})
    assert by_policy.fit_reasons({}) == []


def test_without_class_attributes_all_accounts_are_one_class() -> None:
    """And the rest is as ever."""
    by_policy = classifier(classes={"by": []}, icp=ICP)

    assert by_policy.traits({"industry": "finance", "region": "US"}) == Traits((), 40, "", "us")
    assert by_policy.traits({}).class_path == ()


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0, "small"), (99, "small"), (99.999, "small"), (100, "mid"), (100.0, "mid"), ("100", "mid"), (" 250 ", "mid"),
        ("99.9999999", "small"), (1_000, "large"), (2**53, "large"), (1e300, "large"), (-1, "unknown"),
        ("-5", "unknown"), (-0.5, "unknown"), ("", "unknown"), ("many", "unknown"), ("1,000", "unknown"),
        ("1e3", "unknown"), ("+5", "unknown"), ("٣", "unknown"), ("nan", "unknown"), (float("nan"), "unknown"),
        ("0x10", "unknown"), ("1_000", "unknown"), ("5.", "unknown"),
    ],
)  # fmt: skip
def test_an_attribute_with_bands_is_the_name_of_one(value: AttributeValue, expected: str) -> None:
    """A text that is a plain number is one; what is no number, or below all bands, is unknown."""
    assert classifier(classes={"by": ["employees"]}).traits({"employees": value}).class_path == (expected,)


@given(
    begin_at=st.lists(st.integers(0, 10**12), min_size=1, max_size=16, unique=True).map(sorted),
    number=st.integers(-10, 10**12 + 10),
    nearest=st.integers(-1, 1),
    data=st.data(),
)
def test_a_boundary_belongs_to_the_higher_band(
    begin_at: list[int], number: int, nearest: int, data: st.DataObject
) -> None:
    """A band holds the numbers from its own up to that of the next one, without it; in whatever form they come."""
    by_policy = classifier(
        bands={"size": {f"b{place}": at for place, at in enumerate(begin_at)}}, classes={"by": ["size"]}
    )

    def band(value: AttributeValue) -> str:
        return by_policy.traits({"size": value}).class_path[0]

    for value in (number, data.draw(st.sampled_from(begin_at)) + nearest):
        below = [f"b{place}" for place, at in enumerate(begin_at) if at <= value]
        assert band(value) == band(float(value)) == band(str(value)) == (below[-1] if below else "unknown")


@given(points=st.lists(st.integers(-100, 100).filter(bool), max_size=64))
def test_a_fit_is_cut_to_a_hundred(points: list[int]) -> None:
    """All points together, and only then cut; the reasons have each of them as it is."""
    by_policy = classifier(icp=[{"attribute": "a", "at_least": 1, "points": each} for each in points])

    assert by_policy.traits({"a": 1}).fit == min(100, max(0, sum(points)))
    assert [each for _, each in by_policy.fit_reasons({"a": 1})] == points
    assert by_policy.traits({"a": 0}).fit == by_policy.traits({"b": 1}).fit == 0


@pytest.mark.parametrize(
    ("rule", "holds_of", "not_of"),
    [
        ({"any_of": ["Emea ", "us"]}, ["EMEA", " emea", "Us\t"], ["", "eme a", "apac", 7]),
        ({"any_of": ["straße"]}, ["STRASSE", "Straße"], ["strase"]),
        ({"any_of": [7, Decimal("0.1")]}, [7, 7.0, 0.1], ["7", "0.1", 0.1 + 1e-17 + 1e-16, 8]),
        ({"any_of": ["7"]}, ["7", " 7 "], [7, 7.0, "7.0"]),
        ({"any_of": [2**49]}, [2**49, float(2**49)], [2**49 + 1]),
        ({"at_least": 100}, [100, 100.0, "100", 2**53, 1e300], [99, 99.999999, "99", "hundred", "", "1e3"]),
        ({"at_least": Decimal("0.1")}, [0.1, "0.1", "0.10", 1], [0.09999999999999999, "0.09", 0, -1]),
        ({"at_most": Decimal("0.3")}, [0.3, "0.3", 0, -5, "-5"], [0.1 + 0.2, "0.30000000000000000001", "1", "few"]),
        ({"at_least": 5, "at_most": 5}, [5, "5", 5.0], [4, 6]),
        ({"any_of": [1, 5, 9, "5"], "at_least": 5}, [5, 9, "5"], [1, 6, "9"]),
    ],
)
def test_a_rule_holds_where_each_of_its_conditions_does(
    rule: dict[str, object], holds_of: list[AttributeValue], not_of: list[AttributeValue]
) -> None:
    """Numbers exactly as decimals, texts without case and outer blanks, and no text equal to a number."""
    assert [value for value in holds_of if fit_of(rule, value) == 0] == []
    assert [value for value in not_of if fit_of(rule, value) == 1] == []


@pytest.mark.parametrize(
    ("rule", "value", "reason"),
    [
        ({"any_of": ["emea"]}, " EMEA", "a is emea"),
        ({"any_of": [5]}, 5.0, "a is 5"),
        ({"at_least": Decimal("0.5")}, 0.75, "a is 0.75 (at least 0.5)"),
        ({"at_most": 10**14}, "250", "a is 250 (at most 100000000000000)"),
        ({"at_least": -1, "at_most": 1_000}, -1, "a is -1 (-1 to 1000)"),
    ],
)
def test_a_reason_says_what_the_account_is_and_what_was_asked(
    rule: dict[str, object], value: AttributeValue, reason: str
) -> None:
    """For people."""
    by_policy = classifier(icp=[{"attribute": "a", "points": -3, **rule}])
    assert by_policy.fit_reasons({"a": value}) == [(reason, -3)]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (" New  York\t", "new  york"), ("STRASSE", "strasse"), ("straße", "strasse"), (5, "5"), (5.0, "5"), ("5", "5"),
        (2.5, "2.5"), ("", "unknown"), (" \t", "unknown"), ("a\x1b[2Jb", "a�[2jb"), ("a\u202eb", "a�b"),
        ("new\u00a0york", "new york"), ("a\nb", "a b"), ("x" * 65, "x" * 64), ("ß" * 64, "s" * 64),
        ("x" * 63 + " y", "x" * 63), ("你好", "你好"),
    ],
)  # fmt: skip
def test_a_class_is_a_short_line_of_text(value: AttributeValue, expected: str) -> None:
    """Without case, outer blanks, and what cannot be seen; equal numbers are one class. So is the region."""
    traits = classifier(classes={"by": ["region"]}).traits({"region": value})

    assert traits.class_path == (expected,)
    assert traits.region == ("" if expected == "unknown" else expected)


@pytest.mark.parametrize(
    ("value", "owner"),
    [("Kim", "Kim"), (" kim ", "kim"), (7, "7"), (1.5, "1.5"), (" \t", ""), ("o" * 129, "o" * 128), ("a\x07", "a�")],
)
def test_an_owner_is_written_as_it_was(value: AttributeValue, owner: str) -> None:
    """It is somebody's name: its case is kept."""
    assert classifier().traits({"owner": value}).owner == owner


@given(attributes=st.dictionaries(st.sampled_from(["industry", "employees", "region", "owner", "floor"]), VALUES))
def test_whatever_an_account_says_its_traits_have_their_limits(attributes: dict[str, AttributeValue]) -> None:
    """And the reasons are those of its fit."""
    by_policy = classifier(icp=ICP)
    traits = by_policy.traits(attributes)

    assert len(traits.class_path) == 3
    assert all(part and len(part) <= 64 and part.isprintable() for part in traits.class_path)
    assert traits.class_path[1] in ("small", "mid", "large", "unknown")
    assert len(traits.owner) <= 128 and traits.owner.isprintable() and traits.owner == traits.owner.strip()
    assert len(traits.region) <= 64 and traits.region.isprintable()
    assert traits.fit == max(0, min(100, sum(points for _, points in by_policy.fit_reasons(attributes))))
    assert all(reason.isprintable() for reason, _ in by_policy.fit_reasons(attributes))
    assert by_policy.traits(dict(attributes)) is traits


def test_no_more_traits_are_shared_than_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond it they are equal and not the same; those that were shared stay so."""
    monkeypatch.setattr(classification, "SHARED_TRAITS_MAX", 2)
    by_policy = classifier()
    first, second = by_policy.traits({"owner": "1"}), by_policy.traits({"owner": "2"})

    assert by_policy.traits({"owner": "3"}) == by_policy.traits({"owner": "3"})
    assert by_policy.traits({"owner": "3"}) is not by_policy.traits({"owner": "3"})
    assert by_policy.traits({"owner": "1"}) is first and by_policy.traits({"owner": "2"}) is second


def test_the_attributes_of_a_profile_are_those_that_hold() -> None:
    """The name of the account is none of them, an attribute that is called name is."""
    profile = Profile()
    profile.take(Signup("acme", "1", 2_000, "Acme", {"region": "EMEA", "name": "Acme Ltd"}))
    profile.take(Signup("acme", "2", 1_000, "Acme", {"region": "US", "employees": 7}))

    assert attributes_of(profile) == {"region": "EMEA", "name": "Acme Ltd", "employees": 7}
    assert attributes_of(Profile()) == {}


@given(number=st.floats(allow_nan=False, allow_infinity=False))
def test_a_float_is_the_decimal_that_it_is_written_as(number: float) -> None:
    """So an account that says 0.1 meets a rule of 0.1."""
    assert number_of(number) == Decimal(repr(number))


def test_needs_are_those_that_the_policy_knows_as_the_account_orders_them() -> None:
    """A list, or texts with commas between them, however they are written; each once."""
    by_policy = Classifier.of(
        Policy.default().with_changes(needs={"training": {"next_step": "Book a course"}, "data_migration": {}})
    )
    assert by_policy.traits({"needs": ["Data migration", "toys", "training", "TRAINING "]}).needs == (
        "data_migration",
        "training",
    )
    assert by_policy.traits({"needs": " training, data-migration"}).needs == ("training", "data_migration")
    assert by_policy.traits({"needs": 7}).needs == by_policy.traits({}).needs == ()
    assert Classifier.of(Policy.default()).traits({"needs": ["training"]}).needs == ()


def test_a_rule_holds_of_a_list_where_it_holds_of_one_of_its_values() -> None:
    """A list has no number, and is one text as a class."""
    by_policy = Classifier.of(
        Policy.default().with_changes(
            icp=[
                {"attribute": "products", "any_of": ["crm"], "points": 10},
                {"attribute": "products", "at_least": 1, "points": 20},
            ],
            classes={"by": ["products"]},
        )
    )
    assert by_policy.traits({"products": ["ERP", "CRM"]})[:2] == (("erp, crm",), 10)
