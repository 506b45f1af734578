"""The referee: outside the node, it keeps what was asked, answered and minted, and objects to what must not be.

It knows the wire, the file of effects and the wall clock, nothing of the store. An invoice says itself for how long it
lives (whole seconds), so "until expiry" is exact; what the driver saw when is known from both sides. A key is (peer,
session). Two keys that ask for one payment hash are *rivals*: the ledger lets one of them through.

What it holds the node to, over any crash:

  answer   made from a mint that is in the file; it has the fields of the request; it is not expired, except for those who
           joined a run that took longer; and of one key there are never two that live at the same time, nor two spellings
           of one, nor two of rivals
  refusal  1105 only to another request, to a rival, or once for an invoice that has expired; never to a request whose
           invoice was answered and lives: that one is replayed. Where an expired request runs again, 1105 is left only
           for an invoice that a crash kept back until it had expired, to all who joined the re-run that finds it
  silence  only from a node that was killed
  mint     two of one key only if the first has expired, or was cut off by a kill before anybody was told of it; and then
           for the same request, since a registration is durable before anything is minted for it

A key whose first mint was checkpointed must not mint again. Whether it was cannot be seen from here: the syscall kills know.
"""

import collections
import json

from node_driver import STALE, decode

MULTIPLIERS = {"m": 10**8, "u": 10**5, "n": 10**2}  # msat
CLTV_ADDED = 3


class Objection(Exception):
    """Something happened that must not."""

    def __init__(self, rule, text):
        super().__init__(f"{rule}: {text}")


def amount_of(prefix):
    digits, unit = prefix.removeprefix("lnbcrt")[:-1], prefix[-1]
    if unit == "p":
        return int(digits) // 10
    return int(digits) * MULTIPLIERS[unit]


class Invoice:
    """A bolt11, as its decoder reads it."""

    def __init__(self, bolt11):
        fields = decode(bolt11)
        self.bolt11 = bolt11
        self.payment_hash, self.description_hash = fields["p"], fields["h"]
        self.starts_ms = fields["timestamp"] * 1000
        self.ends_ms = self.starts_ms + fields["x"] * 1000
        self.terms = (self.payment_hash, amount_of(fields["prefix"]), self.description_hash, fields["x"],
                      fields["c"] - CLTV_ADDED)

    def lives_with(self, other):
        return self.starts_ms < other.ends_ms and other.starts_ms < self.ends_ms


class Ask:
    """`sent` and `seen` are places in the order of all that the driver did and saw."""

    def __init__(self, key, terms, sent_ms, sent):
        self.key, self.terms, self.sent_ms, self.sent, self.seen, self.seen_ms = key, terms, sent_ms, sent, None, None

    def overlaps(self, other):
        return (self.seen is None or other.sent < self.seen) and (other.seen is None or self.sent < other.seen)


class Answer:
    def __init__(self, invoice, result, seen, seen_ms):
        self.invoice, self.result, self.seen, self.seen_ms = invoice, result, seen, seen_ms


class Mint:
    def __init__(self, invoice, boot):
        self.invoice, self.boot = invoice, boot


class Key:
    def __init__(self):
        self.history = []
        self.terms, self.answers, self.mints, self.refused = set(), [], [], []
        self.asks = []  # Of this boot.

    def note(self, at_ms, what):
        self.history.append(f"{at_ms / 1000:.3f} s  {what}")

    def answered(self, invoice):
        return any(answer.invoice.bolt11 == invoice.bolt11 for answer in self.answers)


