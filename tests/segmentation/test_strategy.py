"""Strategies in the policy: what may be left out, what is refused, and that they decide nothing about segments."""

from importlib.resources import files

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segmentation.policy import Policy, PolicyError, parse_policy
from segmentation.segments import Segment

DEFAULT = files("segmentation").joinpath("default_policy.toml").read_text(encoding="utf-8")
OTHER = """
[segments.key]
role = "strategic_accounts"
touches_a_quarter = 20

[team.strategic_accounts]
people = 2

[team.account_manager]
people = 9

[owners]
accounts_max = 60
"""


def policy_with(text: str) -> Policy:
    """The default rules, and these strategies."""
    return parse_policy(DEFAULT + text, "test.toml")


def test_each_segment_has_the_strategy_that_was_meant_for_it() -> None:
    """Where nobody wrote one: who does it, how, and how many minutes of a person's time an account takes a quarter."""
    policy = Policy.default()

    listed = {
        segment: (playbook.role, playbook.motion, playbook.minutes_a_quarter)
        for segment in Segment
        for playbook in [policy.segments.of(segment)]
    }
    assert listed == {
        Segment.KEY: ("key_account_team", "priority access", 720),
        Segment.ENTERPRISE: ("account_manager", "cross-sell", 180),
        Segment.COMMERCIAL: ("program_manager", "automated, volume and loyalty", 0),
        Segment.NEW_START: ("onboarding_specialist", "onboard, watch for growth or churn", 120),
        Segment.PROSPECT: ("sales_development", "nurture to a first purchase", 30),
    }
    assert {name: (role.people, role.hours_a_quarter) for name, role in policy.team.items()} == {
        "key_account_team": (4, 400),
        "account_manager": (6, 400),
        "program_manager": (1, 400),
        "onboarding_specialist": (3, 400),
        "sales_development": (3, 400),
    }
    assert (policy.owners.accounts_max, policy.owners.hours_a_quarter_max) == (150, 400)


def test_what_is_left_out_is_as_it_is_by_default() -> None:
    """A whole table, or a field of one; a role that no segment has any more is gone."""
    policy, default = policy_with(OTHER), Policy.default()

    key = policy.segments.key
    assert (key.role, key.touches_a_quarter) == ("strategic_accounts", 20)
    assert (key.minutes_a_touch, key.offers) == (60, default.segments.key.offers)
    assert policy.segments.prospect == default.segments.prospect
    assert list(policy.team) == [
        "strategic_accounts",
        "account_manager",
        "program_manager",
        "onboarding_specialist",
        "sales_development",
    ]
    assert (policy.team["strategic_accounts"].people, policy.team["strategic_accounts"].hours_a_quarter) == (2, 400)
    assert (policy.team["account_manager"].people, policy.team["account_manager"].hours_a_quarter) == (9, 400)
    assert (policy.owners.accounts_max, policy.owners.hours_a_quarter_max) == (60, 400)


def test_strategies_are_no_part_of_the_rules() -> None:
    """So a running installation may take others: the hash that its state was made with is the same."""
    policy = policy_with(OTHER)

    assert policy != Policy.default()
    assert policy.hash == Policy.default().hash
    assert policy.differences(Policy.default().canonical()) == []
    assert Policy.default().differences(policy.canonical()) == []
    assert policy.rest_differences(Policy.default().canonical_rest()) == [
        "owners.accounts_max: 150 -> 60",
        "segments.key.role: key_account_team -> strategic_accounts",
        "segments.key.touches_a_quarter: 12 -> 20",
        "team.account_manager.people: 6 -> 9",
        "team.key_account_team.hours_a_quarter: 400 -> nothing",
        "team.key_account_team.people: 4 -> nothing",
        "team.strategic_accounts.hours_a_quarter: nothing -> 400",
        "team.strategic_accounts.people: nothing -> 2",
    ]
    assert policy.rest_differences(policy.canonical_rest()) == []


def test_a_change_of_a_rule_keeps_the_strategies() -> None:
    """And a change of a strategy keeps the rules."""
    policy = policy_with(OTHER).with_changes(band=1)

    assert policy.band_bp == 100
    assert policy.segments == policy_with(OTHER).segments
    assert policy.team == policy_with(OTHER).team
    assert policy.canonical_rest() == policy_with(OTHER).canonical_rest()
    assert policy.with_changes(segments={}, team={}, owners={}) == Policy.default().with_changes(band=1)


def test_a_difference_in_a_list_is_readable() -> None:
    """As a person would write the list."""
    policy = policy_with('[segments.key]\noffers = ["golf", "dinner"]\n')

    assert policy.rest_differences(Policy.default().canonical_rest()) == [
        "segments.key.offers: priority access, executive briefing -> golf, dinner"
    ]


