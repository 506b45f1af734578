"""A court: one process of the node after another on the same files, and the referees that hear all of it."""

import os
import signal
import time

from node_driver import PATIENCE, Bench, Failed, call, hash_of, params, peer, request
from referee import Objection, Referee
from sends import NAMES, Sends


def terms(key, *, amount=5_000_000, payment_hash=None, expiry=3600):
    """The request of a key. Its description hash names the key, so that a mint tells whose it is."""
    return (payment_hash or hash_of(key), amount, hash_of(("described", key)), expiry, 30)


class NewLines:
    """What is new in the file of effects. A kill in the middle of a write can tear its line, where that crosses a page."""

    def __init__(self, path):
        self.path, self.bytes, self.is_torn = path, 0, False

    def take(self):
        if not os.path.exists(self.path):
            return []
        with open(self.path, encoding="ascii") as file:
            file.seek(self.bytes)
            text = file.read()
        *lines, rest = text.split("\n")
        self.bytes += len(text)
        if self.is_torn and text:
            # The next node has put an end behind it.
            rest_of_torn, *lines = lines
            if rest_of_torn:
                raise Failed(f"a torn line goes on: {rest_of_torn}")
            self.is_torn = False
        if rest:
            self.is_torn = True
            lines += [rest] if self._is_whole(rest) else []
        return lines

    @staticmethod
    def _is_whole(line):
        """Whether the next node takes it for done. What is torn is not: nobody was told of it."""
        words = line.split(" ")
        return len(words) == {"onion": 7, "payment": 5}.get(words[0]) and len(words[-1]) == 64


def self_test_of_torn_lines(root):
    path = os.path.join(root, "lines")
    lines, token = NewLines(path), "ab" * 32
    whole, torn = f"payment 01 02 2000 {token}", f"payment 01 02 2000 {token[:-1]}"
    for appended, taken in ((None, []), ("", []), (f"{whole}\n{torn}", [whole]), ("", []), (f"\n{whole}", [whole]),
                            ("\n", []), ("5c lnbc", []), ("\n5c lnbc1\n", ["5c lnbc1"])):
        if appended is not None:
            with open(path, "a", encoding="ascii") as file:
                file.write(appended)
        if lines.take() != taken:
            raise Failed(f"of {appended!r} other lines are taken than {taken}")


class Court:
    """`policy`: as the referee's."""

    def __init__(self, binary, root, **policy):
        self.bench = Bench(binary, root)
        self.referee, self.sends = Referee(**policy), Sends()
        self.flags = () if self.referee.refuses_once else ("--on-expired", "rerun")
        self.node, self.offset_ms = None, 0
        self.ids, self.effects = 0, NewLines(self.bench.effects_path)

    def start(self, *flags, **how):
        self.node = self.bench.node(*self.flags, *flags, offset_ms=self.offset_ms, **how)

    def ask(self, key, terms):
        """`key`: (number of the peer, session). The answer is heard later."""
        payment_hash, amount, description_hash, expiry, cltv = terms
        members = params(payment_hash=payment_hash, amount_msat=amount, description_hash=description_hash,
                         invoice_expiry_sec=expiry, min_final_cltv_expiry_delta=cltv, claim_session_id=key[1])
        self.ids += 1
        self.referee.asked(self.ids, self.name(key), terms, self.node.now_ms())
        self.node.send(request(str(self.ids), members), key[0])

    def call(self, key, method, **members):
        """`key`: as the referee of what is sent has them. The answer is heard later."""
        kind, namespace, id = key
        members = {NAMES[kind]: id, **({"namespace": namespace} if namespace else {}), **members}
        if method == "forget_onions":
            members["attempt_ids"] = [members.pop("attempt_id")]
        self.ids += 1
        self.sends.asked(self.ids, key, method, members)
        self.node.send(call(method, self.ids, **members))

    def tick(self):
        self.sends.tick_asked()
        self.node.send_line('{"control":"tick"}')

    def hear(self, patience=PATIENCE):
        """One line, told to the referee. False when there are no more."""
        line = self.node.line(patience)
        if line is not None:
            self._tell(line)
        return line is not None

    def _tell(self, line):
        if "to" in line and self.sends.answered(line["payload"]):
            return
        if "to" in line:
            self.referee.answered(line["to"], line["payload"], self.node.now_ms())
        elif line.get("control") == "tick":
            self.sends.ticked(line["ticks"])
        elif "error" in line:
            raise Objection("input", f"the node did not understand: {line}")

    def hear_for(self, seconds):
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            try:
                if not self.hear(left):
                    return
            except Failed:
                return

    def settle(self):
        """Every answer of this process."""
        while self.referee.open or self.sends.open or self.sends.ticking:
            try:
                lives = self.hear()
            except Failed:
                break
            if not lives:
                raise Failed(f"the node is gone: {self.node.process.stderr.read().decode()[:2000]}")
        self.referee.settled()
        self.sends.settled()

    def crash(self):
        """kill -9, or what has come first; then what had left before, and what is in the file of effects."""
        for line in self.node.kill():
            self._tell(line)
        self._over()

    def shutdown(self):
        self.settle()
        self.node.shutdown()
        self._over()

    def _over(self):
        stderr, code = self.node.process.stderr.read().decode(), self.node.process.returncode
        if stderr or code not in (0, -signal.SIGKILL):
            raise Objection("end", f"exit code {code}, and on stderr: {stderr[:2000]}")
        self.node.release()
        sent, minted = [], []
        for line in self.effects.take():
            (sent if line.startswith(("onion ", "payment ")) else minted).append(line)
        for line in sent:
            self.sends.went_out(line)
        self.sends.ended()
        self.referee.minted(minted)
        self.referee.ended()
        self.offset_ms = self.node.offset_ms

    def mints(self, key):
        return [mint.invoice.bolt11 for mint in self.referee.keys[self.name(key)].mints]

    def answered(self, key):
        return bool(self.referee.keys[self.name(key)].answers)

    @staticmethod
    def name(key):
        return (peer(key[0]), key[1])
