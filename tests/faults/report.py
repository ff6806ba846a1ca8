"""The generated parts of docs/reliability.md."""

from collections.abc import Sequence
from pathlib import Path

DOCUMENT = Path(__file__).parents[2] / "docs" / "reliability.md"


def write_section(name: str, lines: Sequence[str]) -> None:
    """Put the lines between the document's marks of this name. Raises ValueError where it has none."""
    begin, end = f"<!-- {name}: generated -->\n", f"<!-- {name}: end -->\n"
    before, found, rest = DOCUMENT.read_text().partition(begin)
    _, ended, after = rest.partition(end)
    if not (found and ended):
        raise ValueError(f"{DOCUMENT} has no marks for {name}")
    DOCUMENT.write_text(f"{before}{begin}\n" + "".join(f"{line}\n" for line in lines) + f"\n{end}{after}")
