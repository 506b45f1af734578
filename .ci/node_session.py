"""A black-box session through the example node: python3 .ci/node_session.py <path of the node binary>

It speaks to the binary over stdin and stdout only, and reads the file of effects. Nothing waits for a fixed time: every
wait is for a line, and ends with a clear failure if the line does not come. The clock is the machine's plus an offset, so
an instant is met from both sides: shortly before it, and just behind it. The exact millisecond is the business of tests/it.
"""

import collections
import hashlib
import json
import os
import random
import sys
import tempfile
import time

sys.dont_write_bytecode = True

from node_driver import (
    INVALID_PARAMS, METHOD, NO_PROVIDER, OVERFLOW, STALE, Bench, Failed, Node, Tally, bolt11_of, call, decode, end_all, error,
    expect, hash_of, onion, params, payment, peer, pid, request,
)


def first_run_and_replay(bench):
    node = bench.node()
    first = node.ask(request('"a"'))
    bolt11 = bolt11_of(first)
    result = f'{{"payment_hash":"{"5c" * 32}","bolt11":"{bolt11}"}}'
    reply = lambda id: f'{{"jsonrpc":"2.0","id":{id},"result":{result}}}'
    expect("the whole reply", first, reply('"a"'))
    fields = decode(bolt11)
    wanted = {"prefix": "lnbcrt50u", "p": "5c" * 32, "h": "e1" * 32, "x": 600, "c": 33}
    expect("the invoice's fields", {name: fields.get(name) for name in wanted}, wanted)
    expect("the invoice is of now", abs(fields["timestamp"] - time.time()) < 60, True)
    expect("the mint is on disk", bench.effects(), {"5c" * 32: [bolt11]})
    ids = ["17", "-0", "1.50", "1e999", "true", '""', r'"\u00e9\ud800"', "[1,  [null]]", '{ "a" : {} }', f'"{"i" * 253}"']
    for id in ids:
        expect("a replay carries its own id and the same bytes", node.ask(request(id)), reply(id))
    spelled = {
        "hash_index": "+007",
        "payment_hash": "5C5c" * 16,
        "description_hash": f" \t{'E1' * 32}\n",
        "asset_id": None,
        "asset_amount": None,
        "claim_session_id": None,
    }
    expect("another spelling replays", node.ask(request(**spelled)), reply("1"))
    expect("another layout replays", node.ask(" \n" + request("2").replace('","', '" ,\t\r\n"') + "\n"), reply("2"))
    mine, theirs = (node.ask(request(claim_session_id="s", payment_hash=hash_of(n)), n) for n in (1, 2))
    expect("another peer's session is another one", bolt11_of(mine) == bolt11_of(theirs), False)
    expect("mints and records", node.kept(), (3, {"completed": 3}))
    node.shutdown()
    node = bench.node()
    expect("replayed after a restart", node.ask(request("18")), reply("18"))
    expect("nothing minted for it", node.kept(), (0, {"completed": 3}))
    node.kill()
    node = bench.node("--no-provider")
    expect("replayed with no provider", node.ask(request("19")), reply("19"))
    expect("but nothing starts", node.ask(request("20", payment_hash=hash_of(0))), error("20", NO_PROVIDER))
    expect("and nothing is kept", node.kept(), (0, {"completed": 3}))
    node.shutdown()


def mismatch(bench):
    changes = {
        "hash_index": "8",
        "payment_hash": "5d" * 32,
        "amount_msat": 5_000_001,
        "asset_id": "",
        "asset_amount": 0,
        "description_hash": "e2" * 32,
        "invoice_expiry_sec": 601,
        "min_final_cltv_expiry_delta": 31,
    }
    node = bench.node()
    first = node.ask(request(claim_session_id="s"))
    for _ in range(2):
        for member, value in changes.items():
            other = request("3", claim_session_id="s", **{member: value})
            expect(f"another {member} is stale", node.ask(other), error("3", STALE))
        expect("the first still replays", node.ask(request(claim_session_id="s")), first)
        node.shutdown()
        node = bench.node()
    expect("one mint in all", [len(minted) for minted in bench.effects().values()], [1])
    expect("the bare hash is another session, and its row is taken", node.ask(request("4")), error("4", STALE))
    node.shutdown()


def ledger(bench):
    """One row per payment hash, whoever asks: the loser gets 1105, and no record stays behind."""
    node = bench.node("--mint-delay-ms", 200)
    for session in "st":
        node.send(request(f'"{session}"', claim_session_id=session))
    replies = [json.loads(node.line()["payload"]) for _ in range(2)]
    won, lost = sorted(replies, key=lambda reply: "error" in reply)
    expect("the loser is told", lost.get("error"), {"code": 1105, "message": "stale_flow"})
    expect("one record, two mints", node.kept(), (2, {"completed": 1}))
    expect("another peer's is no better", node.ask(request("7"), 3), error("7", STALE))
    node.shutdown()
    node = bench.node()
    expect("nor after a restart", node.ask(request("8", claim_session_id=lost["id"])), error("8", STALE))
    again = node.ask(request("9", claim_session_id=won["id"]))
    expect("the winner replays", bolt11_of(again), won["result"]["bolt11"])
    node.advance(600_000)
    fresh = bolt11_of(node.ask(request("10", claim_session_id="u")))
    expect("a row past its expiry is free", fresh == won["result"]["bolt11"], False)
    node.shutdown()


