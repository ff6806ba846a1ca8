"""How an account goes from one population to another: once, and with one writer of its changes at any moment.

Populations are ranked by different shards, which read what they are told at their own pace. So an account's right to
be announced is handed over. Its transfers are numbered 1, 2, 3, ... in the order of its signups, which is the same
however often the log is read. Where it begins it needs no hand-over; transfer n ends its stay n - 1 and begins stay n.
The population that it leaves is told of the *departure*, takes it out, and sends a *hand-over* of that number with all
that the world was told of it. The one that it comes to is told its *standing*, and takes it in once both are there.

Everything may come twice, and late: each number is acted upon once, and after it all smaller ones are of the past.
"""

from collections.abc import Iterator
from typing import NamedTuple, Protocol

from segmentation.account import Standing
from segmentation.risk import Level
from segmentation.segments import Segment


class Departure(NamedTuple):
    """An account leaves a population."""

    account_id: str
    transfer: int
    """Its number."""
    population: str
    """The one that it leaves."""
    to: str


class Told(NamedTuple):
    """What the world was told last of an account."""

    population: str = ""
    """In which population it was; empty where nothing was told."""
    sequence: int = 0
    """Of the last change of segment; 0: none."""
    segment: Segment | None = None
    effective_at_us: int = 0
    fall_day: int = 0
    """The day of that change, if it was a fall of tier; else 0."""
    risk_sequence: int = 0
    """Of the last change of risk; 0: none."""
    risk_level: Level = Level.LOW
    risk_effective_at_us: int = 0

    def newest(self, other: "Told") -> "Told":
        """Of segment and risk each what was told later, here or there."""
        segment = max(self, other, key=lambda told: told.sequence)
        risk = max(self, other, key=lambda told: told.risk_sequence)
        return Told(*segment[:5], *risk[5:])

    def instead_of(self, other: "Told") -> "Told":
        """Of segment and risk what was told here, where that is anything, else what was there."""
        segment, risk = (self if self.sequence else other), (self if self.risk_sequence else other)
        return Told(*segment[:5], *risk[5:])


NOTHING_TOLD = Told()


class HandOver(NamedTuple):
    """The right to announce an account goes to another population."""

    account_id: str
    transfer: int
    population: str
    """The one that had it."""
    to: str
    told: Told


class _Here(Protocol):
    """A member of the population: what has to be known of it here."""

    transfer: int


class Transfer(NamedTuple):
    """Of one account what a population has to remember beside the member itself, or instead of it."""

    left: int = 0
    """The number of its last departure from here: every stay before is over."""
    given: HandOver | None = None
    """Sent at that departure; None: nothing had been told of the account."""
    held: HandOver | None = None
    """Of a stay of which no standing has come yet."""
    waiting: Standing | None = None
    """Of a stay of which no hand-over has come yet: the newest."""
    pending: tuple[Departure, ...] = ()
    """Departures from stays of which no hand-over has come yet."""
    told: Told = NOTHING_TOLD
    """Learnt from the log, of an account that is not here (yet)."""

    @property
    def is_under_way(self) -> bool:
        """Whether the account is neither here nor gone."""
        return self.waiting is not None or bool(self.pending)


_NOTHING = Transfer()
_PASSED_BY = Transfer(left=1)
"""Of all that were told of in another population before anything was told of them: one object for very many."""


