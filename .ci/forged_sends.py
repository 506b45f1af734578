"""Forged transcripts of onions and payments, each with the rule that it breaks, and honest ones that break none."""

import json

from node_driver import Failed
from referee import Objection
from sends import Sends

ONION, PAYMENT = ("onion", "A", 7), ("payment", "", "aa" * 32)
HASH, OTHER_HASH = "5c" * 32, "5d" * 32


class Transcript:
    """Short words for what a driver reports."""

    def __init__(self):
        self.referee, self.ids, self.tokens = Sends(), 0, 0

    def ask(self, key, method, **members):
        self.ids += 1
        self.referee.asked(self.ids, key, method, members)
        return self.ids

    def tell(self, id, kind, state, replayed=False, **members):
        result = {"class": kind, "state": state, "replayed": replayed, **members}
        text = json.dumps({"jsonrpc": "2.0", "id": id, "result": result}, separators=(",", ":"))
        self.referee.answered(text)

    def send(self, key, amount=2000, outcome=None, payment_hash=HASH):
        simulate = {"simulate": {"outcome": outcome}} if outcome else {}
        return self.ask(key, f"send_{key[0]}", payment_hash=payment_hash, amount_msat=amount, **simulate)

    def line(self, key, amount=2000, outcome="accept", token=None):
        self.tokens += 1
        token = token or f"{self.tokens:064x}"
        if key[0] == "onion":
            self.referee.went_out(f"onion {('@' + key[1]).encode().hex()} {key[2]} {HASH} {amount} {outcome} {token}")
        else:
            self.referee.went_out(f"payment {key[2]} {HASH} {amount} {token}")

    def sent(self, key, attempt=1, amount=2000):
        """It went out, by this call."""
        self.tell(self.send(key, amount), "success", "dispatched", **self.of(key, attempt))
        self.line(key, amount)

    def known(self, key, state, attempt=1, amount=2000, **end):
        self.tell(self.send(key, amount), "duplicate", state, **self.of(key, attempt), **end)

    @staticmethod
    def of(key, attempt):
        return {"attempt": attempt} if key[0] == "payment" else {}

    def refuse(self, key, reason="no", replayed=False, attempt=None, **how):
        self.tell(self.send(key, **how), "definitive", "failed", replayed, reason=reason, **self.of(key, attempt))

    def event(self, event="sent", handled="recorded", state="completed", attempt=1, preimage="ab" * 32):
        id = self.ask(PAYMENT, "payment_event", event=event, attempt=attempt, preimage=preimage)
        self.tell(id, "success", state, handled=handled, attempt=attempt)

    def paid(self, attempt=1):
        self.sent(PAYMENT, attempt)
        self.event(attempt=attempt)

    def acknowledge(self):
        self.tell(self.ask(PAYMENT, "ack_payment_event"), "success", "completed", acknowledged=True)

    def abandon(self, abandoned, state=None):
        self.tell(self.ask(PAYMENT, "abandon_payment"), "success", state, abandoned=abandoned)

    def resolve(self, result, resolved="recorded", **end):
        state = {"settled": "completed", "failed": "failed"}[result]
        self.tell(self.ask(ONION, "resolve_onion", result=result, **end), "success", state, resolved=resolved)

    def fence(self):
        self.tell(self.ask(ONION, "fence_onion"), "success", "tombstone", fenced=True)

    def forget(self, status="forgotten"):
        id = self.ask(ONION, "forget_onions", attempt_ids=[7])
        self.tell(id, "success", None, statuses=[{"attempt_id": 7, "status": status}])

    def tick(self, count):
        for _ in range(count):
            self.referee.tick_asked()
            self.referee.ticked(self.referee.ticked_at_least + 1)

    def kill(self):
        self.referee.ended()

    def settle(self):
        self.referee.settled()
        self.referee.ended()


BOTH = (ONION, PAYMENT)


def sent_twice_in_one_process(t, key):
    t.sent(key)
    t.line(key)
    t.settle()


def sent_again_after_a_restart(t, key):
    t.sent(key)
    t.kill()
    t.sent(key, attempt=2)


def a_duplicate_is_sent(t, key):
    t.sent(key)
    t.known(key, "dispatched")
    t.line(key)
    t.settle()


def two_are_told_that_they_sent_it(t, key):
    first, second = t.send(key), t.send(key)
    t.tell(first, "success", "dispatched", **t.of(key, 1))
    t.tell(second, "success", "dispatched", **t.of(key, 1))
    t.line(key)
    t.settle()


def told_to_have_gone_out_without_a_line(t, key):
    t.tell(t.send(key), "success", "dispatched", **t.of(key, None))
    t.settle()