def malformed(bench):
    node = bench.node("--deny", peer(9).upper(), "--deny", peer(8))
    parse, invalid = (-32700, "parse error"), (-32600, "invalid request")
    nest = "[" * 32_000 + "]" * 32_000
    frames = [("null", parse, text) for text in (
        "", "[1", "7", '"x"', '["2.0",1,"m",{},null,null]', '{"id":1,"method":"x"}', '{"jsonrpc":2,"id":1,"method":"x"}',
        '{"jsonrpc":"2.0","id":1,"id":1,"method":"x"}', '{"jsonrpc":"2.0","id":1,"method":7}', request() + " {}",
        request() + "\0", request().replace("2.0", "2.0\0"), nest, "{" * 65_533, "\u00e9" * 32_000, request()[:-1],
    )]
    frames += [("null", invalid, text) for text in (
        request().replace("2.0", "1.0"), '{"jsonrpc":"2.0","id":1,"params":{}}', request("null"),
        '{"jsonrpc":"2.0","method":"x","params":{}}', '{"jsonrpc":"2.0"}', request(f'"{"i" * 254}"'), request(nest),
    )]
    frames.append(('"n"', (-32601, "method not found"), '{"jsonrpc":"2.0","id":"n","method":"async_order.nope"}'))
    for absent in ("", ',"params":null'):
        text = f'{{"jsonrpc":"2.0","id":5,"method":"{METHOD}"{absent}}}'
        frames.append(("5", (-32602, "missing params"), text))
    shapes = [{"amount_msat": "5000000"}, {"amount_msat": 5.5}, {"amount_msat": -1}, {"amount_msat": 2**64}, {"memo": "x"},
              {"invoice_expiry_sec": -1}, {"invoice_expiry_sec": 2**32}, {"min_final_cltv_expiry_delta": 70_000},
              {"hash_index": 7}, {"hash_index": None}, {"asset_id": 1}, {"asset_amount": "1"}, {"claim_session_id": 9},
              {"memo": "m" * 65_000}, {"hash_index": "", "memo": 1}, *({member: ...} for member in params())]
    frames += [("6", INVALID_PARAMS, request("6", **shape)) for shape in shapes]
    doubled = json.dumps(params()).replace("{", '{"hash_index":"7",', 1)
    positional = json.dumps(["7", "5c" * 32, 1, None, None, "e1" * 32, 600, 30, None])
    frames += [("6", INVALID_PARAMS, request("6", members)) for members in (doubled, positional, "7", nest)]
    forms = [("hash_index", text) for text in ("", "7 ", " 7", "-7", "+", "7.0", str(2**64))]
    forms += [(member, text) for member in ("payment_hash", "description_hash")
              for text in ("5c" * 31, "5c" * 32 + "5", "zz" * 32, "\u00e9" * 32)]
    forms += [("payment_hash", " " + "5c" * 32), ("claim_session_id", ""), ("claim_session_id", "s" * 256)]
    frames += [("7", (-32602, f"invalid_{member}"), request("7", **{member: text})) for member, text in forms]
    wrong = {"hash_index": "", "payment_hash": "", "description_hash": "", "claim_session_id": ""}
    for member in list(wrong):
        frames.append(("8", (-32602, f"invalid_{member}"), request("8", **wrong)))
        del wrong[member]
    for id, refusal, text in frames:
        expect(f"{text[:80]} ({len(text)} characters)", node.ask(text), error(id, refusal))
    silent = ['{"jsonrpc":"2.0","id":"a"}', '{"jsonrpc":"2.0","id":1,"result":{}}', '{"jsonrpc":"2.0","id":null,"error":{}}',
              request().replace("{", '{"error":{"code":1,"message":""},', 1)]
    for text in silent:
        node.send(text)
    for denied in (8, 9):
        node.send(request(), denied)
        node.send("[1", denied)
    expect("responses and denied peers get silence, and nothing is kept", node.kept(), (0, {}))
    lines = [b"x", b"7", b"[]", b"\xff\xfe", b'{"from":"' + peer(1).encode() + b'","payload":"\xff"}', b'{"control":"nope"}',
             b'{"control":"advance_clock"}', b'{"control":7}', b"{}", b'{"from":"02","payload":"x"}', b"x" * 1_500_000,
             b'{"from":"' + b"04" * 33 + b'","payload":"x"}', b'{"from":"' + peer(1).encode() + b'","payload":7}']
    for line in lines:
        node.send_line(line)
        expect(f"an error line for {line[:60]}", list(node.line()), ["error"])
    node.send_line(b"")
    expect("the node lives and kept nothing", node.kept(), (0, {}))
    bolt11_of(node.ask(request()))
    node.shutdown()


def large_frames(bench):
    node = bench.node()
    room = 65_533 - len(request(asset_id="", asset_amount=1))
    largest = request(asset_id="a" * room, asset_amount=1)
    expect("a frame as large as BOLT 8 carries", len(largest), 65_533)
    first = node.ask(largest)
    bolt11_of(first)
    expect("it replays", node.ask(largest), first)
    expect("less one byte it is another request", node.ask(largest.replace("aa", "a", 1)), error("1", STALE))
    too_large = node.ask(request(payment_hash=hash_of(1), asset_id="a" * 65_536, asset_amount=1))
    expect("a request above the engine's bound", too_large, error("1", (-32603, "async_order_busy")))
    expect("one record", node.kept(), (1, {"completed": 1}))
    node.shutdown()


def operation_errors(bench):
    node = bench.node("--min-amount-msat", 3_000_000, "--check-hash")
    at = lambda index: hashlib.sha256(hashlib.sha256(f"ibid example node {index}".encode()).digest()).hexdigest()
    mine = lambda id="1", index=7, **changes: request(id, hash_index=str(index), payment_hash=at(index), **changes)
    invalid = lambda message: (-32602, message)
    table = [
        (mine("1", 0), (1003, "invalid_hash_batch")),
        (mine("1", 0x8000_0000), (1003, "invalid_hash_batch")),
        (request(), (1104, "invoice_hash_mismatch")),
        (mine(amount_msat=2_999_999), invalid("amt_msat cannot be less than 3000000")),
        (mine(asset_id="rgb:x", asset_amount=0), invalid("invalid_asset_amount")),
        (mine(asset_id="", asset_amount=1), invalid("invalid_asset_id")),
        (mine(asset_id="rgb:x"), invalid("incomplete_rgb_info")),
        (mine(asset_amount=1), invalid("incomplete_rgb_info")),
    ]
    for _ in range(2):
        for text, refusal in table:
            expect("the operation's own error, verbatim", node.ask(text), error("1", refusal))
    node.until("no actor is left", lambda stats: stats["live_actors"] == 0)
    expect("an operation's error is never stored", node.kept(), (0, {}))
    first = bolt11_of(node.ask(mine(amount_msat=3_000_000)))
    bolt11_of(node.ask(mine("1", 0x7FFF_FFFF, asset_id="rgb:x", asset_amount=1)))
    expect("the derived hashes mint", node.kept(), (2, {"completed": 2}))
    expect("on disk too", bench.effects()[at(7)], [first])
    node.shutdown()


