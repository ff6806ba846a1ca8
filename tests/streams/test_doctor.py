"""What doctor makes of what servers say of themselves."""

import pytest

from streams.cli.doctor import may_forget


@pytest.mark.parametrize(
    ("release", "spoken", "forgets"),
    [
        ("4.1.2", {0: (3, 13), 35: (1, 4)}, False),
        ("4.2.2", {0: (3, 13), 35: (1, 4)}, False),
        ("4.3.1", {0: (3, 13), 35: (1, 5)}, True),
        ("4.4.0", {0: (3, 13), 35: (1, 5)}, True),
        ("a broker that is not Apache Kafka", {0: (0, 11)}, False),
    ],
)
def test_the_releases_that_forget_what_was_committed_are_known(
    release: str, spoken: dict[int, tuple[int, int]], forgets: bool
) -> None:
    """By what real brokers of these releases answered."""
    assert may_forget(spoken) is forgets, release
