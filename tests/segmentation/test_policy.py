import json
from collections.abc import Callable
from decimal import Decimal
from importlib.resources import files
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from segmentation.policy import WHOLE_BP, IcpRule, Policy, PolicyError, load_policy, parse_policy

DEFAULT = files("segmentation").joinpath("default_policy.toml").read_text(encoding="utf-8")
EXAMPLE = Path(__file__).parents[2] / "examples" / "policy.toml"
MODEL = """
[model]
r = 0.605217
alpha_days = 56.4097
a = 0.638518
b = 1.17643
p = 5.3947
q = 3.77446
gamma_minor = 1874.09
fitted_at = "1998-01-01"
accounts = 23570
"""
CLASSIFICATION = """
[bands.employees]
tiny = 1
huge = 5_000
[bands.sites]
one = 0
many = 2
[classes]
by = ["region", "sites"]
[potential]
horizon_days = 30
[priority]
potential = 2
fit = "0.25"
[[icp]]
attribute = "industry"
any_of = [" Software", "finance", 7, 0.50, "software"]
points = 40
[[icp]]
attribute = "employees"
at_least = 100.0
at_most = 5000.5
points = -30
"""
LIKENESS = ["likeness", "customer_likeness", "Similarity", "LOOKALIKE", "look-alike", "customer likeness", "look_alike"]


def edited(*edits: tuple[str, str]) -> str:
    """The default policy's text with each first text replaced by the second."""
    text = DEFAULT
    for old, new in edits:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    return text


def problems_of(text: str) -> dict[str, str]:
    """What is wrong with the policy, by field."""
    with pytest.raises(PolicyError) as refusal:
        parse_policy(text, "test.toml")
    return {problem.field: str(problem) for problem in refusal.value.problems}


def test_the_default_policy_is_the_documented_one() -> None:
    """Shares and band become basis points; what the document leaves out has its default."""
    policy = Policy.default()

    assert policy.version == "2026-11-22"
    assert (policy.window_days, policy.new_start_days) == (365, 90)
    assert (policy.engagement_days, policy.future_days) == (90, 366)
    assert policy.basis == "revenue"
    assert policy.boundaries == (3_000, 8_000)
    assert policy.band_bp == 200
    assert policy.rates == {"EUR": Decimal("1.08")}
    assert policy.converter().to_base_minor(100, "EUR") == 108
    assert [policy.engagement_weight(kind) for kind in ("meeting", "cancel_request", "dance")] == [3, 5, 1]


def test_the_example_says_what_holds_by_default() -> None:
    """A newcomer who copies the example changes nothing."""
    assert load_policy(EXAMPLE) == Policy.default()