def concurrency(bench):
    node = bench.node("--mint-delay-ms", 2000)
    for n in (1, 2, 3):
        for i in range(8):
            node.send(request(f'"{n}-{i}"', payment_hash=hash_of(n)), n)
    for n in (1, 2, 3):
        node.send(request("9", payment_hash=hash_of(n), amount_msat=1), n)
    early = [node.line() for _ in range(3)]
    wanted = [{"to": peer(n), "payload": error("9", STALE)} for n in (1, 2, 3)]
    expect("mismatches are answered before the first", sorted(early, key=lambda line: line["to"]), wanted)
    expect("three runs", node.stats()["records"]["registered"], 3)
    replies = collections.defaultdict(list)
    for _ in range(24):
        line = node.line()
        replies[line["to"]].append(json.loads(line["payload"]))
    for n in (1, 2, 3):
        mine = replies[peer(n)]
        expect("every id is answered once", sorted(reply["id"] for reply in mine), [f"{n}-{i}" for i in range(8)])
        expect("by one invoice", {reply["result"]["bolt11"] for reply in mine}, set(bench.effects()[hash_of(n)]))
    node.until("no actor is left", lambda stats: stats["live_actors"] == 0)
    expect("three mints", node.kept(), (3, {"completed": 3}))
    node.shutdown()


class Instant:
    """A record, and the instants at which it changes: known exactly, since the invoice says when it was made."""

    MARGIN_MS = 500

    def __init__(self, bench, *flags, expiry=600):
        self.node = bench.node(*flags)
        self.first = self.node.ask(request(invoice_expiry_sec=expiry))
        self.ends = (decode(bolt11_of(self.first))["timestamp"] + expiry) * 1000

    def before(self, instant_ms, what, ask, wanted):
        """`ask`, shortly before an instant. Says whether the machine was fast enough for that to be so."""
        self.node.go_to(instant_ms - self.MARGIN_MS)
        got = ask()
        if self.node.now_ms() >= instant_ms:
            return False
        expect(what, got, wanted)
        return True


def timely(scenario, fresh_bench):
    """A machine that stalls for longer than the margin proves nothing: again, a few times."""
    for _ in range(5):
        if scenario(fresh_bench()):
            return
    raise Failed(f"this machine is too slow for {scenario.__name__}")


def expiry_refuses_once(bench):
    t = Instant(bench)
    replay = request(invoice_expiry_sec=600)
    if not t.before(t.ends, "just before it expires an invoice replays", lambda: t.node.ask(replay), t.first):
        return False
    t.node.go_to(t.ends)
    expect("at its expiry: stale", t.node.ask(replay), error("1", STALE))
    expect("and pruned", t.node.kept(), (1, {}))
    fresh = t.node.ask(replay)
    expect("then a fresh run", bolt11_of(fresh) == bolt11_of(t.first), False)
    expect("which replays", t.node.ask(replay), fresh)
    expect("two mints", len(bench.effects()["5c" * 32]), 2)
    t.node.shutdown()
    return True


def expiry_reruns(bench):
    t = Instant(bench, "--on-expired", "rerun")
    if not t.before(t.ends, "just before it expires an invoice replays", lambda: t.node.ask(request()), t.first):
        return False
    t.node.go_to(t.ends)
    fresh = bolt11_of(t.node.ask(request()))
    expect("at its expiry: a fresh run", bench.effects()["5c" * 32], [bolt11_of(t.first), fresh])
    t.node.shutdown()
    return True


def grace(*, expiry_sweep):
    def removes(node, n):
        if expiry_sweep:
            wanted = {"control": "expiry_sweep", "removed": n}
            expect("what an expiry sweep removes", node.control("expiry_sweep"), wanted)

    def grace_ends(bench):
        t = Instant(bench, "--grace-ms", 120_000)
        def late():
            if expiry_sweep:
                t.node.control("expiry_sweep")
            return t.node.ask(request())
        if not t.before(t.ends + 120_000, "within the grace: stale", late, error("1", STALE)):
            return False
        t.node.shutdown()
        return True

    def grace_ended(bench):
        t = Instant(bench)
        t.node.go_to(t.ends)
        removes(t.node, 0)
        t.node.go_to(t.ends + 120_000)
        removes(t.node, 1)
        fresh = bolt11_of(t.node.ask(request()))
        expect("past the grace: a fresh run", bench.effects()["5c" * 32], [bolt11_of(t.first), fresh])
        t.node.shutdown()
        return True

    return grace_ends, grace_ended


