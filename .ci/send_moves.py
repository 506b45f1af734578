"""What a storm does with onions and payments."""

import collections

from node_driver import hash_of

POOL = 40  # Keys that are asked again after every kill.
OUTCOMES = ("accept",) * 5 + ("settle", "settle", "reject_validation", "definitive", "duplicate", "unknown", "panic", "hang")
PREIMAGES = ("ab" * 32, "cd" * 32)


def terms_of(key, other=False):
    return {"payment_hash": hash_of(key), "amount_msat": 3_000 if other else 2_000}


def send(key, outcome=None, delay_ms=0, other=False):
    """One move: the name, the key, the method and its members."""
    simulate = {"simulate": {"outcome": outcome, "delay_ms": delay_ms}} if outcome else {}
    onion = {"onion": "aa" * 1366} if key[0] == "onion" else {}
    return ("call", key, f"send_{key[0]}", {**terms_of(key, other), **onion, **simulate})


class SendMoves:
    """Which keys there are, and what becomes of them. All of it follows from the storm's seeds."""

    def __init__(self, court):
        self.court = court
        self.pool = collections.deque(maxlen=POOL)
        self.all = []

    def burst(self, rng):
        return [move for _ in range(rng.randrange(4, 24)) for move in self._moves(rng)]

    def _moves(self, rng):
        kind = rng.choices(("fresh", "again", "other", "tick", "end", "release"), (18, 16, 8, 18, 24, 16))[0]
        if kind == "tick":
            return [("tick",)]
        if kind == "fresh" or not self.pool:
            key = self._fresh(rng)
            return [send(key, rng.choice(OUTCOMES), rng.choice((0, 0, 3)))] * rng.choice((1, 1, 2))
        key = rng.choice(list(self.pool)[-12:])
        if kind in ("again", "other"):
            return [send(key, rng.choice(OUTCOMES), other=kind == "other")]
        moves = self._ends(key, rng) if kind == "end" else self._releases(key, rng)
        return [("call", key, method, members) for method, members in moves]

    def _fresh(self, rng):
        number = len(self.all)
        if rng.random() < 0.5:
            key = ("payment", "", hash_of(("payment", number)))
        elif rng.random() < 0.3 and self.all and self.all[-1][0] == "onion":
            key = ("onion", "AB"["A" == self.all[-1][1]], self.all[-1][2])
        else:
            key = ("onion", rng.choice("AB"), number)
        if key not in self.pool:
            self.pool.append(key)
            self.all.append(key)
        return key

    def _ends(self, key, rng):
        preimage, paid = rng.choice(PREIMAGES), rng.random() < 0.6
        if key[0] == "payment":
            attempt = rng.choice((None, None, 1, 1, 2, 3))
            event = {"event": "sent", "preimage": preimage} if paid else {"event": "failed"}
            return [("payment_event", {"attempt": attempt, **event})]
        end = {"result": "settled", "preimage": preimage} if paid else {"result": "failed", "reason": rng.choice(("", "no"))}
        return [rng.choice((("resolve_onion", end), ("resolve_onion", end), ("track_onion", {"timeout_ms": 0})))]

    @staticmethod
    def _releases(key, rng):
        if key[0] == "payment":
            return [(rng.choice(("ack_payment_event", "ack_payment_event", "abandon_payment")), {})]
        return [(rng.choice(("forget_onions", "forget_onions", "fence_onion")), {})]

    def again(self, sent, rng):
        """Every key of the burst and of the pool, most with its own terms."""
        keys = list(dict.fromkeys([*self.pool, *sent]))
        rng.shuffle(keys)
        return [send(key, other=rng.random() < 0.15) for key in keys]

    def quiet(self, rng):
        """Some payments are paid and acknowledged, and seven ticks go by with nothing else; sometimes the eighth."""
        payments = [key for key in self.pool if key[0] == "payment"]
        payments = rng.sample(payments, min(4, len(payments)))
        for key in payments:
            for method, members in (("payment_event", {"event": "sent", "preimage": PREIMAGES[0]}), ("ack_payment_event", {})):
                self.court.call(key, method, **members)
                self.court.settle()
        for count in (7, 1)[: rng.randrange(1, 3)]:
            for _ in range(count):
                self.court.tick()
            self.court.settle()
            for key in payments:
                _, key, method, members = send(key, other=rng.random() < 0.3)
                self.court.call(key, method, **members)
            self.court.settle()

    def end(self):
        """Ticks enough for all that is acknowledged, and every key that there ever was."""
        for _ in range(9):
            self.court.tick()
        self.court.settle()
        for at in range(0, len(self.all), POOL):
            for key in self.all[at : at + POOL]:
                _, key, method, members = send(key)
                self.court.call(key, method, **members)
            self.court.settle()