@pytest.mark.parametrize(
    ("edits", "field", "said"),
    [
        ([('"2026-11-22"', "2026-11-22")], "version", "in quotes"),
        ([('"2026-11-22"', '""')], "version", "1 to 64"),
        ([('"USD"', '"usd"')], "base_currency", 'found "usd", expected a currency code'),
        ([('"USD"', '"XAU"')], "base_currency", "currency code"),
        ([("= 365", "= 0")], "window_days", "found 0, expected a whole number of days from 1 to 3650"),
        ([("= 365", "= 3651")], "window_days", "3650"),
        ([("= 365", "= 365.0")], "window_days", "whole number"),
        ([("= 365", '= "365"')], "window_days", "whole number"),
        ([("= 365", "= true")], "window_days", "found true"),
        ([("= 90", "= -1")], "new_start_days", "from 0 to 3650"),
        ([('"revenue" ', '"profit" ')], "basis", '"revenue" or "accounts"'),
        ([("= 2.0", "= -1")], "band", "from 0 up"),
        ([("= 2.0", "= 2.005")], "band", "found 2.005, expected percentage points"),
        ([("= 2.0", "= 2.00000000000000000000000000000001")], "band", "at most 2 decimals"),
        ([("= 2.0", "= nan")], "band", "percentage points"),
        ([("= 2.0", "= 1e999999999")], "band", "percentage points"),
        ([("= 2.0", "= 1e-999999999")], "band", "percentage points"),
        ([("= 2.0", "= true")], "band", "percentage points"),
        ([("= 2.0", "= 20")], "band", "found 20, expected less than 20"),
        ([("key = 30", "key = 31")], "tiers", "shares of 101 together"),
        ([("key = 30", "key = 29.99")], "tiers", "shares of 99.99 together"),
        ([("key = 30", "key = 0")], "tiers.key", "above 0"),
        ([("key = 30", "key = 30.001")], "tiers.key", "at most 2 decimals"),
        ([("key = 30", 'key = "a third"')], "tiers.key", 'found "a third"'),
        (
            [("key = 30\nenterprise = 50", "enterprise = 50\nkey = 30")],
            "tiers",
            "key, enterprise, commercial",
        ),
        ([("key = 30\n", "")], "tiers.key", "found nothing"),
        ([("[tiers]", "[tears]")], "tears", "an unknown field, expected tiers, perhaps"),
        ([("key = 30", "kee = 30")], "tiers.kee", "key, perhaps"),
        ([('version = "2026-11-22"\n', "")], "version", "found nothing"),
        ([("window_days", "window_day")], "window_day", "window_days, perhaps"),
        ([('EUR = "1.08"', "EUR = 1.08")], "rates.EUR", 'expected it as a string: EUR = "1.08"'),
        ([('EUR = "1.08"', 'EUR = "0"')], "rates.EUR", "above 0"),
        ([('EUR = "1.08"', 'EUR = "0.000"')], "rates.EUR", "above 0"),
        ([('EUR = "1.08"', "EUR = 0")], "rates.EUR", "above 0"),
        ([('EUR = "1.08"', "EUR = true")], "rates.EUR", "decimal"),
        ([('EUR = "1.08"', 'EUR = "1,08"')], "rates.EUR", "decimal"),
        ([('EUR = "1.08"', 'EUR = "1e5"')], "rates.EUR", "decimal"),
        ([('EUR = "1.08"', 'EUR = "NaN"')], "rates.EUR", "decimal"),
        ([('EUR = "1.08"', f'EUR = "{"9" * 13}"')], "rates.EUR", "12 digits"),
        ([('EUR = "1.08"', 'EURO = "1.08"')], "rates.EURO", "currency code"),
        ([('EUR = "1.08"', 'USD = "1"')], "rates.USD", "base currency"),
        ([("[rates] ", "[[rates]] ")], "rates", "found a list"),
        ([("[rates] ", "[engagement_weights]\nlogin = -1\n[rates] ")], "engagement_weights.login", "0 to"),
        ([("[rates] ", "[engagement_weights]\nlogin = 1.5\n[rates] ")], "engagement_weights.login", "whole"),
        (
            [("[rates] ", "[engagement_weights]\nLogin = 1\n[rates] ")],
            "engagement_weights.Login",
            "lower case",
        ),
        ([("version", "engagement_days = 0\nversion")], "engagement_days", "from 1 to 3650"),
        ([("version", "future_days = 0\nversion")], "future_days", "from 1 to 3650"),
    ],
)
def test_each_mistake_is_named_with_its_field_and_what_would_be_right(
    edits: list[tuple[str, str]], field: str, said: str
) -> None:
    """The line begins with the field's path, and says what was found and what would be right."""
    problem = problems_of(edited(*edits))[field]

    assert problem.startswith(f"{field}: found ")
    assert said in problem


def test_all_mistakes_are_named_at_once() -> None:
    """Nobody has to start the program again for the next message."""
    text = edited(("= 365", "= 0"), ("= 2.0", '= "x"'), ("key = 30", "key = 0"), ('"1.08"', "1.08"))

    assert list(problems_of(text)) == ["window_days", "band", "tiers.key", "rates.EUR"]


def test_two_inconsistencies_are_named_at_once() -> None:
    """The same holds for rules that span fields."""
    assert list(problems_of(edited(("= 2.0", "= 40"), ("EUR", "USD")))) == ["rates.USD", "band"]


def test_every_line_of_an_error_names_the_source() -> None:
    """A message that is read in a log still says which file to mend."""
    with pytest.raises(PolicyError) as refusal:
        parse_policy("", "mine.toml")

    lines = str(refusal.value).splitlines()
    assert len(lines) == 7
    assert all(line.startswith("mine.toml: ") for line in lines)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('version = "1"\nbasis = revenue', "line 2"),
        ('version = "1"\nversion = "2"\n', "line 2"),
        (f"window_days = {'9' * 5_000}", "not TOML"),
        ("window_days = " + "[" * 100_000, "not TOML"),
    ],
)
def test_a_text_that_is_not_toml_is_refused(text: str, said: str) -> None:
    """The message says where, as far as the parser knows."""
    assert said in problems_of(text)[""]


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    """A missing file and one that is not text are the policy's errors, not the program's."""
    binary = tmp_path / "policy.toml"
    binary.write_bytes(b"\xff\xfe")

    with pytest.raises(PolicyError, match=r"none\.toml: found no readable file \(No such file"):
        load_policy(tmp_path / "none.toml")
    with pytest.raises(PolicyError, match="not UTF-8"):
        load_policy(binary)
    with pytest.raises(PolicyError, match="no readable file"):
        load_policy(tmp_path)


