#!/usr/bin/env python3
"""Plants the bugs of planted/bugs.toml into a copy of the sources, and demands that the proof finds each of them.

usage: planted.py [--only TEXT]... [--layer LAYERS] [--every-layer]

By default each bug meets the one layer that its entry names. With --every-layer it meets all of them, and the table shows
which find it: a layer that finds none is no proof of anything.
"""

import argparse
import os
import pathlib
import re
import shutil
import subprocess
import sys
import time
import tomllib

ROOT = pathlib.Path(__file__).resolve().parent.parent
# The tests of each layer: which binary, and which of its tests. In the order in which they are tried.
LAYERS = {
    "values": ("lib", ["key::", "fingerprint::", "time::", "ledger::"]),
    "machine": ("lib", ["machine::"]),
    "store": ("lib", ["store::"]),
    "actor": ("lib", ["actor::"]),
    # Without what waits in real time, and what reads the sources.
    "it": ("it", ["--skip", "tidy", "--skip", "readme", "--skip", "the_example", "--skip", "storage_failure", "--skip", "shutdown"]),
    "episodes": ("proof", ["episodes"]),
    "crash": ("proof", ["crash"]),
    "io": ("proof", ["io_errors"]),
    # Real servers over real sockets. A bug may name those of the tests that concern it.
    "http": ("http", ["--test-threads", "8"]),
}
SWITCH = """//! Which planted bug is on.

use std::sync::OnceLock;

static PLANTED: OnceLock<Option<String>> = OnceLock::new();

pub(crate) fn is(name: &str) -> bool {
    PLANTED.get_or_init(|| std::env::var("IBID_PLANTED").ok()).as_deref() == Some(name)
}
"""
SECONDS_PER_LAYER = 120


def plant(bug, tree):
    """Puts the bug into the copy, beside the right code."""
    path = tree / bug["file"]
    text = path.read_text()
    before, right, after = re.split("[«»]", bug["at"])
    count = text.count(before + right + after)
    if count != 1:
        sys.exit(f"{bug['name']}: its place stands {count} times in {bug['file']}")
    wrong = bug["bug"]
    switched = f'if crate::planted::is("{bug["name"]}") {{ {wrong} }} else {{ {right} }}'
    if not right.endswith(";"):
        switched = f"({switched})"
    path.write_text(text.replace(before + right + after, before + switched + after))


def build(tree, needed):
    """The test binaries of these names. Apart from the original's: cargo tells the two trees' works from each other by nothing."""
    env = os.environ | {
        "CARGO_TARGET_DIR": str(ROOT / "target/planted-build"),
        "CARGO_PROFILE_RELEASE_DEBUG_ASSERTIONS": "true",
        "CARGO_PROFILE_RELEASE_OVERFLOW_CHECKS": "true",
    }
    targets = {"lib": ["--lib"], "it": ["--test", "it"], "proof": ["--test", "proof"], "http": ["--test", "http"]}
    if "http" in needed:
        servers = ["cargo", "build", "--release", "--example", "http_server", "--example", "http_server_actix"]
        built = subprocess.run(servers, cwd=tree, env=env, stderr=subprocess.PIPE, text=True)
        if built.returncode != 0:
            sys.exit(built.stderr)
    command = ["cargo", "test", "--release", "--no-run", *(part for name in sorted(needed) for part in targets[name])]
    built = subprocess.run(command, cwd=tree, env=env, stderr=subprocess.PIPE, text=True)
    if built.returncode != 0:
        sys.exit(built.stderr)
    found = re.findall(r"Executable .*?(\S+\.rs) \((\S+)\)", built.stderr)
    names = {"src/lib.rs": "lib", "tests/it/main.rs": "it", "tests/proof/main.rs": "proof", "tests/http/main.rs": "http"}
    return {names[source]: binary for source, binary in found if source in names}


