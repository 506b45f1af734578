"""What drives the example node over its standard input: the wire, a process of the binary, a directory with its files."""

import collections
import difflib
import hashlib
import json
import os
import queue
import subprocess
import tempfile
import threading
import time

PATIENCE = 20.0  # seconds for one line, on a slow machine
METHOD = "async_order.request_invoice"
STALE = (1105, "stale_flow")
INVALID_PARAMS = (-32602, "invalid_request_invoice_params")
OVERFLOW = (-32603, "async_order_invoice_expiry_overflow")
NO_PROVIDER = (-32603, "async_order_invoice_provider_not_available")
UNKNOWN = (-32603, "async_order_outcome_unknown")
BUSY = (-32603, "async_order_busy")

nodes = []


class Failed(Exception):
    """An expectation that does not hold."""


class Tally:
    """How many expectations held."""

    passed = 0


def expect(what, got, want):
    if got == want:
        Tally.passed += 1
        return
    texts = [value if isinstance(value, str) else repr(value) for value in (want, got)]
    diff = difflib.unified_diff(*([text.replace(",", ",\n")] for text in texts), "expected", "found", lineterm="")
    lines = [line for part in diff for line in part.split("\n")]
    if len(lines) > 60:
        lines = [f"expected: {texts[0][:300]}", f"found:    {texts[1][:300]}"]
    raise Failed(f"{what}\n" + "\n".join(lines))


# ---- the wire ------------------------------------------------------------------------------------------------------


def peer(n):
    return "02" + f"{n:02x}" * 32


def params(**changes):
    """Request B of the rules page; a change to `...` leaves the member out."""
    members = {
        "hash_index": "7",
        "payment_hash": "5c" * 32,
        "amount_msat": 5_000_000,
        "description_hash": "e1" * 32,
        "invoice_expiry_sec": 600,
        "min_final_cltv_expiry_delta": 30,
    }
    members.update(changes)
    return {name: value for name, value in members.items() if value is not ...}


def request(id="1", members=None, **changes):
    body = members if isinstance(members, str) else json.dumps(members or params(**changes))
    return f'{{"jsonrpc":"2.0","id":{id},"method":"{METHOD}","params":{body}}}'


def call(method, id=1, **members):
    return json.dumps({"jsonrpc": "2.0", "id": id, "method": method, "params": members})


def onion(attempt_id, outcome=None, *, delay_ms=None, **changes):
    """A `send_onion`; a change to `...` leaves the member out."""
    simulate = {name: value for name, value in (("outcome", outcome), ("delay_ms", delay_ms)) if value is not None}
    members = {"attempt_id": attempt_id, "payment_hash": "5c" * 32, "amount_msat": 2000, "onion": "aa" * 1366}
    members.update({"simulate": simulate} if simulate else {}, **changes)
    return call("send_onion", **{name: value for name, value in members.items() if value is not ...})


def payment(number, outcome=None, *, delay_ms=None, **changes):
    """A `send_payment` under the id of this number; a change to `...` leaves the member out."""
    simulate = {name: value for name, value in (("outcome", outcome), ("delay_ms", delay_ms)) if value is not None}
    members = {"payment_id": pid(number), "payment_hash": "5c" * 32, "amount_msat": 2000}
    members.update({"simulate": simulate} if simulate else {}, **changes)
    return call("send_payment", **{name: value for name, value in members.items() if value is not ...})


def pid(number):
    return f"{number:064x}"


def error(id, code_and_message):
    code, message = code_and_message
    return f'{{"jsonrpc":"2.0","id":{id},"error":{{"code":{code},"message":{json.dumps(message)}}}}}'


def hash_of(n):
    return hashlib.sha256(str(n).encode()).hexdigest()


def bolt11_of(reply):
    answer = json.loads(reply)
    if "result" not in answer:
        raise Failed(f"an invoice was expected, not {reply[:300]}")
    return answer["result"]["bolt11"]


def decode(bolt11):
    """The fields of a BOLT11 invoice that a client checks."""
    alphabet = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
    prefix, data = bolt11.rsplit("1", 1)
    words = [alphabet.index(letter) for letter in data][: -6 - 104]
    number = lambda some: int("".join(f"{word:05b}" for word in some) or "0", 2)
    fields, at = {"prefix": prefix, "timestamp": number(words[:7])}, 7
    while at < len(words):
        tag, size = alphabet[words[at]], number(words[at + 1 : at + 3])
        value = words[at + 3 : at + 3 + size]
        fields[tag] = f"{number(value) >> 4:064x}" if tag in "phs" else number(value)
        at += 3 + size
    return fields


# ---- the node ------------------------------------------------------------------------------------------------------


