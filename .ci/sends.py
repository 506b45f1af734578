"""The referee of what is sent: onions and payments. Outside the node, as the other one, it keeps what was asked and told and what
went out, and objects to what must not be.

A key is ("onion", namespace, attempt id) or ("payment", "", payment id). Its record may be released: an onion's by
`forget_onions`, a payment's when it has failed and is abandoned, or by the eighth quiet tick after it is paid and acknowledged.
What was told of a key and what is told later are of one record unless a release can have come between.

What it holds the node to, over any crash, as long as one record lives:

  dispatch   at most one line in the file of effects, with the terms that somebody has asked for; one send is told that it went out
             by its call, and there is its line; nothing goes out under a fence, and what was refused with proof has no line, unless
             it was the dispatch itself that was refused
  known      what was told is not forgotten: not sent, nor ended, nor refused, nor fenced
  end        the first one stays, with its preimage or reason; a refusal comes back byte for byte; what went out is never refused,
             and what is refused never goes out; an end is recorded once
  conflict   for other terms, whatever the state, and never for the same
  attempt    payments: the number of the record's dispatch does not change, and goes on counting from record to record
  release    payments: not before the eighth quiet tick, and then it is released
  tick       each is counted for good before it is answered, and no tick that nobody asked for
  silence    only from a node that was killed
"""

import bisect
import collections
import json

from referee import Objection

ENDS = ("completed", "failed")
QUIET_TICKS = 7
NEVER = float("inf")
NAMES = {"onion": "attempt_id", "payment": "payment_id"}


class Ask:
    """`sent` and `seen` are places in the order of all that the driver did and saw. A cut one was seen when its node was."""

    def __init__(self, key, method, members, sent, boot):
        self.key, self.method, self.members, self.sent, self.boot = key, method, members, sent, boot
        self.terms = (members["payment_hash"], members["amount_msat"]) if method in ("send_onion", "send_payment") else None
        self.outcome = members.get("simulate", {}).get("outcome", "accept")
        self.result, self.seen, self.cut = None, None, False


class Tick:
    def __init__(self, sent):
        self.sent, self.seen, self.cut = sent, NEVER, False


class Told:
    """What an answer says of the record. `same`: whether the terms that were asked for are the record's."""

    def __init__(self, ask, *, ran=False, absent=False, state=None, same=None, end=None, refusal=None, attempt=None):
        self.ask, self.ran, self.absent, self.state, self.same = ask, ran, absent, state, same
        self.end, self.refusal, self.attempt = end, refusal, attempt


class Line:
    def __init__(self, terms, outcome, token):
        self.terms, self.outcome, self.token = terms, outcome, token


class Key:
    """`acts`: what was asked of it that is no send."""

    def __init__(self):
        self.asks, self.acts, self.lines, self.told, self.history = [], [], [], [], []