@given(key=st.integers(1, 9_998), rest=st.data())
def test_shares_of_two_decimals_are_taken_exactly(key: int, rest: st.DataObject) -> None:
    """33.33 in the document is 3333 basis points, although no binary fraction is 33.33."""
    enterprise = rest.draw(st.integers(1, WHOLE_BP - key - 1))
    shares = [f"{share / 100:.2f}" for share in (key, enterprise, WHOLE_BP - key - enterprise)]
    text = edited(
        ("= 2.0", "= 0"),
        ("key = 30", f"key = {shares[0]}"),
        ("enterprise = 50", f"enterprise = {shares[1]}"),
        ("commercial = 20", f"commercial = {shares[2]}"),
    )

    assert parse_policy(text, "test").boundaries == (key, key + enterprise)


@given(key=st.integers(1, 9_998), band=st.integers(1, 5_000), rest=st.data())
def test_a_band_is_taken_unless_bands_overlap(key: int, band: int, rest: st.DataObject) -> None:
    """Each boundary's band lies inside (0, 100 %), and wholly on its own side of the other one."""
    enterprise = rest.draw(st.integers(1, WHOLE_BP - key - 1))
    first, second = key, key + enterprise
    tiers = {"key": f"{first / 100:.2f}", "enterprise": f"{enterprise / 100:.2f}"}
    tiers["commercial"] = f"{(WHOLE_BP - second) / 100:.2f}"
    edges = [0, first - band, first + band, second - band, second + band, WHOLE_BP]
    apart = all(edge < after for edge, after in pairwise(edges))

    def policy() -> Policy:
        return Policy.default().with_changes(band=f"{band / 100:.2f}", tiers=tiers)

    if apart:
        assert policy().band_bp == band
    else:
        with pytest.raises(PolicyError, match="band: found"):
            policy()


@pytest.mark.parametrize("band", ["0", "0.0", '"0"', "0.00"])
def test_zero_switches_the_band_off(band: str) -> None:
    """However it is written."""
    assert parse_policy(edited(("= 2.0", f"= {band}")), "test").band_bp == 0


def test_a_policy_cannot_be_changed() -> None:
    """Rules change by another policy, which has another hash."""
    policy = Policy.default()

    for field in ("window_days", "tiers", "rates"):
        with pytest.raises(ValidationError, match="frozen"):
            setattr(policy, field, None)
    assert policy.with_changes(window_days=30).window_days == 30
    assert policy.window_days == 365
    with pytest.raises(PolicyError, match="window_days"):
        policy.with_changes(window_days=0)


@pytest.mark.parametrize(
    "edits",
    [
        [("= 2.0", "= 2")],
        [("= 2.0", '= "2.00"')],
        [("= 30", "= 30.0")],
        [('"1.08"', '"1.080"')],
        [('"1.08"', '"01.08"')],
        [("basis", "engagement_days = 90\nbasis")],
        [("[rates] ", "[engagement_weights]\nlogin = 1\n[rates] ")],
    ],
)
def test_the_hash_is_of_the_meaning(edits: list[tuple[str, str]]) -> None:
    """Two ways to write the same rules are one policy."""
    assert parse_policy(edited(*edits), "test").hash == Policy.default().hash


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"version": "2"}, "version: 2026-11-22 -> 2"),
        ({"base_currency": "GBP"}, "base_currency: USD -> GBP"),
        ({"window_days": 30}, "window_days: 365 -> 30"),
        ({"new_start_days": 0}, "new_start_days: 90 -> 0"),
        ({"basis": "accounts"}, "basis: revenue -> accounts"),
        ({"band": 1.5}, "band: 2 -> 1.5"),
        ({"engagement_days": 30}, "engagement_days: 90 -> 30"),
        ({"future_days": 1}, "future_days: 366 -> 1"),
        ({"rates": {}}, "rates.EUR: 1.08 -> nothing"),
        ({"rates": {"EUR": "1.08", "JPY": "0.0000001"}}, "rates.JPY: nothing -> 0.0000001"),
        ({"engagement_weights": {"login": 2}}, "engagement_weights.login: 1 -> 2"),
    ],
)
def test_every_field_counts(changes: dict[str, object], line: str) -> None:
    """A change of any rule changes the hash, and the differences say which rule it was, theirs first."""
    old = Policy.default()

    new = old.with_changes(**changes)

    assert new.hash != old.hash
    assert new.differences(old.canonical()) == [line]


def test_tiers_count_too() -> None:
    """Each share is a field of its own."""
    new = Policy.default().with_changes(tiers={"key": 20, "enterprise": "60.00", "commercial": 20})

    assert new.differences(Policy.default().canonical()) == [
        "tiers.enterprise: 50 -> 60",
        "tiers.key: 30 -> 20",
    ]


