"""The worked example of docs/classification.md is what the program says, and so are its tables and limits."""

import json
import re
import tomllib
from importlib.resources import files
from pathlib import Path

import pytest

from segmentation.classification import Classifier
from segmentation.events import AttributeValue
from segmentation.policy import (
    BANDED_ATTRIBUTES_MAX,
    BANDS_MAX,
    CLASS_ATTRIBUTES_MAX,
    ICP_RULES_MAX,
    ICP_VALUES_MAX,
    POINTS_MAX,
    Policy,
    PolicyError,
    parse_policy,
)

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "classification.md").read_text(encoding="utf-8")
EXAMPLE = (ROOT / "examples" / "policy.toml").read_text(encoding="utf-8")
DEFAULT = files("segmentation").joinpath("default_policy.toml").read_text(encoding="utf-8")
(TABLES,) = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.parametrize(
    "attributes",
    [
        {"industry": " Software ", "employees": 420, "region": "EMEA"},
        {"industry": "software", "employees": "1,000", "region": "apac"},
        {"industry": "retail", "employees": "100"},
        {"employees": 99.5, "region": "APAC"},
    ],
)
def test_each_account_of_the_example_is_classified(attributes: dict[str, AttributeValue]) -> None:
    """By the policy that stands above it."""
    classifier = Classifier.of(parse_policy(DEFAULT + TABLES, "the page"))
    traits = classifier.traits(attributes)
    stated = [
        f" `{json.dumps(attributes[name])}` " if name in attributes else " "
        for name in ("industry", "employees", "region")
    ]
    because = ", ".join(f"{text} ({points:+})" for text, points in classifier.fit_reasons(attributes))
    assert f"|{'|'.join(stated)}| {' / '.join(traits.class_path)} | {traits.fit} | {because} |" in PAGE


def test_the_tables_on_the_page_are_the_default_ones_but_for_the_profile() -> None:
    """Who copies them has other rules, and nothing else."""
    tables = tomllib.loads(TABLES)
    rules = tables.pop("icp")
    default = Policy.default().document()
    assert tables == {name: default[name] for name in ("bands", "classes")}
    assert default["icp"] == [] and len(rules) == 3


def test_the_rules_that_are_commented_out_in_the_example_policy_are_usable() -> None:
    """Without the number signs they are the ones of the page."""
    begin = EXAMPLE.index("# [[icp]]")
    rules = EXAMPLE[begin : EXAMPLE.index("\n\n", begin)]
    uncommented = "\n".join(line.removeprefix("# ") for line in rules.splitlines())
    assert parse_policy(DEFAULT + uncommented, "the example").icp == parse_policy(DEFAULT + TABLES, "the page").icp


def test_likeness_is_refused_as_the_page_says() -> None:
    """As a class, as a band, as a rule, in any spelling."""
    for name in ("likeness", "customer_likeness", "similarity", "lookalike", "Look-Alike"):
        for tables in (
            {"classes": {"by": [name]}},
            {"bands": {name: {"any": 0}}},
            {"icp": [{"attribute": name, "at_least": 1, "points": 1}]},
        ):
            with pytest.raises(PolicyError, match="customer likeness is deliberately no input"):
                Policy.default().with_changes(**tables)


def test_the_limits_are_those_that_the_page_names() -> None:
    """Each of them."""
    text = re.sub(r"\s+", " ", PAGE)
    assert (
        f"more than {CLASS_ATTRIBUTES_MAX} attributes of a class, {BANDS_MAX} bands of an attribute, "
        f"{BANDED_ATTRIBUTES_MAX} attributes with bands, {ICP_RULES_MAX} rules, {ICP_VALUES_MAX} values of a rule"
    ) in text
    assert f"# -{POINTS_MAX} to {POINTS_MAX}" in PAGE