def sent_with_other_terms_than_anybody_asked_for(t, key):
    t.send(key)
    t.line(key, amount=3000)


def sent_under_a_token_of_before(t, key):
    t.send(key)
    t.line(key, token="ee" * 32)
    t.line(key, token="ee" * 32)


def another_request_is_not_refused(t, key):
    t.sent(key)
    t.known(key, "dispatched", amount=3000)


def another_request_is_not_refused_after_the_end(t, key):
    t.sent(key)
    t.known(key, "completed", preimage="ab")
    t.kill()
    t.known(key, "completed", amount=3000, preimage="ab")


def the_same_request_is_refused(t, key):
    t.sent(key)
    t.kill()
    t.tell(t.send(key), "conflict", "dispatched", **t.of(key, 1))


def what_conflicted_is_taken(t, key):
    t.tell(t.send(key), "conflict", "dispatched", **t.of(key, 1))
    t.known(key, "dispatched")


def the_preimage_changes(t, key):
    t.sent(key)
    t.known(key, "completed", preimage="ab")
    t.kill()
    t.known(key, "completed", preimage="cd")


def the_end_changes(t, key):
    t.sent(key)
    t.known(key, "completed", preimage="ab")
    t.known(key, "failed", reason=None)


def the_end_is_lost(t, key):
    t.sent(key)
    t.known(key, "completed", preimage="ab")
    t.kill()
    t.known(key, "dispatched")


def the_reason_changes(t, key):
    t.sent(key)
    t.known(key, "failed", reason=None)
    t.known(key, "failed", reason="")


def a_refusal_changes(t, key):
    t.refuse(key, "no")
    t.kill()
    t.refuse(key, "no!", replayed=True)


def a_refusal_is_lost(t, key):
    t.refuse(key)
    t.kill()
    t.sent(key)


def a_refusal_becomes_a_duplicate(t, key):
    t.refuse(key)
    t.known(key, "failed", attempt=None, reason="no")


def what_went_out_is_refused(t, key):
    t.sent(key)
    t.kill()
    t.refuse(key, "not started", attempt=1)


def what_was_refused_has_gone_out(t, key):
    t.send(key)
    t.line(key)
    t.kill()
    t.refuse(key, "not started", attempt=1)
    t.settle()


def ambiguous_for_no_reason(t, key):
    t.tell(t.send(key), "ambiguous", "in_doubt", **t.of(key, 1))


def never_answered(t, key):
    t.send(key)
    t.settle()


def a_settled_onion_fails(t):
    t.sent(ONION)
    t.resolve("settled", preimage="ab")
    t.known(ONION, "failed", reason=None)


def two_ends_are_recorded(t):
    t.sent(ONION)
    t.resolve("settled", preimage="ab")
    t.resolve("settled", preimage="cd")


def a_settled_onion_is_not_known(t):
    t.sent(ONION)
    t.kill()
    id = t.ask(ONION, "resolve_onion", result="settled", preimage="ab")
    t.tell(id, "ambiguous", None, resolved="not_found")


def a_tracker_finds_nothing(t):
    t.sent(ONION)
    t.tell(t.ask(ONION, "track_onion"), "ambiguous", None, cause="not_found")


def a_fence_on_what_is_there(t):
    t.sent(ONION)
    t.fence()


def a_fence_falls(t):
    t.fence()
    t.kill()
    t.sent(ONION)


def sent_under_a_fence(t):
    t.send(ONION)
    t.fence()
    t.line(ONION)
    t.kill()


def forgotten_by_itself(t):
    t.sent(ONION)
    t.forget("not_found")


def sent_twice_after_one_forgetting(t):
    t.sent(ONION)
    t.known(ONION, "completed", preimage="ab")
    t.forget()
    t.sent(ONION)
    t.sent(ONION)


def a_payment_is_recorded_twice(t):
    t.paid()
    t.kill()
    t.event()


def a_paid_one_fails(t):
    t.paid()
    t.event("failed", state="failed")


def an_event_finds_nothing(t):
    t.sent(PAYMENT)
    t.event(handled="unknown", state=None)


def the_attempt_changes(t):
    t.sent(PAYMENT)
    t.known(PAYMENT, "dispatched", attempt=2)


def an_attempt_that_nobody_made(t):
    t.sent(PAYMENT, attempt=2)
    t.settle()


def released_by_nobody(t):
    t.paid()
    t.tick(40)
    t.sent(PAYMENT, attempt=2)


def released_by_the_seventh_tick(t):
    t.paid()
    t.tick(5)
    t.acknowledge()
    t.tick(7)
    t.sent(PAYMENT, attempt=2)


