"""`make mutants`: each patch beside this file is applied to a copy of the program, and a test must fail there.

A patch begins with a line `# tests: ...`, the narrowest tests that should notice, or is noticed by the simulation; then
a sentence that says what the bug is. ONLY=name runs one of them. REPORT=1 writes who noticed to docs/reliability.md.
Ends with status 1 where a bug was not noticed.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from tests.faults.report import write_section

ROOT = Path(__file__).parents[2]
SIMULATION = ["tests/simulation/test_shard.py", "tests/simulation/test_simulation.py"]
SECONDS_MAX = 280.0
"""A program that hangs is as bad as one that says nothing: its bug counts as not noticed."""
NOT_APPLIED, SURVIVED = "the patch does not apply", "SURVIVED"
HEADER = "# tests:"


class Mutant(NamedTuple):
    """A bug."""

    name: str
    description: str
    tests: list[str]
    patch: Path

    @classmethod
    def of(cls, patch: Path) -> "Mutant":
        """What a patch says of itself."""
        lines = patch.read_text().partition("\ndiff --git")[0].splitlines()
        tests = SIMULATION
        if lines[0].startswith(HEADER):
            tests = lines.pop(0).removeprefix(HEADER).split()
        return cls(patch.stem, " ".join(lines).strip(), tests, patch)


class Verdict(NamedTuple):
    """Which test noticed a bug, or why none did."""

    mutant: Mutant
    caught_by: str | None
    otherwise: str
    seconds: float


def judge(mutant: Mutant) -> Verdict:
    """Run the tests on a copy with the bug in it."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="resegment-mutant-") as name:
        copy = Path(name)
        _copy_tree(copy)
        # nothing above may be taken for the repository: paths would mean something else
        environment = os.environ | {"GIT_CEILING_DIRECTORIES": str(copy.parent), "PYTHONDONTWRITEBYTECODE": "1"}
        applied = subprocess.run(
            ["git", "apply", "-C1", str(mutant.patch)], cwd=copy, env=environment, capture_output=True
        )
        if applied.returncode:
            return Verdict(mutant, None, f"{NOT_APPLIED}: {applied.stderr.decode().strip()}", 0.0)
        caught_by, otherwise = _tested(mutant, copy, environment)
    return Verdict(mutant, caught_by, otherwise, time.monotonic() - began)


def _copy_tree(copy: Path) -> None:
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
        text=True,
    )
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, copy / name)


def _tested(mutant: Mutant, copy: Path, environment: dict[str, str]) -> tuple[str | None, str]:
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "--tb=no", *mutant.tests]
    try:
        done = subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True, timeout=SECONDS_MAX)
    except subprocess.TimeoutExpired:
        return None, f"{SURVIVED}: not done within {SECONDS_MAX:g} s"
    found = re.search(r"^FAILED (.+?)(?: - .*)?$", done.stdout, re.MULTILINE)
    if done.returncode == 1 and found:
        return found.group(1), ""
    return None, f"{SURVIVED} (pytest: {done.returncode})\n{done.stdout[-2000:]}{done.stderr[-2000:]}"


def main() -> int:
    """Judge all, and say what came of it."""
    only = os.environ.get("ONLY")
    mutants = [
        Mutant.of(patch) for patch in sorted(Path(__file__).parent.glob("*.patch")) if only in (None, "", patch.stem)
    ]
    verdicts = []
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for verdict in pool.map(judge, mutants):
            verdicts.append(verdict)
            print(
                f"{verdict.mutant.name} ({verdict.seconds:.0f} s): {verdict.caught_by or verdict.otherwise}", flush=True
            )
    missed = [verdict.mutant.name for verdict in verdicts if verdict.caught_by is None]
    print(
        f"{len(verdicts)} bugs, {len(verdicts) - len(missed)} noticed"
        + (f"; not: {', '.join(missed)}" if missed else "")
    )
    if os.environ.get("REPORT") and not only:
        rows = [f"| {v.mutant.description} | `{v.caught_by or 'nobody'}` |" for v in verdicts]
        write_section("mutants", ["| bug | noticed by |", "| --- | --- |", *rows])
    return 1 if missed or not verdicts else 0


if __name__ == "__main__":
    sys.exit(main())