class Referee:
    """One per store. `refuses_once`: the policy after expiry; else a request runs again at once."""

    def __init__(self, refuses_once=True, tolerated=()):
        self.refuses_once, self.tolerated = refuses_once, set(tolerated)
        self.keys = collections.defaultdict(Key)
        self.rivals = collections.defaultdict(set)
        self.key_of_description = {}
        self.open = {}
        self.boot, self.events = 0, 0
        self.touched = set()
        self.counts = collections.Counter()

    # What the driver reports.

    def asked(self, id, key, terms, sent_ms):
        self.events += 1
        ask = self.open[id] = Ask(key, terms, sent_ms, self.events)
        self.keys[key].terms.add(terms)
        self.keys[key].asks.append(ask)
        self.keys[key].note(sent_ms, f"{id} asks for {terms[1]} msat")
        self.rivals[terms[0]].add(key)
        self.key_of_description[terms[2]] = key
        self.touched.add(key)
        self.counts["asked"] += 1

    def answered(self, to, payload, seen_ms):
        self.events += 1
        reply = json.loads(payload)
        ask = self.open.pop(reply["id"], None)
        if ask is None:
            raise Objection("answer", f"{reply['id']} was answered twice, or never asked")
        ask.seen, ask.seen_ms = self.events, seen_ms
        told = reply.get("error") or f"...{reply['result']['bolt11'][-8:]}"
        self.keys[ask.key].note(seen_ms, f"{reply['id']} gets {told}")
        if to != ask.key[0]:
            raise self._objection("answer", ask.key, f"answered to {to}")
        if "result" in reply:
            self._result(ask, reply["result"], payload, seen_ms)
        else:
            self._error(ask, (reply["error"]["code"], reply["error"]["message"]), seen_ms)

    def minted(self, lines):
        """The lines that this boot has added to the file of effects."""
        for line in lines:
            payment_hash, bolt11 = line.split()
            invoice = Invoice(bolt11)
            key = self.key_of_description.get(invoice.description_hash)
            if key is None or invoice.terms not in self.keys[key].terms or payment_hash != invoice.payment_hash:
                raise Objection("mint", "one that nobody has asked for")
            self.keys[key].mints.append(Mint(invoice, self.boot))
            until = f"until {invoice.ends_ms / 1000:.0f} s"
            self.keys[key].note(invoice.starts_ms, f"boot {self.boot} minted ...{bolt11[-8:]}, {until}")
            self.touched.add(key)
            self.counts["minted"] += 1

    def settled(self):
        """The driver has waited for every answer of this boot, which lives."""
        for ask in self.open.values():
            raise self._objection("silence", ask.key, "never answered")

    def ended(self):
        """The boot is over and its mints are reported: what it leaves open was cut off."""
        for key in self.touched:
            self._books(key)
            self.keys[key].asks.clear()
        self.touched.clear()
        self.counts["cut off"] += len(self.open)
        self.open.clear()
        self.boot += 1

    # What it makes of it.

    def _objection(self, rule, key, text):
        return Objection(rule, "\n  ".join([f"{text}: {key}", *self.keys[key].history]))

    def _result(self, ask, result, payload, seen_ms):
        key, invoice = self.keys[ask.key], Invoice(result["bolt11"])
        text = payload.split('"result":', 1)[1]
        if invoice.terms != ask.terms or result["payment_hash"] != ask.terms[0]:
            raise self._objection("answer", ask.key, "got the invoice of another request")
        in_time = lambda asked: asked.sent_ms < invoice.ends_ms
        if not in_time(ask) and not any(in_time(first) and first.overlaps(ask) for first in key.asks):
            raise self._objection("answer", ask.key, "got an expired invoice")
        self._must_be_the_living_one(ask, invoice, seen_ms)
        for other in key.answers:
            if other.invoice.bolt11 == invoice.bolt11:
                if other.result != text:
                    raise self._objection("answer", ask.key, "got the same invoice in other bytes")
                self.counts["replayed"] += 1
                return
            if other.invoice.lives_with(invoice):
                raise self._objection("answer", ask.key, "got two invoices that live at the same time")
        for rival in self.rivals[ask.terms[0]] - {ask.key}:
            for other in self.keys[rival].answers:
                if seen_ms < other.invoice.ends_ms and other.seen_ms < invoice.ends_ms:
                    raise self._objection("answer", ask.key, f"got an invoice for one payment hash beside {rival}")
        key.answers.append(Answer(invoice, text, ask.seen, seen_ms))
        self.counts["answered"] += 1

    def _must_be_the_living_one(self, ask, invoice, seen_ms):
        """What was known before the question, and lives beyond the answer, is the answer."""
        for known in self.keys[ask.key].answers:
            if known.seen < ask.sent and seen_ms < known.invoice.ends_ms:
                if invoice is None and known.invoice.terms == ask.terms:
                    raise self._objection("refusal", ask.key, "the answer is lost")
                if invoice is not None and known.invoice.bolt11 != invoice.bolt11:
                    raise self._objection("answer", ask.key, "the answer has changed")

    def _error(self, ask, code_and_message, seen_ms):
        self._must_be_the_living_one(ask, None, seen_ms)
        if code_and_message in self.tolerated:
            self.counts["tolerated"] += 1
            return
        if code_and_message != STALE:
            raise self._objection("refusal", ask.key, f"got {code_and_message}")
        self.counts["refused"] += 1
        self.keys[ask.key].refused.append(ask)

    def _books(self, name):
        """What can be judged only when the mints of a boot are known."""
        key = self.keys[name]
        has_rival = any(len(self.rivals[terms[0]]) > 1 for terms in key.terms)
        minted = {mint.invoice.bolt11 for mint in key.mints}
        for answer in key.answers:
            if answer.invoice.bolt11 not in minted:
                raise self._objection("answer", name, "got an invoice that was never minted")
        for at, later in enumerate(key.mints):
            for earlier in key.mints[:at]:
                self._two_mints(name, earlier, later, has_rival)
        if sum(mint.boot == self.boot for mint in key.mints) > len(key.asks):
            raise self._objection("mint", name, "minted more often than it was asked")
        if not has_rival and len(key.terms) == 1:
            self._refusals(name)

    def _two_mints(self, name, earlier, later, has_rival):
        if later.invoice.starts_ms >= earlier.invoice.ends_ms:
            return
        if self.keys[name].answered(earlier.invoice):
            raise self._objection("mint", name, "was answered, and minted again")
        if has_rival:
            return  # Who loses to a rival leaves no record, and may try again.
        if earlier.boot == later.boot:
            raise self._objection("mint", name, "minted twice in one process")
        if earlier.invoice.terms != later.invoice.terms:
            raise self._objection("mint", name, "was registered, and another request ran")

    def _refusals(self, name):
        """With one request only, and no rival, 1105 can mean only that an invoice had expired: once for each."""
        key = self.keys[name]
        kept_back = [mint for mint in key.mints if not key.answered(mint.invoice)]
        excuses = key.mints if self.refuses_once else kept_back
        groups = []
        for ask in key.refused:
            joined = groups and any(ask.overlaps(other) for other in groups[-1])
            if joined and any(mint.invoice.ends_ms <= ask.seen_ms for mint in kept_back):
                groups[-1].append(ask)
            else:
                groups.append([ask])
        for at, group in enumerate(groups):
            if sum(mint.invoice.ends_ms <= group[0].seen_ms for mint in excuses) <= at:
                raise self._objection("refusal", name, "refused for no reason, or twice for one")