def released_in_spite_of_a_redelivery(t):
    t.paid()
    t.acknowledge()
    t.tick(5)
    t.event(handled="repeated")
    t.tick(7)
    t.sent(PAYMENT, attempt=2)


def released_by_seven_ticks_and_a_crash(t):
    t.paid()
    t.acknowledge()
    t.tick(7)
    t.kill()
    t.tell(t.ask(PAYMENT, "ack_payment_event"), "success", None, acknowledged=False)


def another_request_after_seven_ticks(t):
    t.paid()
    t.acknowledge()
    t.tick(7)
    t.sent(PAYMENT, attempt=2, amount=3000)


def never_released(t):
    t.paid()
    t.acknowledge()
    t.tick(4)
    t.kill()
    t.tick(4)
    t.known(PAYMENT, "completed", preimage="ab" * 32)


def a_failed_one_is_released_by_ticks(t):
    t.sent(PAYMENT)
    t.event("failed", state="failed")
    t.tick(40)
    t.sent(PAYMENT, attempt=2)


def a_paid_one_is_released_by_its_abandonment(t):
    t.paid()
    t.abandon("no_effect", "completed")
    t.sent(PAYMENT, attempt=2)


def an_abandoned_one_is_not_known(t):
    t.sent(PAYMENT)
    t.abandon("no_effect")


def a_tick_is_lost(t):
    t.tick(2)
    t.kill()
    t.referee.tick_asked()
    t.referee.ticked(2)


def a_tick_that_nobody_asked_for(t):
    t.referee.tick_asked()
    t.referee.ticked(2)


def a_tick_is_never_answered(t):
    t.referee.tick_asked()
    t.settle()


OF_BOTH = {
    sent_twice_in_one_process: "went out 2 times, for 0 releases",
    sent_again_after_a_restart: "went out again",
    a_duplicate_is_sent: "went out 2 times, for 0 releases",
    told_to_have_gone_out_without_a_line: "and did not",
    sent_with_other_terms_than_anybody_asked_for: "nobody has asked for",
    sent_under_a_token_of_before: "under one token",
    another_request_is_not_refused: "another request was not refused",
    another_request_is_not_refused_after_the_end: "another request was not refused",
    the_same_request_is_refused: "the same request is told two things",
    what_conflicted_is_taken: "the same request is told two things",
    the_preimage_changes: "told in another way",
    the_end_changes: "end: has changed",
    the_end_is_lost: "end: has changed",
    the_reason_changes: "told in another way",
    a_refusal_changes: "the refusal has changed",
    a_refusal_is_lost: "went out again",
    a_refusal_becomes_a_duplicate: "the refusal has changed",
    what_went_out_is_refused: "went out, and was refused",
    what_was_refused_has_gone_out: "was refused, and went out",
    ambiguous_for_no_reason: "got ambiguous",
    never_answered: "silence: never answered",
}
OF_ONE = {
    a_settled_onion_fails: "end: has changed",
    two_ends_are_recorded: "end: has changed",
    a_settled_onion_is_not_known: "the record is lost",
    a_tracker_finds_nothing: "the record is lost",
    a_fence_on_what_is_there: "the record is lost",
    a_fence_falls: "the fence is gone",
    sent_under_a_fence: "under a fence",
    forgotten_by_itself: "the record is lost",
    sent_twice_after_one_forgetting: "went out again",
    a_payment_is_recorded_twice: "end: has changed",
    a_paid_one_fails: "end: has changed",
    an_event_finds_nothing: "the record is lost",
    the_attempt_changes: "is another one",
    an_attempt_that_nobody_made: "2 of 1",
    released_by_nobody: "went out again",
    released_by_the_seventh_tick: "went out again",
    released_in_spite_of_a_redelivery: "went out again",
    released_by_seven_ticks_and_a_crash: "the record is lost",
    another_request_after_seven_ticks: "went out again",
    never_released: "still there after 8 quiet ticks",
    a_failed_one_is_released_by_ticks: "went out again",
    a_paid_one_is_released_by_its_abandonment: "went out again",
    an_abandoned_one_is_not_known: "the record is lost",
    a_tick_is_lost: "after it was 2",
    a_tick_that_nobody_asked_for: "2 were counted of 1",
    a_tick_is_never_answered: "a tick was never answered",
}


# ---- and what it must not object to --------------------------------------------------------------------------------


def an_end_that_comes_before_the_dispatch(t):
    id = t.send(ONION, outcome="reject_validation")
    t.resolve("settled", preimage="ab")
    t.tell(id, "success", "completed", preimage="ab")
    t.settle()


def a_tracker_that_did_not_wait(t):
    t.tell(t.ask(ONION, "track_onion"), "ambiguous", None, cause="deadline")
    t.sent(ONION)
    t.settle()


