"""What a node meets besides kills: a second process, a file of a newer format, no file descriptors left, a peer that floods."""

import os
import resource
import statistics
import time

from court import Court
from kill_syscalls import Tracer, ask, question
from node_driver import BUSY, UNKNOWN, Bench, Failed, bolt11_of, expect, hash_of, request

NEWER = os.path.join(os.path.dirname(__file__), "../tests/it/fixtures/newer-format.hex")
QUOTA = 1_000
FLOOD = 20_000
WINDOW = 64  # Requests of the flood that are under way at a time.
SAMPLES = 100
ABSURD = 10  # The promise is 2; a machine that others share is no judge of that.
MEMORY_KIB = 32 * 1024


def refused(node, reason):
    node.ended(2)
    stderr = node.process.stderr.read().decode()
    expect("a typed reason on stderr", (reason in stderr, "panicked" in stderr), (True, False))
    node.release()


def a_second_process(binary, root):
    court = Court(binary, root)
    court.start()
    ask(question("first"))(court)
    for _ in range(3):
        refused(court.bench.node(), "the store is open elsewhere")
        ask(question("first"), question("second"))(court)
    court.shutdown()
    return "refused by name, the first goes on"


def a_newer_format(binary, root):
    bench = Bench(binary, root)
    with open(NEWER, encoding="ascii") as lines:
        length = int(next(lines).removeprefix("# length "))
        image = bytearray(length)
        for line in lines:
            offset, content = line.split()
            image[int(offset, 16) : int(offset, 16) + len(content) // 2] = bytes.fromhex(content)
    with open(bench.db, "wb") as file:
        file.write(image)
    for _ in range(2):
        refused(bench.node(), "the store has format 255, this version reads up to 3")
        with open(bench.db, "rb") as file:
            expect("the file is untouched", file.read() == image, True)
        expect("and alone", [name for name in os.listdir(bench.dir) if not name.startswith("effects")], ["node.redb"])
    return "refused by name, byte for byte as before"


def opens_without_descriptors(binary, root):
    """With more and more of them: too few for the loader, for the store, for the directory; then enough."""
    typed = 0
    for limit in range(3, 64):
        court = Court(binary, root)
        court.start(preexec_fn=lambda limit=limit: resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit)))
        court.node.process.stdin.close()
        expect("it ends without a word", court.node.line(), None)
        code, stderr = court.node.process.wait(), court.node.process.stderr.read().decode()
        court.node.release()
        if code == 127 and "shared librar" in stderr:
            continue
        if code == 0:
            break
        told = (code, stderr.startswith("cannot open: "), "panicked" in stderr)
        expect(f"with {limit} descriptors: a typed reason", told, (2, True, False))
        typed += 1
        court.start()
        ask(question("first"))(court)  # What the failed opening has left behind harms nobody.
        court.shutdown()
    else:
        raise Failed("the node never opened")
    expect("some were too few", typed > 0, True)
    return f"{typed} openings failed by name, the first with enough succeeded"


def set_limit(court, limit):
    """Lower than what is open keeps what is open, and gives nothing more."""
    hard = resource.prlimit(court.node.process.pid, resource.RLIMIT_NOFILE)[1]
    resource.prlimit(court.node.process.pid, resource.RLIMIT_NOFILE, (limit or hard, hard))


def runs_without_descriptors(binary, root):
    court = Court(binary, root, tolerated=[UNKNOWN])
    court.start()
    first, second, third = question("first"), question("second"), question("third")
    ask(first)(court)
    used = 1 + max(int(fd) for fd in os.listdir(f"/proc/{court.node.process.pid}/fd"))
    set_limit(court, used)
    ask(first, second)(court)
    expect("none is needed to go on", court.referee.counts["tolerated"], 0)
    tracer = Tracer(court, fail=("fdatasync", "store", 1))
    ask(third)(court)
    expect("a store that fails and cannot be reopened: outcome unknown", court.referee.counts["tolerated"], 1)
    tracer.end()
    set_limit(court, None)
    deadline = time.monotonic() + 20
    while len(court.mints(third[0])) == 0 and not court.answered(third[0]):
        if time.monotonic() > deadline:
            raise Failed("the store never came back")
        ask(third)(court)
    ask(first, second, third)(court)
    court.shutdown()
    court.start()
    ask(first, second, third)(court)
    court.shutdown()
    return "a running node goes on; with a failed sync on top the outcome is unknown until there are descriptors again"


class Flood:
    """Peer 1 opens sessions without end; peer 2 asks for one invoice after another."""

    def __init__(self, node):
        self.node, self.sent, self.under_way, self.stored, self.refused = node, 0, 0, 0, 0
        self.theirs = 0

    def fill(self):
        while self.under_way < WINDOW:
            self.sent += 1
            self.under_way += 1
            self.node.send(request('"flood"', payment_hash=hash_of(("flood", self.sent))), 1)

    def hear(self):
        """The next frame: that of peer 2, or `None` for one of the flood, which is counted."""
        frame = self.node.frame()
        if '"id":"flood"' not in frame:
            return frame
        self.under_way -= 1
        if '"result"' in frame:
            self.stored += 1
        else:
            code, message = BUSY
            expect("the flood is refused", f'"error":{{"code":{code},"message":"{message}"}}' in frame, True)
            self.refused += 1
        return None

    def latency(self, flooding):
        """Median seconds of peer 2's requests."""
        seconds = []
        for _ in range(SAMPLES):
            if flooding:
                self.fill()
            self.theirs += 1
            began = time.perf_counter()
            self.node.send(request(payment_hash=hash_of(("theirs", self.theirs))), 2)
            while (frame := self.hear()) is None:
                if flooding:
                    self.fill()
            seconds.append(time.perf_counter() - began)
            bolt11_of(frame)
        return statistics.median(seconds)

    def until(self, holds):
        while not holds():
            self.fill()
            self.hear()


def resident_kib(node):
    with open(f"/proc/{node.process.pid}/status", encoding="ascii") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS:"))


def a_flood(binary, root):
    bench = Bench(binary, root)
    node = bench.node("--records-per-peer", QUOTA)
    flood = Flood(node)
    quiet = flood.latency(flooding=False)
    filling = flood.latency(flooding=True)
    flood.until(lambda: flood.refused > WINDOW)
    expect("its quota is full", flood.stored, QUOTA)
    before = resident_kib(node)
    at_quota = flood.latency(flooding=True)
    flood.until(lambda: flood.refused >= FLOOD)
    while flood.under_way:
        flood.hear()
    grown = resident_kib(node) - before
    node.until("no actor is left", lambda stats: stats["live_actors"] == 0)
    expect("nothing is kept of what was refused", node.kept()[1], {"completed": QUOTA + 3 * SAMPLES})
    expect("nor minted", node.kept()[0], QUOTA + 3 * SAMPLES)
    expect("in bounded memory", grown < MEMORY_KIB, True)
    node.shutdown()
    told = (f"{flood.refused} refused at {QUOTA} records, resident memory {before} KiB, then {grown:+} KiB; the other peer"
            f" waits {quiet * 1000:.1f} ms alone, x{filling / quiet:.2f} while the quota fills, x{at_quota / quiet:.2f} while"
            " the flood is refused")
    if max(filling, at_quota) > ABSURD * quiet:
        raise Failed(told)
    return told


def limits(binary, root):
    for scenario in (a_second_process, a_newer_format, opens_without_descriptors, runs_without_descriptors, a_flood):
        print(f"{scenario.__name__}: {scenario(binary, root)}", flush=True)