def other_times(fresh_bench):
    bench = fresh_bench()
    t = Instant(bench)
    t.node.go_to(t.ends + 50_000)
    other = request("2", amount_msat=6_000_000)
    expect("another request on an expired record: stale", t.node.ask(other), error("2", STALE))
    expect("once, then it runs", decode(bolt11_of(t.node.ask(other)))["prefix"], "lnbcrt60u")
    t.node.shutdown()

    bench = fresh_bench()
    t = Instant(bench)
    t.node.go_to(t.ends)
    expect("nothing to remove", t.node.control("expiry_sweep"), {"control": "expiry_sweep", "removed": 0})
    t.node.advance(-3_600_000)
    t.node.shutdown()
    node = bench.node(offset_ms=-3_600_000)
    expect("a clock set back revives nothing", node.ask(request()), error("1", STALE))
    node.shutdown()

    bench = fresh_bench()
    t = Instant(bench, "--grace-ms", 0)
    t.node.go_to(t.ends)
    expect("with no grace there is no refusal", bolt11_of(t.node.ask(request())) == bolt11_of(t.first), False)
    t.node.shutdown()

    bench = fresh_bench()
    node = bench.node()
    bolt11_of(node.ask(request(invoice_expiry_sec=0)))
    expect("an expiry of 0 expires at once", node.ask(request(invoice_expiry_sec=0)), error("1", STALE))
    expect("nothing is left of it", node.kept(), (1, {}))
    node.shutdown()

    bench = fresh_bench()
    node = bench.node(offset_ms=2**64)
    expect("an expiry past the end of time", node.ask(request()), error("1", OVERFLOW))
    expect("starts nothing", node.kept(), (0, {}))
    node.shutdown()

    bench = fresh_bench()
    node = bench.node("--mint-delay-ms", 200)
    node.send(request())
    node.until("the mint has begun", lambda stats: stats["minted"] == 1)
    node.advance(590_000)
    first = node.frame(1)
    ends = (decode(bolt11_of(first))["timestamp"] + 600) * 1000
    expect("a slow mint replays", node.ask(request()), first)
    node.go_to(ends)
    expect("and is not the longer for it", node.ask(request()), error("1", STALE))
    node.shutdown()


def killed_during_a_mint(bench):
    node = bench.node("--mint-delay-ms", 60_000)
    node.send(request())
    node.until("the mint has begun", lambda stats: stats["minted"] == 1)
    expect("nothing left before the kill", node.kill(), [])
    unseen = bench.effects()["5c" * 32]
    expect("one mint so far", len(unseen), 1)
    node = bench.node("--no-provider")
    expect("the record is in doubt", node.kept(), (0, {"in_doubt": 1}))
    expect("no provider, no re-run", node.ask(request()), error("1", NO_PROVIDER))
    expect("and it belongs to its request", node.ask(request("2", amount_msat=1)), error("2", STALE))
    expect("still in doubt", node.kept(), (0, {"in_doubt": 1}))
    node.kill()
    node = bench.node()
    first = node.ask(request())
    expect("one more mint, and it is the answer", bench.effects()["5c" * 32], [*unseen, bolt11_of(first)])
    node.kill()
    node = bench.node()
    expect("which replays", node.ask(request()), first)
    node.shutdown()


def killed_at_random(bench, seed):
    """Each round: a burst of fresh requests, a kill at some moment, a restart, every request again, twice."""
    rng = random.Random(seed)
    name, returned_before, minted_twice = 0, 0, 0
    for _ in range(16):
        node = bench.node("--mint-delay-ms", rng.choice((0, 0, 2, 10)))
        names = [hash_of(name + i) for i in range(16)]
        name += len(names)
        for i, payment_hash in enumerate(names):
            node.send(request(str(i), payment_hash=payment_hash))
        seen, patience = [], rng.uniform(0.0, rng.choice((0.02, 0.15)))
        deadline = time.monotonic() + patience
        while (left := deadline - time.monotonic()) > 0:
            try:
                seen.append(node.line(left))
            except Failed:
                break
        seen += node.kill()
        returned = {}
        for line in seen:
            returned[names[json.loads(line["payload"])["id"]]] = bolt11_of(line["payload"])
        node = bench.node()
        for payment_hash in names:
            answer = bolt11_of(node.ask(request(payment_hash=payment_hash)))
            minted = bench.effects()[payment_hash]
            expect("what was returned before is returned again", answer, returned.get(payment_hash, answer))
            expect("what is returned was minted", answer in minted, True)
            most = 1 if payment_hash in returned else 2
            returned_before += payment_hash in returned
            minted_twice += len(minted) == 2
            expect(f"at most {most} mints", len(minted) <= most, True)
            expect("and replays", bolt11_of(node.ask(request(payment_hash=payment_hash))), answer)
        node.until("no actor is left", lambda stats: stats["live_actors"] == 0)
        expect("every record is complete", node.stats()["records"]["completed"], name)
        node.kill()
    print(f"of {name} requests {returned_before} were answered before the kill, {minted_twice} were minted twice")


NEW, KNOWN = ("success", "dispatched", False), ("duplicate", "dispatched", False)
REFUSED, REFUSED_AGAIN = ("definitive", "failed", False), ("definitive", "failed", True)
OUTCOMES = {  # of a send, as scripted: first answer, retries, lines
    "accept": (NEW, KNOWN, 1),
    "settle": (("success", "completed", False), ("duplicate", "completed", False), 1),
    "reject_validation": (REFUSED, REFUSED_AGAIN, 0),
    "definitive": (REFUSED, REFUSED_AGAIN, 1),
    "duplicate": (KNOWN, KNOWN, 1),
    "unknown": (("ambiguous", "in_doubt", False), KNOWN, 1),
    "panic": (("ambiguous", "in_doubt", False), KNOWN, 1),
}


def onions_once(bench):
    """Whatever an attempt comes to, it goes out at most once, and its retries are told the same, also after a restart."""
    node = bench.node()
    for id, (outcome, (first, _, _)) in enumerate(OUTCOMES.items()):
        expect(f"{outcome}: the first answer", node.told(onion(id, outcome)), first)
    for restarts in range(3):
        node.until("the switch has said what it knows", lambda stats: stats["records"]["in_doubt"] == stats["live_actors"] == 0)
        for id, (outcome, (_, again, lines)) in enumerate(OUTCOMES.items()):
            expect(f"{outcome}: another amount", node.told(onion(id, amount_msat=2001))[0], "conflict")
            for retry in (onion(id), onion(id, "settle"), onion(str(id), "reject_validation")):
                expect(f"{outcome}: a retry after {restarts} restarts", node.told(retry), again)
            expect(f"{outcome}: dispatches", bench.dispatched().get(id, 0), lines)
        node.shutdown() if restarts else node.kill()
        node = bench.node()
    expect("the id comes back as it was given", node.result(onion("4"))["attempt_id"], "4")
    preimage = node.result(call("track_onion", attempt_id=1))["preimage"]
    expect("a duplicate carries the end", node.result(onion(1))["preimage"], preimage)
    reason = node.result(onion(2))["reason"]
    expect("and so does a tracker", node.result(call("track_onion", attempt_id=2)), {
        "class": "success", "state": "failed", "replayed": True, "attempt_id": 2, "result": "failed", "reason": reason,
        "rolled_back": True,
    })
    listed = node.result(call("list_onions"))
    expect("all of it can be read", listed["quarantined"], 0)
    expect("what has no end yet is listed", {(one["attempt_id"], one["state"]) for one in listed["onions"]},
           {(id, "dispatched") for id in (0, 4, 5, 6)})
    expect("by state", node.result(call("list_onions", state="in_doubt"))["onions"], [])
    node.shutdown()


