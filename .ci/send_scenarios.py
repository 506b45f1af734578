"""What is done with onions and payments while each call that writes is killed once, and what is asked afterwards."""

from node_driver import hash_of
from send_moves import PREIMAGES, send

SENT, REFUSED, INVALID, FENCED = (("onion", "A", n) for n in range(4))
ONIONS = (SENT, REFUSED, INVALID, FENCED)
PAID, IMPOSSIBLE = (("payment", "", hash_of(("payment", n))) for n in range(2))
PAYMENTS = (PAID, IMPOSSIBLE)


def calls(*moves):
    """Asked at once, and heard."""
    def act(court):
        for _, key, method, members in moves:
            court.call(key, method, **members)
        court.settle()
    return act


def one_by_one(*moves):
    def act(court):
        for move in moves:
            calls(move)(court)
    return act


def tell(key, method, **members):
    return ("call", key, method, members)


onions_sent = calls(send(SENT), send(SENT), send(SENT, other=True), send(REFUSED, "definitive"), send(INVALID, "reject_validation"))
onions_ended = one_by_one(tell(SENT, "resolve_onion", result="settled", preimage=PREIMAGES[0]), send(SENT),
                          tell(FENCED, "fence_onion"), send(FENCED))
onions_forgotten = one_by_one(tell(SENT, "forget_onions"), send(SENT, "accept", other=True))

payments_sent = calls(send(PAID), send(PAID), send(PAID, other=True), send(IMPOSSIBLE, "definitive"))
payments_ended = one_by_one(tell(PAID, "payment_event", event="sent", attempt=1, preimage=PREIMAGES[0]), send(PAID),
                            tell(PAID, "ack_payment_event"), tell(IMPOSSIBLE, "abandon_payment"), send(IMPOSSIBLE))


def payments_released(court):
    tick(court, 7)
    calls(send(PAID))(court)
    tick(court, 1)
    one_by_one(send(PAID, other=True), tell(PAID, "abandon_payment"), tell(PAID, "payment_event", event="failed", attempt=2),
               send(PAID))(court)


def tick(court, count):
    for _ in range(count):
        court.tick()
        court.settle()


def asked_again(court):
    """After a kill: everything twice, in two processes; then whatever has been acknowledged has its ticks."""
    keys = [key for key in (*ONIONS, *PAYMENTS) if key in court.sends.keys]
    every = [send(key, other=other) for key in keys for other in (False, True)]
    for _ in range(2):
        court.start()
        for _ in range(2):
            calls(*every)(court)
        court.crash()
    court.start()
    for count in (7, 1):
        tick(court, count)
        calls(*every)(court)
    court.shutdown()