@pytest.mark.parametrize(
    ("text", "field", "said"),
    [
        ("segments = 3", "segments", "found 3, expected tables [segments.key]"),
        ("[segments]\nkey = 3", "segments.key", "a table [segments.key]"),
        ("[segments.kee]", "segments.kee", "an unknown field, expected key, perhaps"),
        ("[segments.key]\nrules = 1", "segments.key.rules", "role, perhaps"),
        ("[segments.key]\ntier = 1", "segments.key.tier", "an unknown field"),
        ('[segments.key]\nrole = "Key Team"', "segments.key.role", 'in lower case ("account_manager")'),
        ('[segments.key]\nrole = "nobody"', "segments.key.role", "a table [team.nobody] with people"),
        ('[segments.key]\nteam = ""', "segments.key.team", "of 1 to 64 characters that can be seen"),
        (f'[segments.key]\nteam = "{"x" * 65}"', "segments.key.team", "of 1 to 64 characters"),
        ('[segments.key]\nmotion = "bell \\u0007"', "segments.key.motion", "that can be seen"),
        ('[segments.key]\nmotion = "turned \\u202e"', "segments.key.motion", "that can be seen"),
        ('[segments.key]\nmotion = "blank at the end "', "segments.key.motion", "without blanks at its ends"),
        ('[segments.key]\nnext_step = "one\\ntwo"', "segments.key.next_step", "of 1 to 200 characters"),
        (f'[segments.key]\nnext_step = "{"x" * 201}"', "segments.key.next_step", "of 1 to 200 characters"),
        ('[segments.key]\nchannels = "phone"', "segments.key.channels", 'found "phone", expected a list of up to 8'),
        ('[segments.key]\nchannels = ["a", 3]', "segments.key.channels.1", "found 3, expected a list"),
        ('[segments.key]\nchannels = ["\\u0000"]', "segments.key.channels.0", "expected a list of up to 8 texts"),
        (f"[segments.key]\noffers = {['x'] * 9}", "segments.key.offers", "found a list, expected a list of up to 8"),
        ("[segments.key]\ntouches_a_quarter = -1", "segments.key.touches_a_quarter", "from 0 to 10000"),
        ("[segments.key]\ntouches_a_quarter = 1.5", "segments.key.touches_a_quarter", "a whole number"),
        ("[segments.key]\nminutes_a_touch = 10001", "segments.key.minutes_a_touch", "from 0 (nobody's time) to 10000"),
        ("[segments.key]\nminutes_a_touch = true", "segments.key.minutes_a_touch", "found true"),
        ("team = []", "team", "found a list, expected tables like [team.account_manager]"),
        ("[team]\naccount_manager = 4", "team.account_manager", "expected a table [team.account_manager]"),
        ("[team.account_manager]\npeople = -1", "team.account_manager.people", "from 0 to 100000"),
        ("[team.account_manager]\nhours_a_quarter = 0", "team.account_manager.hours_a_quarter", "hours from 1 to 2208"),
        ("[team.account_manager]\nhours = 1", "team.account_manager.hours", "expected one of people, hours_a_quarter"),
        (
            "[team.acount_manager]\npeople = 1",
            "team.acount_manager",
            "found a role that no segment has, expected one of",
        ),
        ("[team.Boss]\npeople = 1", "team.Boss", "expected a role in lower case"),
        ('[segments.key]\nrole = "boss"\n[team.boss]\nhours_a_quarter = 9', "team.boss.people", "found nothing"),
        ("[owners]\naccounts_max = 0", "owners.accounts_max", "from 1 to"),
        ("[owners]\nhours_a_quarter_max = 2209", "owners.hours_a_quarter_max", "from 1 to 2208"),
        ("[owners]\naccounts = 1", "owners.accounts", "accounts_max, perhaps"),
        ("owners = 3", "owners", "a table [owners]"),
    ],
)
def test_each_mistake_in_a_strategy_is_named(text: str, field: str, said: str) -> None:
    """As anywhere in the policy: the field, what was found, and what would be right."""
    before_the_tables = "" if text.startswith("[") else text + "\n"
    with pytest.raises(PolicyError) as refusal:
        parse_policy(before_the_tables + DEFAULT + ("" if before_the_tables else text), "test.toml")

    problems = {problem.field: str(problem) for problem in refusal.value.problems}
    assert problems[field].startswith(f"{field}: found ")
    assert said in problems[field]
    assert all(character.isprintable() for character in problems[field])


@given(
    touches=st.integers(0, 10_000),
    minutes=st.integers(0, 10_000),
    offers=st.lists(st.text(st.characters(categories=["L", "N", "P"]), min_size=1, max_size=64), max_size=8),
)
def test_a_strategy_comes_back_as_it_was_written(touches: int, minutes: int, offers: list[str]) -> None:
    """Through the document and through its canonical form."""
    written = {"key": {"touches_a_quarter": touches, "minutes_a_touch": minutes, "offers": offers}}
    policy = Policy.default().with_changes(segments=written)

    assert policy.segments.key.minutes_a_quarter == touches * minutes
    assert policy.segments.key.offers == tuple(offers)
    again = policy.with_changes()
    assert again == policy
    assert again.canonical_rest() == policy.canonical_rest()


def test_needs_change_what_is_offered_and_done_next() -> None:
    """Their offers come first, each once; the first next step that a need has takes the place of the segment's."""
    policy = policy_with(
        """
[needs.training]
offers = ["course", "starter kit"]
[needs.migration]
offers = ["course", "migration day"]
next_step = "Plan the migration"
"""
    )
    plain = policy.playbook(Segment.NEW_START)
    assert plain == policy.segments.new_start
    changed = policy.playbook(Segment.NEW_START, ["training", "nothing known", "migration"])
    assert changed.offers == ("course", "starter kit", "migration day", "training")
    assert changed.next_step == "Plan the migration"
    assert changed.document() | {"offers": [], "next_step": ""} == plain.document() | {"offers": [], "next_step": ""}
    assert policy.hash == Policy.default().hash
    assert policy.classification_hash != Policy.default().classification_hash
