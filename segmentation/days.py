"""A set of days: a bit a day from the first one on, so the days of a year take 46 bytes, whatever happens on them."""


class DaySet:
    """Days on which something happened. Order and duplicates leave no trace in it."""

    __slots__ = ("bits", "first_day")

    def __init__(self, first_day: int = 0, bits: int = 0) -> None:
        self.first_day = first_day
        """The first of the days; 0 where there is none."""
        self.bits = bits
        """Bit n: `first_day` + n is one of them. Odd, or 0 where there is no day."""

    def add(self, day: int) -> bool:
        """One more day. Returns whether it is new. O(days / 64)."""
        offset = day - self.first_day
        if not self.bits:
            self.first_day, self.bits = day, 1
        elif offset < 0:
            self.first_day, self.bits = day, self.bits << -offset | 1
        elif self.bits >> offset & 1:
            return False
        else:
            self.bits |= 1 << offset
        return True

    def let_go(self, horizon: int) -> None:
        """Drop the days up to the horizon. O(days / 64)."""
        excess = horizon + 1 - self.first_day
        if excess <= 0 or not self.bits:
            return
        bits = self.bits >> excess
        empty = (bits & -bits).bit_length() - 1 if bits else 0
        self.first_day, self.bits = (horizon + 1 + empty, bits >> empty) if bits else (0, 0)

    def count(self, after_day: int, day: int) -> int:
        """How many of the days lie after the first of these two and not after the second. O(days / 64)."""
        bits, end, start = self.bits, day + 1 - self.first_day, after_day + 1 - self.first_day
        if end < bits.bit_length():  # else there is nothing to mask, and of an empty set the mask is 2.5 KB long
            bits &= (1 << max(0, end)) - 1
        return (bits >> max(0, start)).bit_count()