def onions_end(bench):
    """Namespaces, ends, fences, and what is forgotten."""
    node = bench.node()
    for namespace in ("A", "B", None):
        expect("namespaces never meet", node.told(onion(5, namespace=namespace)), NEW)
    expect("nor do routers", node.told(onion(5), 2), NEW)
    ask = lambda method, **members: node.result(call(method, attempt_id=5, **members))
    node.send(call("track_onion", id="w", attempt_id=5, namespace="A"))
    node.send(call("resolve_onion", id="r", attempt_id=5, namespace="A", result="settled", preimage="ab" * 32))
    heard = {reply["id"]: reply["result"] for reply in (json.loads(node.frame(1)) for _ in range(2))}
    expect("an end is recorded", [heard["r"][name] for name in ("class", "state", "resolved")], ["success", "completed", "recorded"])
    expect("whoever waits hears it", heard["w"]["preimage"], "ab" * 32)
    again = ask("resolve_onion", namespace="A", result="settled", preimage="AB" * 32)
    expect("the same end again", (again["class"], again["replayed"], again["resolved"]), ("success", True, "already"))
    other = ask("resolve_onion", namespace="A", result="failed", reason="no")
    expect("another one", (other["class"], other["state"], other["resolved"]), ("conflict", "completed", "contradicts"))
    ask("resolve_onion", namespace="B", result="failed", reason="")
    ask("resolve_onion", result="failed")
    expect("an empty reason", ask("track_onion", namespace="B")["reason"], "")
    expect("and none", ask("track_onion")["reason"], None)
    expect("the other router's goes on", node.told(call("track_onion", attempt_id=5, timeout_ms=1), 2),
           ("ambiguous", "dispatched", False))
    expect("no record, no end", node.result(call("resolve_onion", attempt_id=6, result="failed"))["resolved"], "not_found")
    expect("a fence", node.result(call("fence_onion", attempt_id=6))["fenced"], True)
    expect("the late send", node.told(onion(6)), ("definitive", "tombstone", False))
    expect("a fence on what is there", node.told(call("fence_onion", attempt_id=5), 2), KNOWN)
    node.send(onion(7, "hang"))
    node.until("it hangs", lambda stats: stats["records"]["registered"] == 1)
    forgotten = node.result(call("forget_onions", attempt_ids=["5", 6, 5, 7, 8]))
    statuses = [(one["attempt_id"], one["status"]) for one in forgotten["statuses"]]
    expect("what is forgotten", statuses, [("5", "forgotten"), (6, "tombstone"), (7, "in_flight"), (8, "not_found")])
    expect("a forgotten id is free", node.told(onion(5)), NEW)
    expect("and only that one", node.told(onion(5, namespace="A")), ("duplicate", "completed", False))
    expect("dispatches", bench.dispatched(), {5: 5, 7: 1})
    node.kill()
    node = bench.node()
    expect("what hung went out", node.told(onion(7)), KNOWN)
    expect("the fence holds", node.told(onion(6)), ("definitive", "tombstone", False))
    node.shutdown()


def onions_malformed(bench):
    """Wrong params are errors of the frame; wrong values are definitive."""
    node = bench.node("--deny", peer(9))
    wrong = lambda payload: json.loads(node.ask(payload))["error"]["code"]
    for payload in (onion(...), onion("x"), onion(-1), onion(1.5), onion(2**64), onion(1, payment_hash=...), onion(1, onion=7),
                    onion(1, amount_msat=...), onion(1, amount_msat="x"), onion(1, namespace=7), onion(1, namespace=""),
                    onion(1, "explode"), onion(1, delay_ms=-1), onion(1, simulate=7), call("track_onion"),
                    call("track_onion", attempt_id=1, timeout_ms="soon"), call("resolve_onion", attempt_id=1),
                    call("resolve_onion", attempt_id=1, result="lost"), call("forget_onions"),
                    call("forget_onions", attempt_ids=7), call("forget_onions", attempt_ids=[None]),
                    call("list_onions", state="lost"), '{"jsonrpc":"2.0","id":1,"method":"send_onion"}'):
        expect(f"a wrong param: {payload[:80]}", wrong(payload), -32602)
    for changes in ({"onion": "aa" * 1365}, {"onion": "zz" * 1366}, {"payment_hash": "5c" * 31}, {"payment_hash": ""},
                    {"amount_msat": 0}, {"amount_msat": -5}):
        expect(f"a wrong value: {list(changes)}", node.told(onion(1, **changes)), ("definitive", None, False))
    expect("burns no id", node.told(onion(1)), NEW)
    node.send(onion(2), 9)
    expect("the denied get silence", node.told(onion(3)), NEW)
    expect("a call without an id", json.loads(node.ask('{"jsonrpc":"2.0","method":"send_onion","params":{}}'))["error"],
           {"code": -32600, "message": "invalid request"})
    expect("dispatches", bench.dispatched(), {1: 1, 3: 1})
    node.shutdown()


