"""A kill at every syscall that writes, with strace: once before each call of each scenario, as a dry run has counted them;
where time is short, before an even sample of them.

strace counts the calls of each thread for itself. So it is attached anew for each step of a scenario, looks at one file at
a time, and kills at the n-th call of one name: within a step one thread writes to one file. What a run does not reach (a
thread was faster than in the dry run) is reported as missed.
"""

import collections
import os
import re
import signal
import subprocess
import time

import send_scenarios as sends
from court import Court, terms
from node_driver import NO_PROVIDER, PATIENCE, Failed, expect
from referee import Objection

CALLS = ("write", "pwrite64", "writev", "pwritev", "pwritev2", "fdatasync", "fsync", "sync_file_range", "ftruncate",
         "fallocate", "rename", "renameat", "renameat2", "link", "linkat", "unlink", "unlinkat")
CALL = re.compile(r"^(\d+) +([\d.]+) (\w+)\((?:\d+<([^>]*)>|(?:AT_FDCWD<[^>]*>, )?\"([^\"]*)\")")
RESUMED = re.compile(r"^(\d+) +([\d.]+) <\.\.\. (\w+) resumed>")
REACHED_SHARE = 0.7  # On a machine with others on it threads overtake each other.
ENDS_SEC = 1.0  # For how long a step that went by unharmed may still meet its call.
IDLE_SEC = 0.3  # The engine tidies up its store when nothing has happened for a while.
REST_SEC = 0.04  # A gap in which it may have done so.


class Call:
    def __init__(self, thread, at, name, path):
        self.thread, self.at, self.name, self.path, self.done = thread, at, name, path, False


class Tracer:
    """strace on a node that is running, or stopped before its first instruction."""

    def __init__(self, court, kill=None, fail=None):
        """`kill`, `fail` with an I/O error: (name of a call, file, how many of a thread)."""
        node = court.node
        stdout = os.readlink(f"/proc/{node.process.pid}/fd/1")
        self.log = os.path.join(court.bench.dir, "trace")
        self.files = {court.bench.db: "store", court.bench.db + ".creating": "aside", court.bench.effects_path: "effects",
                      court.bench.effects_path + ".ended": "ends",
                      court.bench.dir: "directory", stdout: "answers"}
        command = ["strace", "-f", "-y", "-ttt", "-o", self.log, "-p", str(node.process.pid),
                   "-e", "trace=" + ",".join("?" + call for call in CALLS)]
        for point, what in ((kill, "signal=SIGKILL"), (fail, "error=EIO")):
            if point:
                name, file, n = point
                path = next(path for path, known in self.files.items() if known == file)
                command += ["-e", f"inject={name}:{what}:when={n}", "-P", path]
        self.strace = subprocess.Popen(command, stderr=subprocess.PIPE)
        line = self.strace.stderr.readline()
        if b"attached" not in line:
            raise Failed(f"strace: {line.decode()} {self.strace.stderr.read().decode()}")

    def end(self):
        """Lets go of what still lives. The calls that were traced, in the order of their beginnings."""
        if self.strace.poll() is None:
            self.strace.send_signal(signal.SIGINT)
        try:
            self.strace.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            # It can wait for ever for a process that has just ended. What it has seen of it is in the file.
            self.strace.kill()
            self.strace.wait()
        self.strace.stderr.close()
        calls, unfinished = [], {}
        with open(self.log, encoding="utf-8", errors="replace") as lines:
            for line in lines:
                ok = re.search(r"\) += \d+", line) is not None
                if found := CALL.match(line):
                    thread, at, name, of_fd, by_name = found.groups()
                    call = Call(thread, float(at), name, self.files.get(of_fd or by_name))
                    call.done = ok
                    unfinished[thread] = call
                    if call.path:
                        calls.append(call)
                elif (found := RESUMED.match(line)) and found[1] in unfinished:
                    unfinished[found[1]].done = ok
        return calls


class Step:
    """Something that a scenario does with a node. `launch`: it begins with the node's own start. `judge`: knows more than the
    referee of what a kill in this step must leave."""

    def __init__(self, name, act, launch=False, judge=None):
        self.name, self.act, self.launch, self.judge = name, act, launch, judge


class Scenario:
    """`prepare` is not killed; then come the steps, one after another. `after`: what follows the kill, if it is not about invoices."""

    def __init__(self, name, prepare, steps, after=None):
        self.name, self.prepare, self.steps, self.after = name, prepare, steps, after


# ---- the scenarios -------------------------------------------------------------------------------------------------


def question(session, **changes):
    key = (1, session)
    return key, terms(key, **changes)


FIRST = question("first")
SECOND = question("second")
OTHER = (FIRST[0], terms(FIRST[0], amount=6_000_000))
RIVAL = question("rival", payment_hash=FIRST[1][0])
LATE_RIVAL = question("late rival", payment_hash=FIRST[1][0])
DOUBTFUL = question("doubtful")
SHORT = [question(f"short {n}", expiry=60) for n in range(2)]
TOUCHED = question("touched", expiry=660)


