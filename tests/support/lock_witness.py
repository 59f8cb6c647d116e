"""Watches several holders of one lock from outside: no two at a time, and fences that only grow.

It is told what happened, with the time of it, and judges at the end. A holder enters after it was told that it has the
lock, and leaves before it gives it back, so intervals that overlap are a fault, whatever the machine's pace.
"""

import threading


class LockWitness:
    def __init__(self):
        self.mutex = threading.Lock()
        self.stays = []  # (from, until, who)
        self.fences = []  # (when, fence, who)

    def stay(self, who, begin, end):
        with self.mutex:
            self.stays.append((begin, end, who))

    def fence(self, who, when, fence):
        with self.mutex:
            self.fences.append((when, fence, who))

    def complaints(self):
        found = []
        last = None
        for stay in sorted(self.stays):
            if last is not None and stay[0] < last[1] and stay[2] != last[2]:
                found.append(f"{stay[2]} came in at {stay[0]:.6f}, and {last[2]} left at {last[1]:.6f}")
            if last is None or stay[1] > last[1]:
                last = stay
        highest = (0, 0, "nobody")
        for fence in sorted(self.fences):
            if fence[1] <= highest[1]:
                found.append(f"{fence[2]} got the fence {fence[1]} after {highest[2]} had got {highest[1]}")
            highest = max(highest, fence, key=lambda each: each[1])
        return found
