"""The command line `resegment`."""

import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command and exit: 0 done, 1 the check it made failed, 2 used wrongly or something cannot be reached."""
    # imported here: a program that imports this package pays nothing
    from streams.cli.app import app
    from streams.cli.failures import explain_failure

    try:
        code = app(args=arguments, prog_name="resegment", standalone_mode=False)
        sys.stdout.flush()
    except BaseException as error:
        code = explain_failure(error)
    sys.exit(code if isinstance(code, int) else 0)