def test_a_policy_differs_from_itself_in_nothing() -> None:
    """And its canonical text makes the same policy again."""
    policy = Policy.default().with_changes(rates={"JPY": "0.0000001", "KWD": 3}, band="0.01")

    assert policy.differences(policy.canonical()) == []
    assert Policy.model_validate_json(policy.canonical()) == policy


def test_differences_from_another_version_of_the_program_are_readable() -> None:
    """A field this version does not know is shown, not refused; what is no policy at all is."""
    policy = Policy.default()
    theirs = policy.canonical()[:-1] + ',"population_by":"region"}'

    assert policy.differences(theirs) == ["population_by: region -> nothing"]
    with pytest.raises(ValueError, match="JSON object"):
        policy.differences("[]")


def test_a_policy_has_the_hash_that_it_had() -> None:
    """Installations that were founded before there were models and risk find the same one."""
    assert Policy.default().hash == "306bfc8695c3d1e6dbad46c086f29b5410283dc8ab7f7edadf30ceb2e39c23f7"


def test_a_model_decides_on_risk_and_on_no_segment() -> None:
    """Its numbers come back as they were written, each of them counts, and an installation goes on with another one."""
    policy = parse_policy(DEFAULT + MODEL, "test")

    assert policy.model is not None
    assert policy.model.buying == (0.605217, 56.4097, 0.638518, 1.17643)
    assert policy.model.spend == (5.3947, 3.77446, 1874.09)
    assert (policy.model.fitted_at, policy.model.accounts) == ("1998-01-01", 23_570)
    assert policy.with_changes() == policy
    assert policy.with_changes(model=None) == Policy.default()
    assert policy.hash == Policy.default().hash
    assert policy.risk_hash != Policy.default().risk_hash
    added = policy.risk_differences(Policy.default().canonical_rest())
    assert added[0] == "model.a: nothing -> 0.638518" and len(added) == 9
    assert Policy.default().rest_differences(policy.canonical_rest())[-1] == "model.r: 0.605217 -> nothing"
    other = parse_policy(DEFAULT + MODEL.replace("56.4097", "57"), "test")
    assert other.risk_differences(policy.canonical_rest()) == ["model.alpha_days: 56.4097 -> 57.0"]


@pytest.mark.parametrize(
    "table", [{"watch": 70}, {"high": 95}, {"band": 6}, {"horizon_days": 30}, {"evidence": {"refund": 3}}]
)
def test_each_rule_of_risk_counts(table: dict[str, object]) -> None:
    """And none of them decides on a segment."""
    policy = Policy.default().with_changes(risk=table)
    assert policy.hash == Policy.default().hash
    assert policy.risk_hash != Policy.default().risk_hash
    assert len(policy.risk_differences(Policy.default().canonical_rest())) == 1
    assert policy.with_changes() == policy


@pytest.mark.parametrize(("written", "otherwise"), [("5.3947", "5.394700"), ("56.4097", '"5.64097e1"')])
def test_the_hash_of_a_model_is_of_its_meaning(written: str, otherwise: str) -> None:
    """However a number is written."""
    policies = [parse_policy(DEFAULT + MODEL.replace(written, form), "test") for form in (written, otherwise)]
    assert policies[0].risk_hash == policies[1].risk_hash


@pytest.mark.parametrize(
    ("written", "instead", "field", "said"),
    [
        ("r = 0.605217\n", "", "model.r", "found nothing, expected a number from 0.000001"),
        ("r = 0.605217", "r = 0", "model.r", "found 0"),
        ("a = 0.638518", "a = -1", "model.a", "a number from 0.000001 to 1e9"),
        ("b = 1.17643", "b = nan", "model.b", "a number from 0.000001"),
        ("b = 1.17643", "b = inf", "model.b", "a number from 0.000001"),
        ("b = 1.17643", "b = 1e999999999", "model.b", "a number from 0.000001"),
        ("b = 1.17643", "b = true", "model.b", "found true"),
        ("b = 1.17643", 'b = "much"', "model.b", 'found "much"'),
        ("p = 5.3947", "p = 1e10", "model.p", "to 1e9"),
        ("q = 3.77446", "q = 1", "model.q", "a number above 1"),
        ("alpha_days = 56", "alpha = 56", "model.alpha", "alpha_days, perhaps"),
        ("gamma_minor = 1874.09", "gamma_minor = []", "model.gamma_minor", "in minor units of the base currency"),
        ('"1998-01-01"', "1998-01-01", "model.fitted_at", "a day in quotes"),
        ('"1998-01-01"', '"1998-02-30"', "model.fitted_at", "a day in quotes"),
        ('"1998-01-01"', '"19980101"', "model.fitted_at", "a day in quotes"),
        ("accounts = 23570", "accounts = 0", "model.accounts", "a whole number from 1 up"),
        ("accounts = 23570", "accounts = 1.5", "model.accounts", "a whole number"),
        ("[model]", "[modell]", "modell", "model, perhaps"),
    ],
)
def test_each_mistake_in_a_model_is_named(written: str, instead: str, field: str, said: str) -> None:
    """As anywhere in the policy: the field, what was found, and what would be right."""
    assert MODEL.count(written) == 1
    problem = problems_of(DEFAULT + MODEL.replace(written, instead))[field]

    assert problem.startswith(f"{field}: found ")
    assert said in problem