def onions_killed_at_random(bench, seed):
    """A burst of sends, each four times, a kill at some moment, a restart, and everything again."""
    rng = random.Random(seed)
    outcomes = ("accept", "settle", "reject_validation", "definitive", "unknown", "panic", "hang")
    next_id = 0
    for _ in range(16):
        node = bench.node()
        wanted = {id: rng.choice(outcomes) for id in range(next_id, next_id + 16)}
        next_id += len(wanted)
        for _ in range(4):
            for id in rng.sample(list(wanted), len(wanted)):
                node.send(onion(id, wanted[id], delay_ms=rng.choice((0, 0, 5))))
        seen, deadline = [], time.monotonic() + rng.uniform(0.0, rng.choice((0.02, 0.2)))
        while (left := deadline - time.monotonic()) > 0:
            try:
                seen.append(node.line(left))
            except Failed:
                break
        seen += node.kill()
        told = collections.defaultdict(set)
        for line in seen:
            result = json.loads(line["payload"])["result"]
            told[result["attempt_id"]].add(result["class"])
        before = bench.dispatched()
        node = bench.node()
        for id, outcome in wanted.items():
            first = node.result(onion(id))["class"]
            if told[id] or id in before:
                expect("what was registered runs no more", first in ("duplicate", "definitive"), True)
            if "success" in told[id]:
                expect("what was sent is known", (first, before[id]), ("duplicate", 1))
            if "definitive" in told[id]:
                expect("what was refused is refused", first, "definitive")
            if first == "definitive":
                expect("a refusal is proof", outcome == "definitive" or id not in before, True)
            for _ in range(2):
                expect("a retry", node.result(onion(id))["class"], "definitive" if first == "definitive" else "duplicate")
            expect("it goes out at most once", bench.dispatched().get(id, 0), before.get(id, first == "success"))
        node.kill()
    expect("none went out twice", set(bench.dispatched().values()), {1})
    print(f"of {next_id} onions {len(bench.dispatched())} went out")


def payments_once(bench):
    """Whatever a payment comes to, it goes out at most once, and its retries are told the same, also after a restart."""
    node = bench.node()
    for id, (outcome, (first, _, _)) in enumerate(OUTCOMES.items()):
        expect(f"{outcome}: the first answer", node.told(payment(id, outcome)), first)
    for restarts in range(3):
        node.until("LDK has said what it knows", lambda stats: stats["records"]["in_doubt"] == stats["live_actors"] == 0)
        for id, (outcome, (_, again, lines)) in enumerate(OUTCOMES.items()):
            for other in (payment(id, amount_msat=2001), payment(id, payment_hash="5d" * 32)):
                expect(f"{outcome}: another request", node.told(other)[0], "conflict")
            for retry in (payment(id), payment(id, "settle"), payment(id, "reject_validation", payment_hash="5C" * 32)):
                expect(f"{outcome}: a retry after {restarts} restarts", node.told(retry), again)
                expect("whoever asks", node.told(retry, 2), again)
            expect(f"{outcome}: dispatches", bench.paid().get(id, 0), lines)
            attempt = node.result(payment(id))["attempt"]
            expect(f"{outcome}: the attempt", attempt, 1 if lines else None)
        node.shutdown() if restarts else node.kill()
        node = bench.node()
    listed = node.result(call("list_payments"))
    expect("all of it can be read", listed["quarantined"], 0)
    names = ("payment_id", "state", "attempt", "payment_hash", "amount_msat", "abandoned", "dead_letter")
    expect("what has no end yet is listed", {tuple(one[name] for name in names) for one in listed["payments"]},
           {(pid(id), "dispatched", 1, "5c" * 32, 2000, False, False) for id in (0, 4, 5, 6)})
    node.shutdown()


def ticks(node, count):
    for _ in range(count):
        before = node.control("tick")
        expect("a tick is answered", before["control"], "tick")
    return before["ticks"]


def event(id, what, attempt=None, **members):
    return call("payment_event", payment_id=pid(id), event=what, attempt=attempt, **members)


def handled(node, payload):
    result = node.result(payload)
    return result["handled"], result["state"]


