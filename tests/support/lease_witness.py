"""A witness of leases: it is told who enters and leaves what, knows nothing of gpumgrd, and remembers what cannot be.

Its time is that of CLOCK_MONOTONIC, which all processes of a host share. What it is told has already happened:
"enter" comes after a grant and "leave" before its release, so that two who were inside together really were.
"""

import time


class Inside:
    """Somebody who says that it holds a lease."""

    def __init__(self, who, fence, services, mode, asked, expires):
        self.who = who
        self.fence = fence
        self.services = services
        self.mode = mode
        self.asked = asked  # when it asked for the lease
        self.expires = expires  # when its time is over; None: it is attached
        self.entered = time.monotonic()

    def is_over(self, moment):
        return self.expires is not None and moment >= self.expires

    def __str__(self):
        return f"{self.who} with fence {self.fence} ({self.mode} on {', '.join(self.services) or 'room'})"


class Witness:
    """`soft` are services whose leases may be broken, and then only with the reason "broken"."""

    def __init__(self, soft=()):
        self.soft = set(soft)
        self.inside = {}  # by fence
        self.ended = {}  # by fence: others came in by right; it must turn out that its holder lost the lease
        self.seen = {}  # all fences, and when their holders asked
        self.highest = 0
        self.given = {}  # by service: all who said that they hold it
        self.forced = {}  # by service: when the last stop by force was over; None: it is not over
        self.complaints = []

    def complain(self, text):
        self.complaints.append(text)

    # Who says what.

    def ask(self):
        """Somebody is about to ask for a lease. The fence that it gets must be above the one returned."""
        return self.highest

    def enter(self, who, fence, services, mode, above, asked, expires=None):
        new = Inside(who, fence, services, mode, asked, expires)
        if fence in self.seen:
            self.complain(f"{new}: that fence was given before")
        if fence <= above:
            self.complain(f"{new}: {above} was given before it asked")
        self.seen[fence] = asked
        self.highest = max(self.highest, fence)
        overtakers = self.overtakers(new)
        for service in services:
            self.given.setdefault(service, []).append(new)
        if overtakers:
            self.check_late(new, overtakers)
            return
        for other in list(self.inside.values()):
            if self.exclude_each_other(other, new):
                self.check_right(other, new)
        self.inside[fence] = new

    def leave(self, fence):
        """It is about to release, or to close its connection."""
        self.inside.pop(fence, None)
        if fence in self.ended and self.ended[fence].expires is None:
            del self.ended[fence]  # it did not listen any more

    def released(self, fence):
        """It was still there to be released."""
        if fence in self.ended:
            self.complain(f"{self.ended.pop(fence)}: others came in, and it was still there to be released")

    def lost(self, fence, reason):
        """It was told that its lease is over."""
        entry = self.inside.pop(fence, None) or self.ended.pop(fence, None)
        if entry is None:
            return
        if reason == "broken" and not self.soft.intersection(entry.services):
            self.complain(f"{entry}: broken, and nothing of it may be broken")
        elif reason == "forced" and not self.was_forced(entry.fence, entry.services):
            self.complain(f"{entry}: ended by force that nobody used")
        elif reason not in ("broken", "forced"):
            self.complain(f"{entry}: lost, {reason}")

    def gone(self, fence, services):
        """There is no such lease any more when it was to be released or renewed, or its holder came back."""
        if not self.was_forced(fence, services) and not self.soft.intersection(services):
            self.complain(f"fence {fence} on {', '.join(services) or 'room'}: no such lease any more")
        self.ended.pop(fence, None)

    def force(self, services):
        """These are about to be stopped by force."""
        for service in services:
            self.forced[service] = None

    def force_over(self, services):
        """They are stopped."""
        for service in services:
            self.forced[service] = time.monotonic()

    def dead(self, fences):
        """Whoever holds these was killed."""
        for fence in fences:
            self.inside.pop(fence, None)
            self.ended.pop(fence, None)

    def end(self):
        """Nobody comes any more."""
        for entry in self.inside.values():
            self.complain(f"{entry}: never left")
        for entry in self.ended.values():
            self.complain(f"{entry}: others came in, and it was never told")

    # What must hold.

    @staticmethod
    def exclude_each_other(one, two):
        if "gpu" in (one.mode, two.mode):
            return True  # there is one GPU
        sole = "exclusive" in (one.mode, two.mode)
        return sole and bool(set(one.services) & set(two.services))

    def overtakers(self, new):
        """Who got later what excludes it, and was inside before it said that it is."""
        others = [other for service in new.services for other in self.given.get(service, [])]
        others += self.inside.values()
        return [other for other in others if other.fence > new.fence and self.exclude_each_other(other, new)]

    def check_late(self, new, overtakers):
        """It may have been held up on its way here: then its lease was over, for a reason that is known."""
        first = min(overtakers, key=lambda other: other.entered)
        if new.is_over(first.entered):
            return
        if not self.was_forced(new.fence, new.services) and not self.soft.intersection(new.services):
            self.complain(f"{new}: {first} came in before it")
        elif not new.is_over(new.entered):
            self.ended[new.fence] = new

    def was_forced(self, fence, services):
        """Between the request and now: when exactly it was granted only gpumgrd knows."""
        ends = [self.forced[service] for service in services if service in self.forced]
        return any(end is None or end >= self.seen.get(fence, 0) for end in ends)

    def check_right(self, other, new):
        """Both say that they are inside. The older lease must have ended, for a reason that is known."""
        if other.is_over(new.entered):
            return
        if other.fence < new.fence and self.was_forced(other.fence, other.services):
            self.ended[other.fence] = self.inside.pop(other.fence)
        elif other.fence < new.fence and self.soft.intersection(other.services):
            self.ended[other.fence] = self.inside.pop(other.fence)
        else:
            self.complain(f"{new} came in while {other} was inside")