def run(layer, binaries, bug, scale=None, tests=()):
    """Whether the layer's tests fail, or these of them, the seconds they took, and the seed that they name."""
    name, filters = LAYERS[layer]
    filters = [*filters, *tests]
    binary = binaries[name]
    env = os.environ | {"CARGO_MANIFEST_DIR": str(ROOT)}
    for variable, value in {"IBID_SEED": None, "IBID_PROOF": scale, "IBID_PLANTED": bug}.items():
        env.pop(variable, None)
        if value:
            env[variable] = value
    begun = time.monotonic()
    try:
        done = subprocess.run(
            [binary, *filters], env=env, cwd=ROOT, capture_output=True, text=True, timeout=SECONDS_PER_LAYER
        )
        output, failed = done.stdout + done.stderr, done.returncode != 0
    except subprocess.TimeoutExpired:
        # A hang is a failure, too: somebody waits for ever. What is only long says nothing.
        output, failed = "hangs", scale is None
    if sum(map(int, re.findall(r"^running (\d+) test", output, re.MULTILINE))) == 0 and output != "hangs":
        sys.exit(f"no test matches {filters}")
    seed = re.search(r"IBID_SEED=(\d+)", output)
    failing = re.search(r"^    ([\w:]+)$", output, re.MULTILINE)
    told = f"seed {seed[1]}" if seed else failing[1] if failing else output[-60:].strip()
    return failed, time.monotonic() - begun, told


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", help="bugs whose name holds this, or one of these")
    parser.add_argument("--layer", help="bugs of these layers, by comma")
    parser.add_argument("--every-layer", action="store_true")
    options = parser.parse_args()
    bugs = tomllib.loads((ROOT / ".ci/planted/bugs.toml").read_text())["bug"]
    # At the same place each time, so that what can stay built stays built.
    tree = ROOT / "target/planted"
    shutil.rmtree(tree, ignore_errors=True)
    shutil.copytree(ROOT, tree, ignore=shutil.ignore_patterns("target", ".git"))
    (tree / "src/planted.rs").write_text(SWITCH)
    with (tree / "src/lib.rs").open("a") as lib:
        lib.write("mod planted;\n")
    for bug in bugs:
        plant(bug, tree)
    named = [bug for bug in bugs if not options.only or any(text in bug["name"] for text in options.only)]
    chosen = [bug for bug in named if not options.layer or bug["layer"] in options.layer.split(",")]
    layers = LAYERS if options.every_layer else {bug["layer"] for bug in chosen}
    binaries = build(tree, {LAYERS[layer][0] for layer in layers})
    sys.exit(hunt(chosen, binaries, options.every_layer))


def hunt(bugs, binaries, every_layer):
    """Sets the layers on the bugs; 0 if every bug is caught."""
    finds, escaped = dict.fromkeys(LAYERS, 0), []
    for layer in LAYERS if every_layer else sorted({bug["layer"] for bug in bugs}):
        failed, seconds, told = run(layer, binaries, None)
        if failed:
            print(f"{layer} fails without a bug: {told}")
            return 1
        print(f"{'no bug':60} {layer:9} {seconds:6.1f} s  passes", flush=True)
    for bug in bugs:
        caught = False
        for layer in LAYERS if every_layer else [bug["layer"]]:
            failed, seconds, told = run(layer, binaries, bug["name"], tests=bug.get("tests", ()))
            if not failed and LAYERS[layer][0] == "proof" and not every_layer:
                failed, seconds, told = run(layer, binaries, bug["name"], "ci")
            if failed:
                caught = True
                finds[layer] += 1
                print(f"{bug['name']:60} {layer:9} {seconds:6.1f} s  {told}", flush=True)
        if not caught:
            escaped.append(bug["name"])
            print(f"{bug['name']:60} ESCAPED", flush=True)
    print(f"{len(bugs) - len(escaped)} of {len(bugs)} planted bugs caught;", end=" ")
    print(", ".join(f"{layer} {count}" for layer, count in finds.items() if count))
    return 1 if escaped else 0


if __name__ == "__main__":
    main()
