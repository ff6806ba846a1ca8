"""The oracle: works out in SQL, from the log alone, what the state and the changes must be, and compares."""

from streams.oracle.database import CannotVerify
from streams.oracle.report import Mismatch, Report
from streams.oracle.verification import verify

__all__ = ["CannotVerify", "Mismatch", "Report", "verify"]
