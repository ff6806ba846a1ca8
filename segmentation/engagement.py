"""Engagement against the account's own past: on how many days an account did something other than buying.

Days are counted, not events: who logs in a hundred times a day is not a hundred times as engaged. And a set of days is
the same in whatever order, and however often, events arrive.
"""

from typing import NamedTuple

from segmentation.days import DaySet

PAST_SHARE = 8
"""Who engaged on fewer than one in so many days of the past has no rhythm that could fall."""
FALLEN_TO = 2
"""Fallen is who engages less than one so-manyth as often as before."""


class Engaged(NamedTuple):
    """On how many days an account engaged."""

    recent: int
    recent_days: int
    """Of how many, up to the day of the question."""
    past: int
    past_days: int
    """Of how many before these."""

    @property
    def has_fallen(self) -> bool:
        """Whether it engages less than half as often as in its own past, if that was often enough to say so."""
        if self.past * PAST_SHARE < self.past_days:
            return False
        return FALLEN_TO * self.recent * self.past_days < self.past * self.recent_days


class EngagedDays(DaySet):
    """The days on which an account engaged, dated ahead or late."""

    __slots__ = ()

    def engaged(self, day: int, engagement_days: int) -> Engaged:
        """As of the end of a day. Of the last `engagement_days` a third is recent, the rest the past. O(days / 64)."""
        recent_days = max(1, engagement_days // 3)
        all_of_them, recent = (self.count(day - days, day) for days in (engagement_days, recent_days))
        return Engaged(recent, recent_days, all_of_them - recent, engagement_days - recent_days)

    def next_turn(self, day: int, engagement_days: int) -> int | None:
        """The first day after this one on which the account has fallen, or no longer has, if nothing happens.

        None if it stays as it is. O(days of the set), most of which are not looked at.
        """
        if not self.bits:
            return None
        is_fallen = self.engaged(day, engagement_days).has_fallen
        recent_days = max(1, engagement_days // 3)
        held = [self.first_day + n for n in range(self.bits.bit_length()) if self.bits >> n & 1]
        turns = {on + later for on in held for later in (0, recent_days, engagement_days)}
        for turn in sorted(turn for turn in turns if turn > day):
            if self.engaged(turn, engagement_days).has_fallen is not is_fallen:
                return turn
        return None