class Sends:
    """One per store."""

    def __init__(self):
        self.keys = collections.defaultdict(Key)
        self.open, self.ticks, self.ticking = {}, [], collections.deque()
        self.ticked_at_least = 0
        self.tokens = set()
        self.now, self.boot = 0, 0
        self.touched = set()
        self.counts = collections.Counter()

    # What the driver reports.

    def asked(self, id, key, method, members):
        self.now += 1
        ask = self.open[id] = Ask(key, method, members, self.now, self.boot)
        self.keys[key].asks.append(ask)
        if ask.terms is None:
            self.keys[key].acts.append(ask)
        self.keys[key].history.append(f"{self.now}, boot {self.boot}: {id} {method} {ask.terms or ''} {ask.outcome}"
                                      f" {members.get('event', members.get('result', ''))}")
        self.touched.add(key)
        self.counts["asked"] += 1

    def answered(self, payload):
        """Whether it is an answer to a question of these."""
        reply = json.loads(payload)
        ask = self.open.pop(reply["id"], None)
        if ask is None:
            return False
        self.now += 1
        ask.seen = self.now
        self.keys[ask.key].history.append(f"{self.now}: {reply['id']} gets {reply.get('result', reply)}")
        if "result" not in reply:
            raise self._objection("answer", ask.key, f"got {reply}")
        ask.result = reply["result"]
        text = payload.split('"result":', 1)[1].replace('"replayed":true', '"replayed":false')
        told = self._told(ask, ask.result, text)
        if told:
            self._judge(told)
            self.counts["again after a release"] += told.ran and any(before.ran for before in self.keys[ask.key].told)
            self.keys[ask.key].told.append(told)
        self.counts["told"] += 1
        return True

    def tick_asked(self):
        self.now += 1
        tick = Tick(self.now)
        self.ticks.append(tick)
        self.ticking.append(tick)

    def ticked(self, count):
        self.now += 1
        if not self.ticking:
            raise Objection("tick", "an answer that nobody has asked for")
        self.ticking.popleft().seen = self.now
        if count <= self.ticked_at_least:
            raise Objection("tick", f"the count is {count} after it was {self.ticked_at_least}")
        if count > len(self.ticks):
            raise Objection("tick", f"{count} were counted of {len(self.ticks)}")
        self.ticked_at_least = count
        self.counts["ticks"] += 1

    def went_out(self, line):
        words = line.split(" ")
        if words[0] == "onion":
            _, namespace, id, payment_hash, amount, outcome, token = words
            name = bytes.fromhex(namespace).removeprefix(b"@").decode()
            key = ("onion", name, int(id))
        else:
            _, id, payment_hash, amount, token = words
            key, outcome = ("payment", "", id), None
        terms = (payment_hash, int(amount))
        if not any(ask.terms == terms for ask in self.keys[key].asks):
            raise self._objection("dispatch", key, "one that nobody has asked for")
        if token in self.tokens:
            raise self._objection("dispatch", key, "went out twice under one token")
        self.tokens.add(token)
        self.keys[key].lines.append(Line(terms, outcome, token))
        self.keys[key].history.append(f"boot {self.boot}: went out, {terms}")
        self.touched.add(key)
        self.counts["sent"] += 1

    def settled(self):
        """The driver has waited for every answer of this boot, which lives."""
        for ask in self.open.values():
            raise self._objection("silence", ask.key, f"never answered to {ask.method}")
        if self.ticking:
            raise Objection("silence", "a tick was never answered")

    def ended(self):
        """The boot is over and its lines are reported: what it leaves open was cut off."""
        self.now += 1
        for ask in [*self.open.values(), *self.ticking]:
            ask.seen, ask.cut = self.now, True
        self.counts["cut off"] += len(self.open) + len(self.ticking)
        self.open.clear()
        self.ticking.clear()
        for key in self.touched:
            self._books(key)
        self.touched.clear()
        self.boot += 1

    # What an answer says.

    def _told(self, ask, result, text):
        attempt = result.get("attempt")
        state = result.get("state")
        if ask.method in ("send_onion", "send_payment"):
            return self._of_send(ask, result, text)
        if ask.method == "track_onion":
            return self._of_track(ask, result)
        if ask.method == "resolve_onion":
            if result["resolved"] == "not_found" and state is None:
                return Told(ask, absent=True)
            end = {"settled": ("preimage", ask.members.get("preimage")), "failed": ("reason", ask.members.get("reason"))}
            recorded = result["resolved"] == "recorded"
            return Told(ask, state=state, end=end[ask.members["result"]] if recorded else None)
        if ask.method == "fence_onion":
            return Told(ask, state=state, absent=result["fenced"])
        if ask.method == "forget_onions":
            return self._of_forget(ask, result)
        if ask.method == "payment_event":
            return self._of_event(ask, result, attempt)
        if ask.method == "ack_payment_event":
            return Told(ask, state=state, absent=state is None)
        if result["abandoned"] == "released":
            return None
        return Told(ask, state=state, absent=state is None)

    def _of_send(self, ask, result, text):
        kind, state, attempt = result["class"], result["state"], result.get("attempt")
        end = next(((name, result[name]) for name in ("preimage", "reason") if state in ENDS and name in result), None)
        if kind == "success":
            return Told(ask, ran=True, state=state, same=True, end=end, attempt=attempt)
        if kind == "duplicate":
            return Told(ask, state=state, same=True, end=end, attempt=attempt)
        if kind == "conflict":
            return Told(ask, state=state, same=False, attempt=attempt)
        if kind == "definitive" and state == "failed":
            return Told(ask, state=state, same=True, refusal=text, attempt=attempt)
        if kind == "definitive" and state == "tombstone":
            return Told(ask, state=state)
        if kind == "definitive" and any(other.method == "abandon_payment" for other in self.keys[ask.key].asks):
            return None  # Refused, abandoned, and gone by now.
        lost = any(other.outcome in ("unknown", "panic") for other in self.keys[ask.key].asks)
        if kind == "ambiguous" and lost and state is not None:
            return Told(ask, state=state, same=True, attempt=attempt)
        raise self._objection("answer", ask.key, f"got {kind}, {state}")

    def _of_track(self, ask, result):
        state = result["state"]
        if result["class"] == "success":
            name = "preimage" if state == "completed" else "reason"
            return Told(ask, state=state, end=None if result.get("rolled_back") else (name, result[name]))
        if result.get("cause") == "not_found":
            return Told(ask, absent=True)
        return Told(ask, state=state) if state else None  # It has waited for no time, and says nothing.

    def _of_forget(self, ask, result):
        status = result["statuses"][0]["status"]
        if status == "forgotten":
            return None
        state = {"tombstone": "tombstone"}.get(status) or result["statuses"][0].get("state")
        return Told(ask, state=state, absent=status == "not_found")

    def _of_event(self, ask, result, attempt):
        handled, sent = result["handled"], ask.members["event"] == "sent"
        if handled == "unknown":
            return Told(ask, absent=True)
        if handled == "stale":
            return Told(ask, state=result["state"])
        if handled in ("recorded", "repeated", "late", "contradiction"):
            if handled == "recorded" and result["state"] is None:
                return None  # Abandoned, and gone.
            state = {"late": "completed", "contradiction": "failed"}.get(handled, "completed" if sent else "failed")
            end = ("preimage", ask.members["preimage"]) if handled == "recorded" and sent else None
            # A failure of any attempt is late, or known, if the record has ended.
            is_of_it = handled == "recorded" or (handled, sent) == ("repeated", True)
            return Told(ask, state=state, end=end, attempt=attempt if is_of_it else None)
        raise self._objection("answer", ask.key, f"an event was {handled}")

    # What it makes of it.

    def _objection(self, rule, key, text):
        return Objection(rule, "\n  ".join([f"{text}: {key}", *self.keys[key].history]))

    def _judge(self, told):
        key = self.keys[told.ask.key]
        recorded = told.ask.result.get("handled") == "recorded" or told.ask.result.get("resolved") == "recorded"
        for before in key.told:
            both = (before.attempt, told.attempt)
            is_one = None not in both and both[0] == both[1]
            if told.ran and before.ran and is_one:
                raise self._objection("dispatch", told.ask.key, "two were told that they sent it")
            if before.ask.seen < told.ask.sent and (is_one or not self._may_be_released(before, told)):
                self._compare(before, told, recorded)
        if told.same is False and told.attempt:
            self._must_have_been_released(told)
        elif told.state == "completed" and told.ask.terms and not told.ran:
            self._must_have_been_released(told)

    def _compare(self, before, told, recorded):
        """Two answers about one record, one after the other. `before` may have said that there is none."""
        object = lambda rule, text: self._objection(rule, told.ask.key, text)
        if before.state == "tombstone" and told.state != "tombstone":
            raise object("known", "the fence is gone")
        if before.absent:
            return
        if told.ran:
            raise object("dispatch", "went out again")
        if told.absent and before.state != "tombstone":
            raise object("known", "the record is lost")
        if None not in (before.attempt, told.attempt) and before.attempt != told.attempt:
            raise object("attempt", "is another one")
        if told.refusal and (before.ran or before.state in ("dispatched", "completed")):
            raise object("end", "went out, and was refused")
        if before.refusal and told.same and told.refusal != before.refusal:
            raise object("end", "the refusal has changed")
        if before.state in ENDS:
            if recorded or told.state not in (before.state, None):
                raise object("end", "has changed")
            if before.end and told.end and before.end != told.end:
                raise object("end", "is told in another way")
        if None in (before.same, told.same):
            return
        is_other = before.ask.terms != told.ask.terms
        if is_other and before.same and told.same:
            raise object("conflict", "another request was not refused")
        if not is_other and before.same != told.same:
            raise object("conflict", "the same request is told two things")

    def _may_be_released(self, before, told):
        """Whether a release can have taken effect after `before` was sent and before `told` was seen."""
        key, start, end = self.keys[told.ask.key], before.ask.sent, told.ask.seen
        for ask in key.acts:
            if ask.sent > end:
                continue
            reaches = ask.seen is None or ask.seen > start
            if ask.method == "forget_onions" and reaches:
                if ask.result is None or ask.result["statuses"][0]["status"] == "forgotten":
                    return True
            if ask.method == "abandon_payment":
                did = None if ask.result is None else ask.result["abandoned"]
                if did == "released" and reaches:
                    return True
                if did in (None, "marked") and (reaches or not self._began_after(before, ask)):
                    return True  # When it fails, whenever that is.
        return self._quiet_ticks(before, end) > QUIET_TICKS

    def _began_after(self, before, ask):
        """Whether what `before` was told of was sent after an answer to `ask`."""
        if before.attempt is None or ask.seen is None:
            return False
        return any(ran.attempt == before.attempt and ran.ask.sent > ask.seen for ran in self.keys[ask.key].told if ran.ran)

    def _quiet_ticks(self, before, end):
        """How many there can have been since it was acknowledged, or since the last event that is surely of it: what `before`
        was told of without an attempt may be gone, and the event be of the next one."""
        asks = self.keys[before.ask.key].acts
        acks = [ask.sent for ask in asks if ask.method == "ack_payment_event" and ask.sent <= end
                and (ask.result is None or ask.result["acknowledged"]) and not self._began_after(before, ask)]
        if not acks:
            return 0
        events = [ask.sent for ask in asks if ask.method == "payment_event" and ask.result is not None
                  and ask.result["handled"] == "repeated" and ask.members["event"] == "sent" and ask.seen <= end
                  and before.attempt is not None and ask.result.get("attempt") == before.attempt]
        base = max([min(acks), *events])
        # They are answered, or cut off, in the order of the questions.
        over = bisect.bisect_right(self.ticks, base, key=lambda tick: tick.seen)
        return bisect.bisect_right(self.ticks, end, key=lambda tick: tick.sent) - over

    def _must_have_been_released(self, told):
        """Paid, acknowledged, and eight ticks with nothing between: it is gone."""
        asks = self.keys[told.ask.key].acts
        for ack in asks:
            if ack.method != "ack_payment_event" or not ack.result or not ack.result["acknowledged"]:
                continue
            knew = any(told.attempt is not None and before.attempt == told.attempt and before.state == "completed"
                       and before.ask.seen < ack.sent for before in self.keys[told.ask.key].told)
            last = max([ask.seen or NEVER for ask in asks if ask.method == "payment_event" and ask.sent < told.ask.sent],
                       default=0)
            base = max(ack.seen, last)
            quiet = sum(base < tick.sent and tick.seen < told.ask.sent and not tick.cut for tick in self.ticks)
            if knew and quiet > QUIET_TICKS:
                raise self._objection("release", told.ask.key, f"still there after {quiet} quiet ticks")

    def _books(self, name):
        """What can be judged only when the lines of a boot are known."""
        key = self.keys[name]
        releases = sum(self._releases(ask) for ask in key.acts)
        if len(key.lines) > 1 + releases:
            raise self._objection("dispatch", name, f"went out {len(key.lines)} times, for {releases} releases")
        ran = sum(told.ran and not self._is_ended_by_others(told, key) for told in key.told)
        if ran > len(key.lines):
            raise self._objection("dispatch", name, "was told to have gone out, and did not")
        fenced = any(told.state == "tombstone" for told in key.told)
        if fenced and key.lines and not releases:
            raise self._objection("dispatch", name, "went out under a fence")
        for told in key.told:
            if told.refusal and not self._is_proof(told, key, releases):
                raise self._objection("end", name, "was refused, and went out")
            if told.attempt is not None and told.ask.terms and told.same is not None:
                self._is_of_its_line(name, told)

    @staticmethod
    def _is_ended_by_others(told, key):
        """Whoever is waiting for the call is told the end that somebody else has brought, also if there was no dispatch yet."""
        return told.state in ENDS and any(
            ask.method in ("resolve_onion", "payment_event") and ask.sent < told.ask.seen for ask in key.acts)

    @staticmethod
    def _releases(ask):
        """Whether it may have released a record, now or later."""
        result = ask.result
        if ask.method == "forget_onions":
            return result is None or result["statuses"][0]["status"] == "forgotten"
        if ask.method == "abandon_payment":
            return result is None or result["abandoned"] != "no_effect"
        return ask.method == "ack_payment_event" and (result is None or result["acknowledged"])

    @staticmethod
    def _is_proof(told, key, releases):
        if told.ask.key[0] == "payment":
            # LDK no longer lists what has failed, before it tells of it: to an oracle it reads as never sent.
            has_failed = any(ask.method == "payment_event" and ask.members["event"] == "failed" and ask.sent < told.ask.seen
                             and ask.members.get("attempt") in (None, told.attempt) for ask in key.acts)
            return told.attempt is None or has_failed or any(ask.outcome == "definitive" for ask in key.asks)
        return bool(releases) or all(line.outcome == "definitive" for line in key.lines)

    def _is_of_its_line(self, name, told):
        lines = self.keys[name].lines
        if told.attempt > len(lines):
            raise self._objection("attempt", name, f"{told.attempt} of {len(lines)}")
        if (lines[told.attempt - 1].terms == told.ask.terms) != told.same:
            raise self._objection("conflict", name, f"attempt {told.attempt} went out with other terms than was told")