def payments_released(bench):
    """Quiet ticks, from the acknowledgement on; abandonment; the vectors 3 to 7."""
    node = bench.node()
    ask = lambda method, id=1: node.result(call(method, payment_id=pid(id)))
    paid, dead = ("duplicate", "completed", False), ("duplicate", "failed", False)
    expect("sent", node.told(payment(1)), NEW)
    expect("paid", handled(node, event(1, "sent", 1, preimage="AB" * 32)), ("recorded", "completed"))
    expect("the preimage", node.result(payment(1))["preimage"], "ab" * 32)
    ticks(node, 40)
    expect("without an acknowledgement it stays", node.told(payment(1)), paid)
    expect("acknowledged", ask("ack_payment_event")["acknowledged"], True)
    ticks(node, 6)
    node.kill()
    node = bench.node()
    expect("acknowledged again, nothing changes", ask("ack_payment_event")["acknowledged"], True)
    expect("the count survives", ticks(node, 1), 47)
    expect("seven quiet ticks keep it", node.told(payment(1)), paid)
    expect("also from another request", node.told(payment(1, amount_msat=9))[0], "conflict")
    ticks(node, 1)
    expect("the eighth releases it", node.told(payment(1, amount_msat=9)), NEW)
    expect("as another attempt", node.result(payment(1, amount_msat=9))["attempt"], 2)
    for what in ("sent", "failed"):
        expect("an event of the first is not the second's", handled(node, event(1, what, 1)), ("stale", "dispatched"))
        expect("nor is one of no attempt at all", handled(node, event(1, what, 3)), ("stale", "dispatched"))
    expect("paid again", handled(node, event(1, "sent")), ("recorded", "completed"))
    ask("ack_payment_event")
    ticks(node, 5)
    expect("a redelivery", handled(node, event(1, "sent", 2)), ("repeated", "completed"))
    expect("a late failure", node.told(event(1, "failed", 2)), ("conflict", "completed", False))
    node.kill()
    node = bench.node()
    expect("is ignored", handled(node, event(1, "failed")), ("late", "completed"))
    ticks(node, 7)
    expect("the count began anew", node.told(payment(1, amount_msat=9)), paid)
    ticks(node, 1)
    expect("and ran out", node.result(payment(1))["attempt"], 3)

    expect("refused", node.told(payment(2, "reject_validation")), ("definitive", "failed", False))
    expect("an event of what never went out", handled(node, event(2, "failed")), ("repeated", "failed"))
    expect("abandoned", ask("abandon_payment", 2)["abandoned"], "released")
    expect("it goes out", node.told(payment(2)), NEW)
    expect("failed", handled(node, event(2, "failed", 1)), ("recorded", "failed"))
    expect("failed again", node.told(event(2, "failed", 1)), ("success", "failed", True))
    expect("is known", node.told(payment(2)), dead)
    expect("an acknowledgement of a failure is not needed", ask("ack_payment_event", 2)["acknowledged"], False)
    ticks(node, 20)
    node.kill()
    node = bench.node()
    expect("and stays", node.told(payment(2)), dead)
    expect("with its reason", node.result(payment(2))["reason"], "RetriesExhausted")
    expect("given up", ask("abandon_payment", 2)["abandoned"], "released")
    expect("goes out", node.told(payment(12)), NEW)
    expect("fails", handled(node, event(12, "failed", 1)), ("recorded", "failed"))
    contradiction = node.result(event(12, "sent", 1, preimage="cd" * 32))
    expect("paid after all", [contradiction[name] for name in ("class", "state", "handled", "preimage")],
           ["conflict", "failed", "contradiction", "cd" * 32])
    expect("changes nothing", node.told(payment(12)), dead)
    expect("its id is freed all the same", ask("abandon_payment", 12)["abandoned"], "released")
    expect("it runs again", node.told(payment(2, amount_msat=1)), NEW)
    marked = ask("abandon_payment", 2)
    expect("given up under way", (marked["abandoned"], marked["state"]), ("marked", "dispatched"))
    node.kill()
    node = bench.node()
    ticks(node, 20)
    again = node.result(payment(2, amount_msat=1))
    expect("it is still known", (again["class"], again["state"], again["attempt"]), ("duplicate", "dispatched", 2))
    expect("and listed so", node.result(call("list_payments"))["payments"][-1]["abandoned"], True)
    expect("its failure releases it", handled(node, event(2, "failed", 2)), ("recorded", None))
    expect("nothing is left", handled(node, event(2, "failed", 2)), ("unknown", None))
    expect("of what is not there", [ask(method, 2).get(name) for method, name in
           (("abandon_payment", "abandoned"), ("ack_payment_event", "acknowledged"))], ["no_effect", False])
    expect("it runs once more", node.result(payment(2))["attempt"], 3)
    ask("abandon_payment", 2)
    expect("what is given up may be paid", handled(node, event(2, "sent", 3)), ("recorded", "completed"))
    expect("and stays paid", (ask("abandon_payment", 2)["abandoned"], node.told(payment(2))), ("no_effect", paid))
    expect("dispatches", bench.paid(), {1: 3, 2: 3, 12: 1})
    node.shutdown()


def payments_restart(bench):
    """Killed within the call: what has a line is under way, what has none never was. The vectors 8, 9 and 12."""
    node = bench.node()
    node.send(payment(1, "hang"))
    node.send(payment(2, "reject_validation", delay_ms=600_000))
    node.until("both are inside", lambda stats: stats["records"]["registered"] == 2)
    while bench.paid() != {1: 1}:
        expect("the call is being made", node.told(payment(1)), ("duplicate", "registered", False))
    expect("another request", node.told(payment(2, amount_msat=1))[0], "conflict")
    abandoned = node.result(call("abandon_payment", payment_id=pid(1)))
    expect("given up within the call", (abandoned["abandoned"], abandoned["state"]), ("marked", "registered"))
    node.kill()
    node = bench.node()
    expect("what has a line went out", node.told(payment(1)), KNOWN)
    expect("what has none never did", node.told(payment(2)), ("definitive", "failed", True))
    expect("and says so", node.result(payment(2))["reason"], "not started")
    expect("another request still", node.told(payment(2, amount_msat=1))[0], "conflict")
    expect("its id is freed", node.result(call("abandon_payment", payment_id=pid(2)))["abandoned"], "released")
    expect("and runs", node.told(payment(2)), NEW)
    expect("the mark has lasted", handled(node, event(1, "failed", 1)), ("recorded", None))
    expect("one is lost within the call", node.told(payment(3, "panic")), ("ambiguous", "in_doubt", False))
    expect("asked about", node.told(payment(3)), KNOWN)
    expect("and paid", handled(node, event(3, "sent", 1)), ("recorded", "completed"))
    node.send(payment(4, "hang"))
    node.until("it hangs", lambda stats: stats["records"]["registered"] == 1)
    while bench.paid().get(4) != 1:
        pass
    node.send(event(4, "sent", 1, preimage="ab" * 32))
    heard = [json.loads(node.frame(1))["result"] for _ in range(2)]
    expect("paid before the call returns", sorted(result.get("handled", "the call") for result in heard), ["recorded", "the call"])
    expect("and the caller is told", {(result["class"], result["state"]) for result in heard}, {("success", "completed")})
    node.kill()
    node = bench.node()
    expect("nothing went out again", bench.paid(), {1: 1, 2: 1, 3: 1, 4: 1})
    expect("the ends stay", [node.told(payment(id))[1] for id in (2, 3, 4)], ["dispatched", "completed", "completed"])
    node.shutdown()