@pytest.mark.parametrize("model", [3, [], "none"])
def test_a_model_is_a_table(model: object) -> None:
    """As `resegment fit` prints it."""
    with pytest.raises(PolicyError, match=r"model: found .*, expected a table \[model\] as `resegment fit` prints it"):
        Policy.default().with_changes(model=model)


def test_by_default_accounts_are_classed_and_none_fits_better() -> None:
    """Where nobody wrote a table of it."""
    policy = Policy.default()

    assert policy.bands == {"employees": {"small": 0, "mid": 100, "large": 1_000}}
    assert policy.classes.by == ("industry", "employees", "region")
    assert policy.potential.horizon_days == 365
    assert dict(policy.priority) == {"potential": 1.0, "revenue_at_risk": 2.0, "fit": 0.5, "closeness": 0.5}
    assert policy.icp == ()


def test_what_is_left_out_of_the_classification_is_as_it_is_by_default() -> None:
    """The bands of another attribute, a weight of the priority; but bands of one attribute are all that it has."""
    policy = parse_policy(DEFAULT + CLASSIFICATION, "test")

    assert policy.bands == {"employees": {"tiny": 1, "huge": 5_000}, "sites": {"one": 0, "many": 2}}
    assert parse_policy(DEFAULT + "[bands.sites]\none = 0\n", "test").bands["employees"]["mid"] == 100
    assert policy.classes.by == ("region", "sites")
    assert policy.potential.horizon_days == 30
    assert dict(policy.priority) == {"potential": 2.0, "revenue_at_risk": 2.0, "fit": 0.25, "closeness": 0.5}


def test_a_rule_of_the_profile_is_read_exactly() -> None:
    """Whole numbers are integers, others decimals; texts are kept as they are compared, each value once."""
    industry, employees = parse_policy(DEFAULT + CLASSIFICATION, "test").icp

    assert (industry.attribute, industry.points) == ("industry", 40)
    assert industry.any_of == ("software", "finance", 7, Decimal("0.5"))
    assert (industry.at_least, industry.at_most) == (None, None)
    assert employees == IcpRule(attribute="employees", at_least=100, at_most=Decimal("5000.5"), points=-30)
    assert type(employees.at_least) is int


def test_the_classification_is_in_the_document() -> None:
    """In the shortest form, which JSON has too, and which makes an equal policy again."""
    policy = parse_policy(DEFAULT + CLASSIFICATION, "test")
    document = policy.document()

    assert document["bands"] == {"employees": {"tiny": 1, "huge": 5_000}, "sites": {"one": 0, "many": 2}}
    assert document["classes"] == {"by": ["region", "sites"]}
    assert document["potential"] == {"horizon_days": 30}
    assert document["priority"] == {"potential": "2.0", "revenue_at_risk": "2.0", "fit": "0.25", "closeness": "0.5"}
    assert document["icp"] == [
        {"attribute": "industry", "any_of": ["software", "finance", 7, 0.5], "points": 40},
        {"attribute": "employees", "at_least": 100, "at_most": 5000.5, "points": -30},
    ]
    for again in (
        Policy.model_validate(document),
        Policy.model_validate(json.loads(json.dumps(document))),
        Policy.model_validate_json(json.dumps(document)),
        policy.with_changes(),
    ):
        assert again == policy
        assert again.canonical_rest() == policy.canonical_rest()
    assert Policy.default().document()["icp"] == []


@given(
    number=st.one_of(
        st.integers(-(10**15) + 1, 10**15 - 1),
        st.builds(Decimal.scaleb, st.integers(-(10**15) + 1, 10**15 - 1).map(Decimal), st.integers(-15, 0)),
    ),
    text=st.text(min_size=1, max_size=300),
)
def test_a_rule_comes_back_as_it_was_written(number: int | Decimal, text: str) -> None:
    """Any number of 15 digits passes through a document, and any text that is taken once is taken again."""
    rule: dict[str, object] = {"attribute": "a", "any_of": [number], "at_least": number, "points": 1}
    policy = Policy.default().with_changes(icp=[rule])

    assert policy.icp[0].at_least == number
    assert Policy.model_validate(json.loads(json.dumps(policy.document()))) == policy
    try:
        policy = Policy.default().with_changes(icp=[{"attribute": "a", "any_of": [text], "points": 1}])
    except PolicyError as refusal:
        assert [problem.field for problem in refusal.problems] == ["icp.0.any_of.0"]
    else:
        assert policy.with_changes() == policy


