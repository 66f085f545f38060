"""Kill train.py at random moments, go on with --resume, compare every byte with a run left alone.

    python tests/faults/kills.py                   30 runs, each killed 1 to 4 times: 10 minutes
    python tests/faults/kills.py --how term        by SIGTERM; or int (Ctrl-C), or mixed
    python tests/faults/kills.py --csv kills.csv   a row for each kill

Half of the kills come from outside, after a random time; half from inside, in a random act, just
before or after a random one of the calls that sync, rename or remove a file. The network is 16
wide, a coin rewards it (so that GRPO moves), and the state is saved every .2 seconds, not 10.
"""
import argparse
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tqdm import tqdm

from runs import write_csv
from tests.coin import Coin, log_without_times

FLAGS = ("--quick --device cpu --steps 60 --batch 4 --width 16 --layers 1 --problems 24 "
         "--trap-problems 4 --samples 4 --grpo-steps 12 --prompts 4 --rollouts 4 --grpo-lr 0.03"
         ).split()
SAME = ("base.pt", "justgrpo.pt", "confidence.pt", "results.csv", "measures.csv", "texts.jsonl",
        "texts-confidence.jsonl", "log.csv")
SIGNALS = {"kill": signal.SIGKILL, "term": signal.SIGTERM, "int": signal.SIGINT}


def child(number, name, flags):
    """What runs in the process: train.py, which sends itself a signal at the number-th moment
    before or after a call that changes a file; 0: which counts these moments aloud.
    """
    import runs
    import train
    moments = 0

    def moment():
        nonlocal moments
        moments += 1
        if not number:
            print(f"moment {moments}")
        if moments == number:
            os.kill(os.getpid(), SIGNALS[name])

    def watched(call):
        def wrapper(*args, **kwargs):
            moment()
            result = call(*args, **kwargs)
            moment()
            return result
        return wrapper
    for call in ("replace", "fsync", "unlink"):
        setattr(os, call, watched(getattr(os, call)))
    train.show_task = watched(train.show_task)      # act 1, which writes nothing
    runs.SAVE_EVERY = 0.2
    train.main(flags, task=Coin())


def start(out, *flags, number=0, name="kill"):
    command = [sys.executable, "-u", __file__, "--child", number, name, *FLAGS, "--out", out]
    return subprocess.Popen([*map(str, command), *flags], cwd=ROOT, stdout=subprocess.PIPE,
                            stderr=subprocess.STDOUT, env={**os.environ, "OMP_NUM_THREADS": "1"})


def digest(out):
    """What must be the same, by name: bytes, but for the log's column of times."""
    found = {name: (out / name).read_bytes() for name in SAME}
    return {**found, "log.csv": log_without_times(out)}


def act_of(output):
    return max(map(int, re.findall(r"Act (\d)", output)), default=0)    # 0: not begun


def try_once(rng, out, seconds, moments, how, most=4):
    """Until it is finished: start, kill. -> rows, one for each start; the last has status 0."""
    rows, flags = [], []
    for attempt in range(most + 1):
        name = rng.choice(sorted(SIGNALS)) if how == "mixed" else how
        kind = "left alone" if attempt == most else rng.choice(["time", "call"])
        number = rng.choice(rng.choice(moments)) if kind == "call" else -1
        process = start(out, *flags, number=number, name=name)
        if kind == "time":
            try:
                process.wait(rng.uniform(1.5, seconds))     # torch is imported in 1.5 or more
            except subprocess.TimeoutExpired:
                process.send_signal(SIGNALS[name])
        output = process.communicate(timeout=300)[0].decode()
        row = {"kind": kind, "signal": name, "act": act_of(output), "status": process.returncode}
        rows.append(row)
        if process.returncode == 0:
            return rows
        # (A signal that comes while torch is imported ends that with a traceback.)
        assert process.returncode in (-SIGNALS[name], 128 + SIGNALS[name]), f"{row}\n{output}"
        assert name != "kill" or "Traceback" not in output, f"{row}\n{output}"
        flags = ["--resume"]
    raise AssertionError(f"not finished: {rows}\n{output}")


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--tries", type=int, default=30, help="how many runs")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--how", choices=[*SIGNALS, "mixed"], default="kill", help="the signal")
    parser.add_argument("--csv", help="write the kills to this file")
    args = parser.parse_args(argv)
    rng, rows = random.Random(args.seed), []
    with tempfile.TemporaryDirectory() as folder:
        began = time.time()
        whole = start(Path(folder, "whole"))
        output = whole.communicate(timeout=300)[0].decode()
        assert whole.returncode == 0, output
        seconds, wanted = time.time() - began, digest(Path(folder, "whole"))
        moments = [[int(n) for n in re.findall(r"^moment (\d+)", part, re.M)]
                   for part in output.split("== Act ")]         # before the acts, and in each
        for number in tqdm(range(args.tries), desc="runs"):
            out = Path(folder, str(number))
            found = try_once(rng, out, seconds, moments, args.how)
            got = digest(out)
            differ = [name for name in SAME if got[name] != wanted[name]]
            rows += [{"run": number, **row, "differ": " ".join(differ)} for row in found]
            left = [path.name for path in out.glob("*.tmp")]
            assert not differ and not left, (rows[-len(found):], left)
    acts = [row["act"] for row in rows if row["status"]]
    in_acts = ", ".join(f"act {act}: {acts.count(act)}" for act in range(6))
    print(f"{args.tries} runs, {len(acts)} kills ({in_acts}), each run the same bytes in "
          f"{', '.join(SAME)} as the one left alone")
    if args.csv:
        write_csv(args.csv, [*rows[0]], rows)
    return rows


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        child(int(sys.argv[2]), sys.argv[3], sys.argv[4:])
    else:
        main()