def payments_at_once(bench):
    """24 at once, of which one goes out. The vectors 1 and 2."""
    node = bench.node()
    for attempt in range(24):
        node.send(payment(7, delay_ms=50, amount_msat=2000 + attempt // 20))
    told = collections.Counter(json.loads(node.frame(1))["result"]["class"] for _ in range(24))
    expect("one goes out", told, {"success": 1, "duplicate": 19, "conflict": 4})
    expect("dispatches", bench.paid(), {7: 1})
    node.send(onion(7))
    expect("an onion of the same number is another matter", json.loads(node.frame(1))["result"]["class"], "success")
    node.shutdown()


def payments_malformed(bench):
    """Wrong params are errors of the frame; wrong values are definitive."""
    node = bench.node("--deny", peer(9))
    wrong = lambda payload: json.loads(node.ask(payload))["error"]["code"]
    named = lambda method, **members: call(method, **{"payment_id": pid(1), **members})
    for payload in (payment(1, payment_id=...), payment(1, payment_id=7), payment(1, payment_id="x"), payment(1, payment_id="aa" * 31),
                    payment(1, payment_id="zz" * 32), payment(1, payment_hash=...), payment(1, payment_hash=7),
                    payment(1, amount_msat=...), payment(1, amount_msat="x"), payment(1, amount_msat=1.5),
                    payment(1, amount_msat=2**64), payment(1, "explode"), payment(1, delay_ms=-1), payment(1, simulate=7),
                    call("payment_event", event="sent"), named("payment_event"), named("payment_event", event="lost"),
                    named("payment_event", event=7), named("payment_event", event="sent", attempt="first"),
                    named("payment_event", event="sent", attempt=-1), named("payment_event", event="sent", preimage="ab"),
                    named("payment_event", event="sent", preimage=7), call("ack_payment_event"),
                    call("abandon_payment", payment_id="aa"), '{"jsonrpc":"2.0","id":1,"method":"send_payment"}',
                    '{"jsonrpc":"2.0","id":1,"method":"send_payment","params":[1]}'):
        expect(f"a wrong param: {payload[:90]}", wrong(payload), -32602)
    for changes in ({"payment_hash": "5c" * 31}, {"payment_hash": ""}, {"payment_hash": "zz" * 32}, {"amount_msat": 0},
                    {"amount_msat": -5}):
        expect(f"a wrong value: {changes}", node.told(payment(1, **changes)), ("definitive", None, False))
    for what in ("sent", "failed"):
        expect("an event of nothing", node.told(event(1, what)), ("ambiguous", None, False))
    expect("burns no id", node.told(payment(1, amount_msat="2000")), NEW)
    expect("a number in digits is that number", node.told(payment(1)), KNOWN)
    expect("a wrong value under a known id", node.told(payment(1, amount_msat=0))[0], "conflict")
    expect("the id comes back as it was given", node.result(payment(10, payment_id="AB" * 32))["payment_id"], "AB" * 32)
    expect("and is the same in lower case", node.told(payment(10, payment_id="ab" * 32)), KNOWN)
    node.send(payment(2), 9)
    expect("the denied get silence", node.told(payment(3)), NEW)
    expect("dispatches", bench.paid(), {1: 1, 3: 1, int("ab" * 32, 16): 1})
    node.shutdown()


def the_end(bench):
    node = bench.node("--mint-delay-ms", 300)
    for id in ("1", "2"):
        node.send(request(id))
    node.send_line('{"control":"shutdown"}')
    answers = sorted(node.frame(1) for _ in range(2))
    expect("a shutdown waits for what runs", len({bolt11_of(answer) for answer in answers}), 1)
    expect("and is answered last", node.line(), {"control": "shutdown"})
    node.ended(0)
    node = bench.node()
    expect("reopened at once, it replays", node.ask(request("1")), answers[0])
    second = bench.node()
    second.ended(2)
    expect("two nodes cannot share a file", second.process.stderr.read() != b"", True)
    node.process.stdin.close()
    node.ended(0)
    node = bench.node()
    expect("after the end of input too", node.ask(request("1")), answers[0])
    node.shutdown()
    broken = os.path.join(bench.dir, "broken.redb")
    with open(broken, "wb") as file:
        file.write(b"no such database " * 4096)
    for flags, code in ((["--db", broken], 2), (["--db", bench.dir], 2), (["--effects", bench.dir], 2), (["--nope"], 64),
                        (["--grace-ms"], 64), (["--grace-ms", "-1"], 64), (["--on-expired", "x"], 64), (["--deny", "02"], 64)):
        node = Node(bench.binary, *flags)
        node.ended(code)
        expect(f"{flags[0]}: the reason is on stderr", len(node.process.stderr.read()) > 20, True)


def session(binary, root):
    fresh_bench = lambda: Bench(binary, root)
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed of the random kills: {seed}")
    scenarios = [first_run_and_replay, mismatch, ledger, malformed, large_frames, operation_errors, concurrency,
                 killed_during_a_mint, onions_once, onions_end, onions_malformed, payments_once, payments_released,
                 payments_restart, payments_at_once, payments_malformed, the_end]
    steps = [(scenario.__name__, lambda scenario=scenario: scenario(fresh_bench())) for scenario in scenarios]
    timed = [expiry_refuses_once, expiry_reruns, *grace(expiry_sweep=False), *grace(expiry_sweep=True)]
    steps += [(scenario.__name__, lambda scenario=scenario: timely(scenario, fresh_bench)) for scenario in timed]
    steps.append(("other_times", lambda: other_times(fresh_bench)))
    steps.append(("killed_at_random", lambda: killed_at_random(fresh_bench(), seed)))
    steps.append(("onions_killed_at_random", lambda: onions_killed_at_random(fresh_bench(), seed)))
    for name, step in steps:
        began = time.monotonic()
        try:
            step()
        except Failed as failed:
            print(f"FAILED in {name}: {failed}\n{Tally.passed} passed, 1 failed")
            return 1
        print(f"{name}: {time.monotonic() - began:.1f} s", flush=True)
    print(f"{Tally.passed} passed, 0 failed")
    return 0


def main():
    if len(sys.argv) != 2:
        print(__doc__, file=sys.stderr)
        return 64
    with tempfile.TemporaryDirectory() as root:
        try:
            return session(os.path.abspath(sys.argv[1]), root)
        finally:
            end_all()


if __name__ == "__main__":
    sys.exit(main())