@pytest.mark.parametrize(
    ("changes", "lines", "is_classification"),
    [
        (
            {"bands": {"employees": {"small": 0, "large": 50}}},
            ["bands.employees.large: 1000 -> 50", "bands.employees.mid: 100 -> nothing"],
            True,
        ),
        ({"classes": {"by": ["region"]}}, ["classes.by: industry, employees, region -> region"], True),
        ({"classes": {"by": []}}, ["classes.by: industry, employees, region -> an empty list"], True),
        (
            {"icp": [{"attribute": "region", "any_of": ["EMEA", 7], "points": 5}]},
            ["icp.0.any_of: nothing -> emea, 7", "icp.0.attribute: nothing -> region", "icp.0.points: nothing -> 5"],
            True,
        ),
        ({"potential": {"horizon_days": 30}}, ["potential.horizon_days: 365 -> 30"], False),
        ({"priority": {"potential": 3}}, ["priority.potential: 1.0 -> 3.0"], False),
        ({"priority": {"revenue_at_risk": 3}}, ["priority.revenue_at_risk: 2.0 -> 3.0"], False),
        ({"priority": {"fit": 0}}, ["priority.fit: 0.5 -> 0.0"], False),
        ({"priority": {"closeness": 100}}, ["priority.closeness: 0.5 -> 100.0"], False),
    ],
)
def test_classes_fit_and_priority_are_no_part_of_the_rules(
    changes: dict[str, object], lines: list[str], is_classification: bool
) -> None:
    """No account's segment or risk depends on them, but each of them is a difference; the hash of classes and fit
    changes only with them."""
    old = Policy.default()
    new = old.with_changes(**changes)

    assert new.hash == old.hash
    assert new.risk_hash == old.risk_hash
    assert new.differences(old.canonical()) == []
    assert new.rest_differences(old.canonical_rest()) == lines
    assert new.rest_differences(new.canonical_rest()) == []
    assert len(old.rest_differences(new.canonical_rest())) == len(lines)
    assert (new.classification_hash != old.classification_hash) is is_classification


@pytest.mark.parametrize(
    "changes",
    [
        {"version": "2", "band": 1, "window_days": 30, "rates": {}},
        {"risk": {"watch": 60}, "owners": {"accounts_max": 7}, "segments": {"key": {"touches_a_quarter": 1}}},
        {"bands": {"employees": {"small": 0, "mid": 100, "large": 1_000}}},
        {"icp": []},
    ],
)
def test_the_hash_of_the_classification_is_of_nothing_else(changes: dict[str, object]) -> None:
    """Nor of how it is written."""
    assert Policy.default().with_changes(**changes).classification_hash == Policy.default().classification_hash


def test_equal_profiles_have_one_hash() -> None:
    """However texts and numbers are written."""
    policies = [
        Policy.default().with_changes(icp=[{"attribute": "a", "any_of": values, "at_most": most, "points": 1}])
        for values, most in ((["x", 1], 5), ([" X ", Decimal("1.0"), "x"], 5.0))
    ]
    assert policies[0] == policies[1]
    assert policies[0].classification_hash == policies[1].classification_hash


def test_a_list_of_numbers_is_not_one_of_texts() -> None:
    """Which look alike where they are shown; what differs is named all the same."""
    numbers, texts = (
        Policy.default().with_changes(icp=[{"attribute": "a", "any_of": [value], "points": 1}]) for value in (7, "7")
    )
    assert numbers.rest_differences(texts.canonical_rest()) == ["icp.0.any_of: 7 -> 7"]


RULE = '[[icp]]\nattribute = "a"\npoints = 1\n'
OF_VALUES = "a list of 1 to 64 texts of 1 to 256 characters that can be seen, or numbers of up to 15 digits"
OF_BY = 'a list of up to 4 attributes like ["industry", "region"], the coarsest first'
OF_ICP = "up to 64 tables [[icp]], each with attribute, points, and any_of, at_least or at_most, or some of them"
OF_NAMES = "an attribute's name in lower case: a letter, then up to 63 letters, digits or _"
OF_BANDS = "with 1 to 16 lines like mid = 100, the smallest first"
OF_NUMBERS = "a number without quotes, of up to 15 digits (250 or 0.5)"
OF_PRIORITY = "a number from 0 (counts nothing) to 100"


