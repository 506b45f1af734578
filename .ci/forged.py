"""Proof that the referee can object: forged transcripts, each with the rule that it breaks, and honest ones that break none."""

import json

from node_driver import STALE, UNKNOWN, Failed
from referee import Objection, Referee

ALPHABET = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
START_MS = 1_700_000_000_000
KEY, OTHER_KEY = ("peer", "session"), ("peer", "another session")
LATER_MS = 700_000


def terms(n=1, amount=5_000_000, payment_hash=None):
    """The request of the n-th key: every key has a description hash of its own."""
    return (payment_hash or f"{n:064x}", amount, f"{n + 1000:064x}", 600, 30)


def forge(terms, at_ms=0, secret=1):
    """What decodes like an invoice minted `at_ms` after the start."""
    payment_hash, amount, description_hash, expiry, cltv = terms
    words = lambda number, size: [number >> 5 * at & 31 for at in reversed(range(size))]
    field = lambda tag, value: [ALPHABET.index(tag), *words(len(value), 2), *value]
    whole = lambda hex: words(int(hex, 16) << 4, 52)
    data = words((START_MS + at_ms) // 1000, 7) + field("p", whole(payment_hash)) + field("h", whole(description_hash))
    data += field("s", whole(f"{secret:064x}")) + field("x", words(expiry, 2)) + field("c", words(cltv + 3, 2))
    return f"lnbcrt{amount * 10}p1" + "".join(ALPHABET[word] for word in data) + "q" * 110


class Transcript:
    """Short words for what a driver reports."""

    def __init__(self, **policy):
        self.referee, self.ids = Referee(**policy), 0

    def ask(self, request, at_ms=0, key=KEY):
        self.ids += 1
        self.referee.asked(self.ids, key, request, START_MS + at_ms)
        return self.ids

    def answer(self, id, bolt11, at_ms=1, space="", to="peer"):
        payment_hash = json.dumps(f"{self.hash_of(id)}")
        result = f'{{{space}"payment_hash":{payment_hash},"bolt11":"{bolt11}"}}'
        self.referee.answered(to, f'{{"jsonrpc":"2.0","id":{id},"result":{result}}}', START_MS + at_ms)

    def hash_of(self, id):
        ask = self.referee.open.get(id)
        return ask.terms[0] if ask else ""

    def refuse(self, id, error=STALE, at_ms=1):
        text = json.dumps({"jsonrpc": "2.0", "id": id, "error": {"code": error[0], "message": error[1]}})
        self.referee.answered("peer", text, START_MS + at_ms)

    def mint(self, *invoices):
        self.referee.minted([f"{invoice_terms[0]} {bolt11}" for invoice_terms, bolt11 in invoices])

    def answered_once(self):
        bolt11 = forge(terms())
        self.answer(self.ask(terms()), bolt11)
        self.mint((terms(), bolt11))
        return bolt11

    def kill(self):
        self.referee.ended()

    def settle(self):
        self.referee.settled()
        self.referee.ended()


def double_mint(t):
    bolt11 = t.answered_once()
    t.mint((terms(), forge(terms(), secret=2)))
    t.settle()


def minted_twice_before_any_answer(t):
    t.ask(terms()), t.ask(terms())
    t.mint((terms(), forge(terms())), (terms(), forge(terms(), secret=2)))
    t.kill()


def minted_again_after_a_restart(t):
    t.answered_once()
    t.kill()
    t.ask(terms(), 10)
    t.mint((terms(), forge(terms(), 10, secret=2)))
    t.kill()


def the_abandoned_mint_is_answered(t):
    first, second = forge(terms()), forge(terms(), secret=2)
    t.ask(terms())
    t.mint((terms(), first))
    t.kill()
    t.answer(t.ask(terms(), 10), first, 11)
    t.mint((terms(), second))
    t.settle()


def changed_answer(t):
    t.answered_once()
    t.kill()
    t.answer(t.ask(terms(), 10), forge(terms(), 10, secret=2), 11)


def two_answers_at_once(t):
    first, second = t.ask(terms()), t.ask(terms())
    t.answer(first, forge(terms()))
    t.answer(second, forge(terms(), secret=2))


def changed_bytes(t):
    bolt11 = t.answered_once()
    t.answer(t.ask(terms(), 10), bolt11, 11, space=" ")


def accepted_mismatch(t):
    t.answered_once()
    other = terms(amount=6_000_000)
    t.answer(t.ask(other, 10), forge(other, secret=2), 11)


def accepted_mismatch_in_flight(t):
    other = terms(amount=6_000_000)
    first, second = t.ask(terms()), t.ask(other)
    t.answer(second, forge(other, secret=2))
    t.answer(first, forge(terms()))


def mismatch_gets_the_invoice(t):
    bolt11 = t.answered_once()
    t.answer(t.ask(terms(amount=6_000_000), 10), bolt11, 11)


def mismatch_ran_after_a_crash(t):
    other = terms(amount=6_000_000)
    t.ask(terms())
    t.mint((terms(), forge(terms())))
    t.kill()
    t.ask(other, 10)
    t.mint((other, forge(other, 10, secret=2)))
    t.kill()


def lost_answer(t):
    t.answered_once()
    t.kill()
    t.refuse(t.ask(terms(), 10), at_ms=11)


def lost_answer_of_unknown_outcome(t):
    t.answered_once()
    t.kill()
    t.refuse(t.ask(terms(), 10), UNKNOWN, at_ms=11)


def silence(t):
    t.ask(terms())
    t.settle()


def answered_twice(t):
    id = t.ask(terms())
    t.answer(id, forge(terms()))
    t.answer(id, forge(terms()))


def answered_to_another_peer(t):
    t.answer(t.ask(terms()), forge(terms()), to="another peer")


def never_minted(t):
    t.answer(t.ask(terms()), forge(terms()))
    t.settle()


def nobody_asked(t):
    t.ask(terms())
    t.mint((terms(2), forge(terms(2))))


def minted_more_often_than_asked(t):
    rival = terms(2, payment_hash=terms()[0])
    t.ask(terms()), t.ask(rival, key=OTHER_KEY)
    t.mint((rival, forge(rival)), (rival, forge(rival, secret=2)))
    t.kill()


def refused_for_no_reason(t):
    t.refuse(t.ask(terms()))
    t.settle()


def refused_twice_for_one_expiry(t):
    t.answered_once()
    t.refuse(t.ask(terms(), LATER_MS), at_ms=LATER_MS + 1)
    t.refuse(t.ask(terms(), LATER_MS + 2), at_ms=LATER_MS + 3)
    t.settle()


def refused_where_it_runs_again(t):
    t.answered_once()
    t.refuse(t.ask(terms(), LATER_MS), at_ms=LATER_MS + 1)
    t.settle()


def expired_invoice(t):
    bolt11 = t.answered_once()
    t.answer(t.ask(terms(), LATER_MS), bolt11, LATER_MS + 1)


def expired_invoice_to_one_who_came_too_late_to_join(t):
    first = t.ask(terms())
    bolt11 = forge(terms())
    t.answer(first, bolt11)
    t.answer(t.ask(terms(), LATER_MS), bolt11, LATER_MS + 1)


def two_rivals_win(t):
    rival = terms(2, payment_hash=terms()[0])
    t.answered_once()
    t.answer(t.ask(rival, 10, key=OTHER_KEY), forge(rival, secret=2), 11)


def another_error(t):
    t.refuse(t.ask(terms()), UNKNOWN)


FORGED = {
    double_mint: "answered, and minted again",
    minted_twice_before_any_answer: "minted twice in one process",
    minted_again_after_a_restart: "answered, and minted again",
    the_abandoned_mint_is_answered: "answered, and minted again",
    changed_answer: "has changed",
    two_answers_at_once: "live at the same time",
    changed_bytes: "in other bytes",
    accepted_mismatch: "has changed",
    accepted_mismatch_in_flight: "live at the same time",
    mismatch_gets_the_invoice: "the invoice of another request",
    mismatch_ran_after_a_crash: "registered, and another request ran",
    lost_answer: "is lost",
    lost_answer_of_unknown_outcome: "is lost",
    silence: "silence: never answered",
    answered_twice: "was answered twice",
    answered_to_another_peer: "answered to another peer",
    never_minted: "never minted",
    nobody_asked: "nobody has asked for",
    minted_more_often_than_asked: "more often than it was asked",
    refused_for_no_reason: "for no reason",
    refused_twice_for_one_expiry: "twice for one",
    refused_where_it_runs_again: "for no reason",
    expired_invoice: "an expired invoice",
    expired_invoice_to_one_who_came_too_late_to_join: "an expired invoice",
    two_rivals_win: "for one payment hash",
    another_error: "async_order_outcome_unknown",
}
POLICIES = {refused_where_it_runs_again: {"refuses_once": False}}


# ---- and what it must not object to --------------------------------------------------------------------------------


def a_mint_cut_off_by_a_kill_is_followed_by_another(t):
    t.ask(terms())
    t.mint((terms(), forge(terms())))
    t.kill()
    bolt11 = forge(terms(), 10, secret=2)
    t.answer(t.ask(terms(), 10), bolt11, 11)
    t.answer(t.ask(terms(), 12), bolt11, 13)
    t.refuse(t.ask(terms(amount=6_000_000), 12), at_ms=13)
    t.mint((terms(), bolt11))
    t.settle()


def an_expired_invoice_is_refused_once_and_then_minted_anew(t):
    t.answered_once()
    t.kill()
    t.refuse(t.ask(terms(), LATER_MS), at_ms=LATER_MS + 1)
    bolt11 = forge(terms(), LATER_MS + 2, secret=2)
    t.answer(t.ask(terms(), LATER_MS + 2), bolt11, LATER_MS + 3)
    t.mint((terms(), bolt11))
    t.settle()


def a_rival_mints_and_loses(t):
    rival = terms(2, payment_hash=terms()[0])
    bolt11, lost = forge(terms()), forge(rival, secret=2)
    won_id, lost_id = t.ask(terms()), t.ask(rival, key=OTHER_KEY)
    t.answer(won_id, bolt11)
    t.refuse(lost_id)
    t.mint((terms(), bolt11), (rival, lost))
    t.settle()
    t.refuse(t.ask(rival, 10, key=OTHER_KEY), at_ms=11)
    t.mint((rival, forge(rival, 10, secret=3)))
    t.settle()


def who_joins_a_slow_run_gets_its_invoice_however_late(t):
    first, second = t.ask(terms()), t.ask(terms(), LATER_MS)
    bolt11 = forge(terms())
    t.answer(second, bolt11, LATER_MS + 1)
    t.answer(first, bolt11, LATER_MS + 1)
    t.mint((terms(), bolt11))
    t.settle()


def what_a_crash_kept_back_until_it_expired_is_refused_to_all_who_joined(t):
    t.ask(terms())
    t.mint((terms(), forge(terms())))
    t.kill()
    first, second = t.ask(terms(), LATER_MS), t.ask(terms(), LATER_MS)
    t.refuse(first, at_ms=LATER_MS + 1)
    t.refuse(second, at_ms=LATER_MS + 1)
    bolt11 = forge(terms(), LATER_MS + 2, secret=2)
    t.answer(t.ask(terms(), LATER_MS + 2), bolt11, LATER_MS + 3)
    t.mint((terms(), bolt11))
    t.settle()


HONEST = [a_mint_cut_off_by_a_kill_is_followed_by_another, an_expired_invoice_is_refused_once_and_then_minted_anew,
          a_rival_mints_and_loses, who_joins_a_slow_run_gets_its_invoice_however_late,
          what_a_crash_kept_back_until_it_expired_is_refused_to_all_who_joined]


def self_test():
    for scenario, wanted in FORGED.items():
        try:
            scenario(Transcript(**POLICIES.get(scenario, {})))
        except Objection as objection:
            if wanted not in str(objection):
                raise Failed(f"{scenario.__name__}: the referee objects for another reason: {objection}") from None
        else:
            raise Failed(f"{scenario.__name__}: the referee has nothing against it")
    for scenario in HONEST:
        try:
            scenario(Transcript())
        except Objection as objection:
            raise Failed(f"{scenario.__name__}: the referee objects: {objection}") from None
    print(f"the referee objects to {len(FORGED)} forged transcripts, each for its reason, and to none of {len(HONEST)} honest")
