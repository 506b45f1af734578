"""Kills at random moments: bursts of requests, kill -9, and every question again to whoever comes after."""

import collections
import random
import time

from court import Court, terms
from send_moves import SendMoves

POOL = 120  # Keys that are asked again after every kill.
PEERS = 4
EXPIRIES_SEC = (20, 60, 300, 3600)
MOMENTS_SEC = (0.004, 0.02, 0.06, 0.15)  # The kill comes within one of these.


def other(key, theirs):
    """Another request under the same key."""
    return terms(key, amount=theirs[1] + 1_000, payment_hash=theirs[0], expiry=theirs[3])


class Storm:
    """One store's share of the kills. What it sends follows from its seeds; only a mismatch for what is in doubt is added."""

    def __init__(self, binary, root, **policy):
        self.court = Court(binary, root, **policy)
        self.pool = collections.deque(maxlen=POOL)
        self.all = []
        self.sends = SendMoves(self.court)

    def kill(self, rng):
        """A burst and a kill, then a verification; which is killed, too, now and then. Says how many kills it took."""
        if self.court.node is None:
            self._start(rng)
        burst = self._burst(rng)
        self._until(rng, burst)
        self.court.crash()
        asked = [tuple(rest) for name, *rest in burst if name == "ask"]
        sent = [rest[0] for name, *rest in burst if name == "call"]
        kills = 1
        while kills < 3 and rng.random() < 0.25:
            self._start(rng)
            again = [("ask", *question) for question in self._questions(asked, rng)] + self.sends.again(sent, rng)
            rng.shuffle(again)
            self._until(rng, again)
            self.court.crash()
            kills += 1
        self._start(rng)
        for key, theirs in asked:
            if self.court.mints(key) and not self.court.answered(key):
                self.court.ask(key, other(key, theirs))  # Before its own request comes back.
        for again in range(2):
            if again and rng.random() < 0.3:
                self.sends.quiet(rng)
            for question in self._questions(asked, rng):
                self.court.ask(*question)
            for _, key, method, members in self.sends.again(sent, rng):
                self.court.call(key, method, **members)
            self.court.settle()
        return kills

    def _start(self, rng):
        self.court.start("--mint-delay-ms", rng.choice((0, 0, 1, 5)))

    def _questions(self, asked, rng):
        questions = [*self.pool, *asked]
        rng.shuffle(questions)
        return questions

    def _until(self, rng, moves):
        """Sends the moves and hears answers, up to some moment."""
        deadline = time.monotonic() + rng.uniform(0.0, rng.choice(MOMENTS_SEC))
        for name, *rest in moves:
            if time.monotonic() > deadline:
                return
            if name == "ask":
                self.court.ask(*rest)
            elif name == "call":
                key, method, members = rest
                self.court.call(key, method, **members)
            elif name == "tick":
                self.court.tick()
            elif name == "advance":
                self.court.node.advance(*rest)
            else:
                self.court.node.send_line('{"control":"%s"}' % name)
        self.court.hear_for(deadline - time.monotonic())

    def _burst(self, rng):
        moves = [self._move(rng) for _ in range(rng.randrange(4, 32))] + self.sends.burst(rng)
        rng.shuffle(moves)
        return moves

    def _move(self, rng):
        kind = rng.choices(("fresh", "again", "old", "other", "rival", "advance", "expiry_sweep", "stats"),
                           (45, 20, 7, 10, 8, 5, 3, 2))[0]
        if kind == "advance":
            return ("advance", rng.randrange(90_000))
        if kind in ("expiry_sweep", "stats"):
            return (kind,)
        if kind == "fresh" or not self.pool:
            question = self._fresh(rng, expiry=rng.choice(EXPIRIES_SEC))
            self.pool.append(question)
            return ("ask", *question)
        known = list(self.pool)[-12:] if kind == "again" else list(self.pool)
        key, theirs = rng.choice(known)
        if kind == "other":
            return ("ask", key, other(key, theirs))
        if kind == "rival":
            return ("ask", *self._fresh(rng, payment_hash=theirs[0], expiry=theirs[3]))
        return ("ask", key, theirs)

    def _fresh(self, rng, **terms_of):
        key = (rng.randrange(1, PEERS + 1), f"s{len(self.all)}")
        self.all.append((key, terms(key, **terms_of)))
        return self.all[-1]

    def end(self):
        """One more kill, and every key that there ever was."""
        self.court.crash()
        self.court.start()
        for at in range(0, len(self.all), POOL):
            for question in self.all[at : at + POOL]:
                self.court.ask(*question)
            self.court.settle()
        self.sends.end()
        self.court.shutdown()


def storm(binary, root, seed, kills):
    began = time.monotonic()
    storms = [Storm(binary, root), Storm(binary, root, refuses_once=False)]
    done = 0
    for round_number in range(kills):
        if done >= kills:
            break
        rng = random.Random(f"{seed}:{round_number}")
        done += storms[round_number % 4 == 3].kill(rng)
    for each in storms:
        each.end()
    counts = sum((each.court.referee.counts for each in storms), collections.Counter())
    told = ", ".join(f"{counts[what]} {what}" for what in ("asked", "answered", "replayed", "refused", "cut off", "minted"))
    print(f"{done + len(storms)} kills at random, {time.monotonic() - began:.0f} s: {told}", flush=True)
    counts = sum((each.court.sends.counts for each in storms), collections.Counter())
    told = ", ".join(f"{counts[what]} {what}" for what in ("asked", "told", "cut off", "sent", "ticks",
                                                             "again after a release"))
    print(f"of onions and payments: {told}", flush=True)