def ask(*questions):
    def act(court):
        for key, terms in questions:
            court.ask(key, terms)
        court.settle()
    return act


def opened(court):
    expect("the node is open", court.node.stats()["minted"], 0)


def idle(court):
    court.hear_for(IDLE_SEC)


def shut_down(court):
    court.node.send_line('{"control":"shutdown"}')
    court.hear_for(PATIENCE)


def expiry_sweep(court):
    court.node.control("expiry_sweep")


def nothing(court):
    pass


def started(court):
    court.start("--mint-delay-ms", 10)
    opened(court)


def in_doubt_and_expired(court):
    """Two records for an expiry sweep, one that is expired and waits to refuse once, one in doubt."""
    court.start()
    ask(*SHORT, TOUCHED)(court)
    court.crash()
    court.start("--mint-delay-ms", 600_000)
    court.ask(*DOUBTFUL)
    court.node.until("the mint has begun", lambda stats: stats["minted"] == 1)
    court.node.advance(700_000)
    court.crash()


REGISTERING, MINTING, CHECKPOINTING, COMPLETING, ANSWERING, ANSWERED, UNCLEAR = WINDOWS = (
    "before the registration", "registration to mint", "mint to checkpoint", "checkpoint to completion",
    "completion to answer", "after the answer", "not told apart")


def judge_first(court, calls, file, windows):
    """What the referee cannot see: in which window the kill came, so whether the checkpoint was durable."""
    before = court.mints(FIRST[0])
    window = window_of(calls, file, bool(before), court.answered(FIRST[0]))
    windows[window] += 1
    yield  # Restarted without a provider, and asked again: only what is complete is answered.
    answered = court.answered(FIRST[0])
    if answered != (window in (ANSWERING, ANSWERED)) and window not in (COMPLETING, UNCLEAR):
        raise Objection("answer", f"killed {window}: answered without a provider: {answered}")
    refused = any(asked.terms == OTHER[1] for asked in court.referee.keys[court.name(FIRST[0])].refused)
    if not refused and window not in (REGISTERING, UNCLEAR):
        raise Objection("refusal", f"killed {window}: another request under the key was not refused")
    yield  # Restarted with one, and asked again.
    after = court.mints(FIRST[0])
    wanted = {REGISTERING: (0, (1,)), MINTING: (0, (1,)), CHECKPOINTING: (1, (1, 2)), UNCLEAR: (len(before), (1, 2))}
    minted_before, minted_in_all = wanted.get(window, (1, (1,)))
    if len(before) != minted_before or len(after) not in minted_in_all:
        raise Objection("mint", f"killed {window}: minted {len(before)} times before, {len(after)} times in all")


def window_of(calls, file, minted, answered):
    """Each commit of the store ends with its second sync: the request's first registers it, the second saves the checkpoint,
    the third completes it. A gap hides whether the engine has tidied up in between, which looks like a commit."""
    if answered:
        return ANSWERED
    if file == "answers":
        return ANSWERING
    if file == "effects":
        return CHECKPOINTING if minted else MINTING
    done = [call for call in calls if call.done]
    if any(later.at - earlier.at > REST_SEC for earlier, later in zip(done, done[1:])):
        return UNCLEAR
    commits = sum(call.name == "fdatasync" for call in done) // 2
    if commits >= 2:
        return COMPLETING if commits == 2 else ANSWERING
    return CHECKPOINTING if minted else MINTING if commits else REGISTERING


SCENARIOS = [
    Scenario("creation and first invoice", nothing, [
        Step("open", opened, launch=True), Step("first", ask(FIRST), judge=judge_first), Step("idle", idle),
        Step("shut down", shut_down),
    ]),
    Scenario("duplicate, mismatch, completion", started, [
        Step("in flight", ask(FIRST, FIRST, OTHER, RIVAL)), Step("completed", ask(FIRST, OTHER, SECOND, RIVAL)),
        Step("idle", idle),
    ]),
    Scenario("expiry sweep, re-run after restart", in_doubt_and_expired, [
        Step("reopen", opened, launch=True), Step("re-run", ask(DOUBTFUL)), Step("expiry sweep", expiry_sweep),
        Step("refused once", ask(TOUCHED)), Step("anew", ask(TOUCHED, SHORT[0])),
    ]),
    Scenario("onions: sent, ended, fenced, forgotten", started, [
        Step("sent", sends.onions_sent), Step("ended", sends.onions_ended), Step("forgotten", sends.onions_forgotten),
    ], after=sends.asked_again),
    Scenario("payments: sent, paid, released, abandoned", started, [
        Step("sent", sends.payments_sent), Step("ended", sends.payments_ended), Step("released", sends.payments_released),
    ], after=sends.asked_again),
]