def a_life_of_an_onion(t):
    t.sent(ONION)
    t.known(ONION, "dispatched")
    t.tell(t.send(ONION, 3000), "conflict", "dispatched")
    t.resolve("settled", preimage="ab")
    t.kill()
    t.known(ONION, "completed", preimage="ab")
    t.forget()
    t.sent(ONION, amount=3000)
    t.settle()


def a_refused_onion_and_a_fenced_one(t):
    t.refuse(ONION, outcome="definitive")
    t.line(ONION, outcome="definitive")
    t.refuse(ONION, replayed=True)
    t.forget()
    t.fence()
    t.kill()
    t.tell(t.send(ONION), "definitive", "tombstone")
    t.settle()


def a_crash_in_the_call_of_a_payment(t):
    t.send(PAYMENT)
    t.line(PAYMENT)
    t.kill()
    t.known(PAYMENT, "in_doubt")
    t.known(PAYMENT, "dispatched")
    t.settle()


def a_crash_before_the_call_of_a_payment(t):
    t.send(PAYMENT)
    t.kill()
    t.refuse(PAYMENT, "not started", replayed=True)
    t.abandon("released")
    t.sent(PAYMENT)
    t.settle()


def released_by_the_eighth_tick(t):
    t.paid()
    t.acknowledge()
    t.tick(3)
    t.kill()
    t.tick(4)
    t.known(PAYMENT, "completed", preimage="ab" * 32)
    t.tick(1)
    t.sent(PAYMENT, attempt=2, amount=3000)
    t.settle()


def released_and_the_next_one_is_paid_twice_over(t):
    first, second = t.send(PAYMENT), t.send(PAYMENT)
    t.tell(first, "duplicate", "registered", attempt=None)  # It cannot say of which attempt.
    t.tell(second, "success", "dispatched", attempt=1)
    t.line(PAYMENT)
    t.event()
    t.acknowledge()
    t.tick(8)
    t.sent(PAYMENT, attempt=2, amount=3000)
    t.event(attempt=2)
    t.event(attempt=2, handled="repeated")
    t.tell(t.send(PAYMENT), "conflict", "completed", attempt=2)
    t.settle()


def failed_between_the_call_and_the_question(t):
    id = t.send(PAYMENT, outcome="panic")
    t.line(PAYMENT)
    t.tell(id, "ambiguous", "in_doubt", attempt=1)
    t.event("failed", handled="repeated", state="failed")
    t.refuse(PAYMENT, "not started", replayed=True, attempt=1)
    t.settle()


def a_tick_that_was_cut_off_counted(t):
    t.paid()
    t.acknowledge()
    t.tick(7)
    t.referee.tick_asked()
    t.kill()
    t.sent(PAYMENT, attempt=2)
    t.settle()


def abandoned_and_failed(t):
    t.sent(PAYMENT)
    t.abandon("marked", "dispatched")
    t.kill()
    t.known(PAYMENT, "dispatched")
    t.event("failed", state=None)
    t.sent(PAYMENT, attempt=2, amount=3000)
    t.settle()


HONEST = [an_end_that_comes_before_the_dispatch, a_tracker_that_did_not_wait, a_life_of_an_onion,
          a_refused_onion_and_a_fenced_one, a_crash_in_the_call_of_a_payment, a_crash_before_the_call_of_a_payment,
          released_by_the_eighth_tick, released_and_the_next_one_is_paid_twice_over, a_tick_that_was_cut_off_counted,
          failed_between_the_call_and_the_question, abandoned_and_failed]


def must_object(scenario, wanted, *key):
    try:
        scenario(Transcript(), *key)
    except Objection as objection:
        if wanted not in str(objection):
            raise Failed(f"{scenario.__name__} {key}: the referee objects for another reason: {objection}") from None
    else:
        raise Failed(f"{scenario.__name__} {key}: the referee has nothing against it")


def self_test_of_sends():
    for scenario, wanted in OF_BOTH.items():
        for key in BOTH:
            must_object(scenario, wanted, key)
    must_object(two_are_told_that_they_sent_it, "two were told that they sent it", PAYMENT)
    must_object(two_are_told_that_they_sent_it, "and did not", ONION)
    for scenario, wanted in OF_ONE.items():
        must_object(scenario, wanted)
    for scenario in HONEST:
        try:
            scenario(Transcript())
        except Objection as objection:
            raise Failed(f"{scenario.__name__}: the referee objects: {objection}") from None
    forged = 2 * len(OF_BOTH) + 2 + len(OF_ONE)
    print(f"of onions and payments to {forged} forged ones, and to none of {len(HONEST)} honest")
