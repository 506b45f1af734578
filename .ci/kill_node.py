"""Kills the example node: python3 .ci/kill_node.py <path of the node binary>
                        [--only PART]... [--seed N] [--kills N] [--seconds N]

PART is one of
  self-test  the referees object to forged transcripts
  storm      kill -9 at random moments under load, at least --kills times (default 300)
  syscalls   kill at every syscall that writes to the store or the file of effects, in five scenarios, with strace; an even
             sample of them, if it would take longer than --seconds (default 270)
  limits     a second process, a file of a newer format, no file descriptors left, a peer that floods
Without --only all of them. Everything but the moments of the kills follows from the seed, which is printed.
"""

import argparse
import os
import random
import sys
import tempfile
import time

sys.dont_write_bytecode = True

from court import self_test_of_torn_lines
from forged import self_test
from forged_sends import self_test_of_sends
from kill_storm import storm
from kill_syscalls import syscalls
from node_driver import Failed, end_all
from node_limits import limits
from referee import Objection

PARTS = ("self-test", "storm", "syscalls", "limits")


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("node")
    parser.add_argument("--only", action="append", choices=PARTS)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**32))
    parser.add_argument("--kills", type=int, default=300)
    parser.add_argument("--seconds", type=int, default=270)
    return parser.parse_args()


def main():
    args = arguments()
    binary = os.path.abspath(args.node)
    print(f"seed of the kills: {args.seed}", flush=True)
    for part in args.only or PARTS:
        began = time.monotonic()
        with tempfile.TemporaryDirectory() as root:
            try:
                run(part, args, binary, root)
            except (Failed, Objection) as failed:
                print(f"FAILED in {part}: {failed}\nagain: python3 .ci/kill_node.py {args.node} --only {part}"
                      f" --seed {args.seed} --kills {args.kills} --seconds {args.seconds}")
                return 1
            finally:
                end_all()
        print(f"{part}: {time.monotonic() - began:.1f} s", flush=True)
    return 0


def run(part, args, binary, root):
    if part == "self-test":
        self_test()
        self_test_of_sends()
        self_test_of_torn_lines(root)
    elif part == "storm":
        storm(binary, root, args.seed, args.kills)
    elif part == "syscalls":
        syscalls(binary, root, args.seconds)
    elif part == "limits":
        limits(binary, root)


if __name__ == "__main__":
    sys.exit(main())