class Transfers:
    """Of one population. Every call costs O(1)."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._of: dict[str, Transfer] = {}
        self.under_way = 0
        """Accounts that are neither here nor gone."""
        self.changed: set[str] = set()
        """Accounts whose transfers are others than were stored; whoever stores them takes them out."""

    def __len__(self) -> int:
        """Accounts of which something is remembered."""
        return len(self._of)

    def __contains__(self, account_id: str) -> bool:
        return account_id in self._of

    def __iter__(self) -> Iterator[tuple[str, Transfer]]:
        return iter(self._of.items())

    def get(self, account_id: str) -> Transfer:
        """What is remembered of an account."""
        return self._of.get(account_id, _NOTHING)

    def restore(self, account_id: str, transfer: Transfer) -> None:
        """Put back what was stored."""
        self.under_way += transfer.is_under_way - self.get(account_id).is_under_way
        if transfer == _NOTHING:
            self._of.pop(account_id, None)
        else:
            self._of[account_id] = _PASSED_BY if transfer == _PASSED_BY else transfer

    def _set(self, account_id: str, transfer: Transfer) -> None:
        if transfer != self.get(account_id):
            self.restore(account_id, transfer)
            self.changed.add(account_id)

    def takes(self, standing: Standing, member: _Here | None) -> bool | HandOver:
        """Whether a standing is of a member; a hand-over: it is from now on, with what that says; False: not now."""
        account_id, number = standing.account_id, standing.transfer
        known = self._of.get(account_id)
        if known is None:
            if number == 0 or (member is not None and member.transfer == number):
                return True
            known = _NOTHING
        if self.is_over(account_id, number):
            return False
        if member is not None:
            if member.transfer >= number:
                return member.transfer == number
        elif number == 0:
            # here it begins: with what may have been learnt of it
            self._set(account_id, known._replace(told=NOTHING_TOLD))
            return HandOver(account_id, 0, self.name, self.name, known.told)
        elif known.held is not None and known.held.transfer == number:
            hand_over = known.held
            self._set(account_id, known._replace(held=None, waiting=None, told=NOTHING_TOLD))
            return hand_over._replace(told=hand_over.told.newest(known.told))
        waits = known.waiting
        if waits is None or (waits.transfer, waits.version, waits.day) <= (number, standing.version, standing.day):
            self._set(account_id, known._replace(waiting=standing))
        return False

    def is_over(self, account_id: str, number: int) -> bool:
        """Whether a departure has come from the stay that began with this number."""
        known = self.get(account_id)
        return number < known.left or any(number < departure.transfer for departure in known.pending)

    def depart(self, departure: Departure, member: _Here | None, told: Told) -> HandOver | None:
        """An account leaves; told: what the world was told of the member. Returns the hand-over, if it is to be sent.

        Whoever is a member of an earlier stay is none any more.
        """
        account_id, number, _, _ = departure
        known = self.get(account_id)
        if number < known.left:
            return None
        if number == known.left:
            return known.given or HandOver(*departure, NOTHING_TOLD)
        if (member is not None and member.transfer == number - 1) or number == 1:
            told = told.newest(known.told)
        elif known.held is not None and known.held.transfer == number - 1:
            told = known.held.told.newest(known.told)
        else:
            if departure not in known.pending:
                waits = known.waiting if known.waiting is not None and known.waiting.transfer >= number else None
                self._set(account_id, known._replace(waiting=waits, pending=(*known.pending, departure)))
            return None
        return self._give(departure, known, told)

    def expects(self, hand_over: HandOver, member: _Here | None) -> bool:
        """Whether a hand-over is news."""
        known, number = self.get(hand_over.account_id), hand_over.transfer
        if number < known.left or (member is not None and member.transfer >= number):
            return False
        return known.held is None or known.held.transfer < number

    def arrive(self, hand_over: HandOver, member: _Here | None) -> HandOver | Standing | None:
        """A hand-over has come. Returns one to be sent on, or the standing with which the account is a member now."""
        if not self.expects(hand_over, member):
            return None
        account_id, number = hand_over.account_id, hand_over.transfer
        known = self.get(account_id)
        for departure in known.pending:
            if departure.transfer == number + 1:
                return self._give(departure, known, hand_over.told.newest(known.told))
        self._set(account_id, known._replace(held=hand_over))
        return known.waiting if known.waiting is not None and known.waiting.transfer == number else None

    def learn(self, given: HandOver) -> None:
        """What the log says was handed over from here: so it is, whatever is remembered."""
        known = self.get(given.account_id)
        if given.transfer >= known.left:
            left = _without_past(known, given.transfer)
            self._set(given.account_id, left._replace(left=given.transfer, given=given))

    def was_told(self, account_id: str, transfer: int, told: Told, *, instead: bool = False) -> bool:
        """Learn what the world was told of an account in a stay in which it is not here. Returns whether that is news.

        See `Population.was_told`.
        """
        known = self.get(account_id)
        if transfer >= known.left:
            self._set(account_id, known._replace(told=known.told.newest(told)))
            return self.get(account_id) != known
        given = known.given
        if given is not None and given.transfer == transfer + 1:
            # it was decided here by a worker on a way that others have gone already
            right = told.instead_of(given.told) if instead else given.told.newest(told)
            self._set(account_id, known._replace(given=given._replace(told=right)))
        return self.get(account_id) != known

    def _give(self, departure: Departure, known: Transfer, told: Told) -> HandOver:
        account_id, number, _, _ = departure
        hand_over = HandOver(*departure, told)
        left = _without_past(known, number)._replace(
            left=number, given=None if told == NOTHING_TOLD else hand_over, told=NOTHING_TOLD
        )
        self._set(account_id, left)
        return hand_over


def _without_past(known: Transfer, number: int) -> Transfer:
    """Without what is of stays before a departure."""
    return known._replace(
        held=known.held if known.held is not None and known.held.transfer >= number else None,
        waiting=known.waiting if known.waiting is not None and known.waiting.transfer >= number else None,
        pending=tuple(pending for pending in known.pending if pending.transfer > number),
    )