@pytest.mark.parametrize(
    ("text", "field", "said"),
    [
        ("bands = 3", "bands", "3, expected up to 64 tables like [bands.employees] with lines like small = 0"),
        ("[bands]\na = 3", "bands.a", f"3, expected a table [bands.a] {OF_BANDS}"),
        ("[bands.a]", "bands.a", f"an empty table, expected a table [bands.a] {OF_BANDS}"),
        (
            "[bands.a]\n" + "".join(f"b{number} = {number}\n" for number in range(17)),
            "bands.a",
            f"a table of 17, expected a table [bands.a] {OF_BANDS}",
        ),
        (
            "".join(f"[bands.a{number}]\nb = 1\n" for number in range(64)),
            "bands",
            "65 of them, employees included, expected up to 64 tables like [bands.employees] with lines like small = 0",
        ),
        ("[bands.Size]\na = 3", "bands.Size", f'"Size", expected {OF_NAMES}'),
        (f"[bands.{'s' * 65}]\na = 3", f"bands.{'s' * 65}", f"'{'s' * 59}, expected {OF_NAMES}"),
        (
            "[bands.a]\nBig = 3",
            "bands.a.Big",
            '"Big", expected a band\'s name in lower case: a letter, then up to 31 letters, digits or _',
        ),
        ("[bands.a]\nb = -1", "bands.a.b", "-1, expected a whole number from 0 to 1000000000000"),
        ("[bands.a]\nb = 1_000_000_000_001", "bands.a.b", "1000000000001, expected a whole number from 0 to"),
        ("[bands.a]\nb = 1.5", "bands.a.b", "1.5, expected a whole number from 0"),
        ('[bands.a]\nb = "1"', "bands.a.b", '"1", expected a whole number from 0'),
        ("[bands.a]\nb = true", "bands.a.b", "true, expected a whole number from 0"),
        (
            "[bands.a]\nb = 0\nc = 9\nd = 9",
            "bands.a.d",
            "9, expected more than c, which is 9: the smallest band is written first",
        ),
        ("[bands.a]\nb = 5\nc = 3", "bands.a.c", "3, expected more than b, which is 5"),
        ("[bands.a]\nunknown = 5", "bands.a.unknown", 'a band of this name, expected another name: "unknown" is what'),
        ("classes = 3", "classes", "3, expected a table [classes] with by"),
        ("[classes]\nbuy = []", "classes.buy", "an unknown field, expected by, perhaps"),
        ('[classes]\nby = "region"', "classes.by", f'"region", expected {OF_BY}'),
        ('[classes]\nby = ["a", "b", "c", "d", "e"]', "classes.by", f"a list, expected {OF_BY}"),
        ('[classes]\nby = ["a", "B"]', "classes.by.1", f'"B", expected {OF_BY}'),
        ("[classes]\nby = [1]", "classes.by.0", f"1, expected {OF_BY}"),
        ('[classes]\nby = ["a", "b", "a"]', "classes.by.2", '"a", expected each attribute once'),
        ("potential = 3", "potential", "3, expected a table [potential] with horizon_days"),
        ("[potential]\nhorizon_days = 0", "potential.horizon_days", "0, expected a whole number of days from 1 to"),
        ("[potential]\nhorizon_days = 3651", "potential.horizon_days", "3651, expected a whole number of days"),
        ("[potential]\nhorizon = 1", "potential.horizon", "an unknown field, expected horizon_days, perhaps"),
        (
            "priority = 3",
            "priority",
            "3, expected a table [priority] with potential, revenue_at_risk, fit and closeness",
        ),
        ("[priority]\nfit = -1", "priority.fit", f"-1, expected {OF_PRIORITY}"),
        ("[priority]\nfit = 100.01", "priority.fit", f"100.01, expected {OF_PRIORITY}"),
        ("[priority]\nfit = nan", "priority.fit", f"NaN, expected {OF_PRIORITY}"),
        ("[priority]\nfit = true", "priority.fit", f"true, expected {OF_PRIORITY}"),
        ('[priority]\npotential = "much"', "priority.potential", f'"much", expected {OF_PRIORITY}'),
        ("[priority]\nclosness = 1", "priority.closness", "an unknown field, expected closeness, perhaps"),
        ("icp = 3", "icp", f"3, expected {OF_ICP}"),
        ("[icp]\npoints = 1", "icp", f"a table, expected {OF_ICP}"),
        ("icp = [3]", "icp.0", f"3, expected {OF_ICP}"),
        ((RULE + "at_least = 1\n") * 65, "icp", f"a list, expected {OF_ICP}"),
        (RULE, "icp.0", "a rule without a condition, expected any_of, at_least or at_most, or some of them"),
        (RULE + "at_leest = 3", "icp.0.at_leest", "an unknown field, expected at_least, perhaps"),
        (RULE + "any_of = []", "icp.0.any_of", f"a list, expected {OF_VALUES}"),
        (RULE + 'any_of = "x"', "icp.0.any_of", f'"x", expected {OF_VALUES}'),
        (RULE + f"any_of = {list(range(65))}", "icp.0.any_of", f"a list, expected {OF_VALUES}"),
        (RULE + 'any_of = ["x", ""]', "icp.0.any_of.1", f'"", expected {OF_VALUES}'),
        (RULE + 'any_of = ["a\\u0007"]', "icp.0.any_of.0", f"'a\\x07', expected {OF_VALUES}"),
        (RULE + f'any_of = ["{"ß" * 129}"]', "icp.0.any_of.0", f"expected {OF_VALUES}"),
        (RULE + "any_of = [true]", "icp.0.any_of.0", f"true, expected {OF_VALUES}"),
        (RULE + "any_of = [nan]", "icp.0.any_of.0", f"NaN, expected {OF_VALUES}"),
        (RULE + "any_of = [[1]]", "icp.0.any_of.0", f"a list, expected {OF_VALUES}"),
        (RULE + 'at_least = "1"', "icp.0.at_least", f'"1", expected {OF_NUMBERS}'),
        (RULE + "at_least = true", "icp.0.at_least", f"true, expected {OF_NUMBERS}"),
        (RULE + "at_least = inf", "icp.0.at_least", f"Infinity, expected {OF_NUMBERS}"),
        (RULE + "at_most = 1e999999999", "icp.0.at_most", f"1E+999999999, expected {OF_NUMBERS}"),
        (RULE + "at_most = 1_000_000_000_000_000", "icp.0.at_most", f"1000000000000000, expected {OF_NUMBERS}"),
        (RULE + "at_most = 0.1234567890123456", "icp.0.at_most", f"0.1234567890123456, expected {OF_NUMBERS}"),
        (RULE + "at_most = 1\nat_least = 1.5", "icp.0.at_most", "1, expected at_least or more, which is 1.5"),
        (
            (RULE + "at_most = 1\n") + (RULE + "at_most = 1\nat_least = 1000.0"),
            "icp.1.at_most",
            "1, expected at_least or more, which is 1000",
        ),
        (
            (RULE + "at_most = 1").replace("= 1\n", "= 0\n"),
            "icp.0.points",
            "0, expected a whole number from -100 to 100, but not 0",
        ),
        ((RULE + "at_most = 1").replace("= 1\n", "= 101\n"), "icp.0.points", "101, expected a whole number from -100"),
        ((RULE + "at_most = 1").replace("= 1\n", "= -101\n"), "icp.0.points", "-101, expected a whole number"),
        ((RULE + "at_most = 1").replace("= 1\n", "= 1.5\n"), "icp.0.points", "1.5, expected a whole number"),
        ("[[icp]]\nattribute = 'a'\nat_most = 1", "icp.0.points", "nothing, expected a whole number from -100"),
        ("[[icp]]\npoints = 1\nat_most = 1", "icp.0.attribute", f"nothing, expected {OF_NAMES}"),
        ((RULE + "at_most = 1").replace('"a"', '"Size"'), "icp.0.attribute", f'"Size", expected {OF_NAMES}'),
    ],
)
def test_each_mistake_in_the_classification_is_named(text: str, field: str, said: str) -> None:
    """As anywhere in the policy: the field, what was found, and what would be right. And nothing else is said."""
    is_table = text.startswith("[")
    problems = problems_of(DEFAULT + text if is_table else f"{text}\n{DEFAULT}")

    assert list(problems) == [field]
    assert problems[field].startswith(f"{field}: found ")
    assert said in problems[field]


@pytest.mark.parametrize("attribute", LIKENESS)
@pytest.mark.parametrize(
    ("changes", "field"),
    [
        (lambda name: {"icp": [{"attribute": name, "at_least": 1, "points": 1}]}, "icp.0.attribute"),
        (lambda name: {"classes": {"by": ["region", name]}}, "classes.by.1"),
        (lambda name: {"bands": {name: {"low": 0}}}, "bands.{}"),
    ],
)
def test_customer_likeness_is_no_input(attribute: str, changes: Callable[[str], dict[str, object]], field: str) -> None:
    """However it is written; and it is said that this is on purpose."""
    with pytest.raises(PolicyError) as refusal:
        Policy.default().with_changes(**changes(attribute))

    assert [str(problem) for problem in refusal.value.problems] == [
        f'{field.format(attribute)}: found "{attribute}", '
        "expected another attribute: customer likeness is deliberately no input"
    ]
