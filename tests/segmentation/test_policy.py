from decimal import Decimal
from importlib.resources import files
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from segmentation.policy import WHOLE_BP, Policy, PolicyError, load_policy, parse_policy

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