class Node:
    """One process of the binary."""

    def __init__(self, binary, *flags, offset_ms=0, under=(), **popen):
        """`under`: a command that runs it, with its flags."""
        self.offset_ms = offset_ms
        command = [*under, binary, *map(str, flags)]
        if offset_ms:
            command += ["--clock-offset-ms", str(offset_ms)]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, **popen)
        self.lines = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()
        nodes.append(self)

    def _read(self):
        for line in self.process.stdout:
            self.lines.put(line)
        self.lines.put(None)

    def send_line(self, line):
        data = line if isinstance(line, bytes) else line.encode()
        try:
            self.process.stdin.write(data + b"\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            raise Failed(f"the node is gone: {self.process.stderr.read().decode()}") from None

    def send(self, payload, n=1):
        self.send_line(json.dumps({"from": peer(n), "payload": payload}))

    def line(self, patience=PATIENCE):
        """The next line; None when there are no more."""
        try:
            line = self.lines.get(timeout=patience)
        except queue.Empty:
            raise Failed(f"no line within {patience} s") from None
        if line is None:
            self.lines.put(None)
            return None
        return json.loads(line)

    def frame(self, n=None):
        line = self.line()
        if line is None or set(line) != {"to", "payload"}:
            raise Failed(f"a frame was expected, not {line}")
        if n is not None:
            expect("the frame is for the peer that asked", line["to"], peer(n))
        return line["payload"]

    def ask(self, payload, n=1):
        self.send(payload, n)
        return self.frame(n)

    def result(self, payload, n=1):
        answer = json.loads(self.ask(payload, n))
        if "result" not in answer:
            raise Failed(f"a result was expected, not {answer}")
        return answer["result"]

    def told(self, payload, n=1):
        """(class, state, replayed) of a result."""
        result = self.result(payload, n)
        return result["class"], result["state"], result["replayed"]

    def control(self, name, **members):
        self.send_line(json.dumps({"control": name, **members}))
        return self.line()

    def stats(self):
        stats = self.control("stats")
        if stats is None or stats.get("control") != "stats":
            raise Failed(f"stats were expected, not {stats}")
        return stats

    def kept(self):
        """(mints of this process, records that are not zero)"""
        stats = self.stats()
        return stats["minted"], {state: n for state, n in stats["records"].items() if n}

    def until(self, what, holds):
        """Asks for stats until they are as wanted."""
        deadline = time.monotonic() + PATIENCE
        while not holds(self.stats()):
            if time.monotonic() > deadline:
                raise Failed(f"never: {what}")

    def advance(self, ms):
        self.offset_ms += ms
        self.send_line(json.dumps({"control": "advance_clock", "ms": ms}))

    def now_ms(self):
        return int(time.time() * 1000) + self.offset_ms

    def go_to(self, instant_ms):
        self.advance(instant_ms - self.now_ms())

    def kill(self):
        """kill -9, then every frame that had left before."""
        self.process.kill()
        seen = []
        while (line := self.line()) is not None:
            seen.append(line)
        self.process.wait(PATIENCE)
        return seen

    def release(self):
        """After its end: gives its pipes up, of which a process has only so many."""
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            try:
                pipe.close()
            except BrokenPipeError:
                pass  # What was never read by a killed node.
        nodes.remove(self)

    def shutdown(self):
        expect("shutdown is answered", self.control("shutdown"), {"control": "shutdown"})
        self.ended(0)

    def ended(self, code):
        expect("nothing comes after the end", self.line(), None)
        expect("the exit code", self.process.wait(PATIENCE), code)


class Bench:
    """A directory with a file for the engine and a file of effects, and nodes on it."""

    def __init__(self, binary, root):
        self.binary = binary
        self.dir = tempfile.mkdtemp(dir=root)
        self.db, self.effects_path = (os.path.join(self.dir, name) for name in ("node.redb", "effects"))

    def node(self, *flags, **how):
        return Node(self.binary, "--db", self.db, "--effects", self.effects_path, *flags, **how)

    def effects(self):
        """Per payment hash the invoices that were minted, in order."""
        minted = collections.defaultdict(list)
        if os.path.exists(self.effects_path):
            with open(self.effects_path, encoding="ascii") as lines:
                for line in lines:
                    if not line.startswith(("onion ", "payment ")):
                        payment_hash, bolt11 = line.split()
                        minted[payment_hash].append(bolt11)
        return dict(minted)

    def dispatched(self):
        """How often each onion went out, by attempt id, for whomever."""
        if not os.path.exists(self.effects_path):
            return {}
        with open(self.effects_path, encoding="ascii") as lines:
            onions = [line.split() for line in lines if line.startswith("onion ")]
        expect("a line has its seven words, and the token", {(len(words), len(words[-1])) for words in onions} - {(7, 64)}, set())
        return dict(collections.Counter(int(words[2]) for words in onions))

    def paid(self):
        """How often each payment went out, by the number of its id."""
        if not os.path.exists(self.effects_path):
            return {}
        with open(self.effects_path, encoding="ascii") as lines:
            payments = [line.split() for line in lines if line.startswith("payment ")]
        expect("a line has its five words", {tuple(map(len, words[1:3] + words[4:])) for words in payments} - {(64, 64, 64)}, set())
        return dict(collections.Counter(int(words[1], 16) for words in payments))


def end_all():
    """Whatever a failed scenario has left running."""
    for node in nodes:
        node.process.kill()