# ---- the kills -----------------------------------------------------------------------------------------------------


def launch(court):
    """A node that stands still before its first instruction."""
    court.start(under=("sh", "-c", 'kill -STOP $$; exec "$0" "$@"'))
    deadline = time.monotonic() + PATIENCE
    while True:
        with open(f"/proc/{court.node.process.pid}/stat", encoding="ascii") as stat:
            if stat.read().rsplit(")", 1)[1].split()[0] in "Tt":
                return
        if time.monotonic() > deadline:
            raise Failed("the node did not stop")


def run(court, step, kill=None):
    """One step under strace. Its calls, and whether the node was killed."""
    if step.launch:
        launch(court)
    tracer = Tracer(court, kill)
    if step.launch:
        os.kill(court.node.process.pid, signal.SIGCONT)
    failed = None
    try:
        step.act(court)
    except Failed as failure:
        failed = failure
    killed = False
    if kill:
        try:
            court.node.process.wait(PATIENCE if failed else ENDS_SEC)
            killed = court.node.process.returncode == -signal.SIGKILL
        except subprocess.TimeoutExpired:
            pass
    calls = tracer.end()
    if failed and not killed:
        raise failed
    return calls, killed


def points_of(scenario, binary, root):
    """A dry run: (step, name, file, n) for every call that writes."""
    court = Court(binary, root)
    scenario.prepare(court)
    points = []
    for at, step in enumerate(scenario.steps):
        calls, _ = run(court, step)
        counts = collections.Counter()
        for call in calls:
            counts[call.thread, call.name, call.path] += 1
        most = collections.defaultdict(int)
        for (_, name, path), count in counts.items():
            most[name, path] = max(most[name, path], count)
        points += [(at, name, path, n + 1) for (name, path), count in most.items() for n in range(count)]
    court.crash()
    return points


def kill_at(scenario, point, binary, root, windows):
    """Runs up to the point, kills, restarts, asks everything again. Whether the point was reached."""
    at, *kill = point
    last, court = scenario.steps[at], Court(binary, root)
    scenario.prepare(court)
    for step in scenario.steps[:at]:
        if step.launch:
            court.start()
        step.act(court)
    calls, killed = run(court, last, kill)
    court.crash()
    if scenario.after:
        scenario.after(court)
        return killed
    judge = last.judge(court, calls, point[2], windows) if last.judge and killed else None
    if judge:
        next(judge)
    asked = [question for question in (FIRST, SECOND, OTHER, RIVAL, DOUBTFUL, *SHORT, TOUCHED)
             if question[1] in court.referee.keys[court.name(question[0])].terms]
    replayed_without_provider(court, [OTHER, *asked] if judge else asked)
    if judge:
        next(judge)
    for _ in range(2):
        court.start()
        for _ in range(2):
            ask(*asked)(court)
        court.crash()
    if judge:
        next(judge, None)
    court.start()
    ask(LATE_RIVAL)(court)  # The row of the ledger is there, if the first one was answered.
    court.crash()
    return killed


def replayed_without_provider(court, asked):
    """What is complete needs nobody to mint. (The referee tells the two apart: a living answer must come.)"""
    court.referee.tolerated = {NO_PROVIDER}
    court.start("--no-provider")
    ask(*asked)(court)
    court.crash()
    court.referee.tolerated = set()


def spread(points):
    """In an order of which every beginning is an even sample."""
    digits = len(points).bit_length()
    return [points[at] for at in sorted(range(len(points)), key=lambda at: f"{at:0{digits}b}"[::-1])]


def syscalls(binary, root, seconds):
    """All points, or as many as fit."""
    deadline = time.monotonic() + seconds
    for number, scenario in enumerate(SCENARIOS):
        began, windows = time.monotonic(), collections.Counter()
        share = (deadline - began) / (len(SCENARIOS) - number)
        points = points_of(scenario, binary, root)
        killed, reached = 0, 0
        for point in spread(points):
            if time.monotonic() - began > share:
                break
            killed += 1
            reached += killed_at(scenario, point, binary, root, windows)
        took = time.monotonic() - began
        print(f"{scenario.name}: {killed} of {len(points)} points, {reached} reached, {took:.0f} s", flush=True)
        if windows:
            print("  " + ", ".join(f"{window}: {windows[window]}" for window in WINDOWS), flush=True)
        if reached < REACHED_SHARE * killed:
            raise Failed(f"only {reached} of {killed} points were reached")


def killed_at(scenario, point, binary, root, windows):
    try:
        return kill_at(scenario, point, binary, root, windows)
    except (Failed, Objection) as failed:
        at, name, file, n = point
        step = scenario.steps[at].name
        raise Failed(f"{failed}\nkilled in '{scenario.name}', step '{step}', before {name} {n} of the {file}") from None
