"""The seconds of curves.py's figure, of fast.py's, and of README.md's table of methods: every arm
at its best rate, and fast.py's kinds, from the first base, alone on the machine, unwatched.

    OMP_NUM_THREADS=1 python experiments/timing.py      a quarter of an hour, nothing beside it

(The runs of curves.py went two at a time: their own seconds vary by a factor of two.)"""
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from eval_gsm8k import print_table, read_csv, write_csv
from experiments import curves, fast, rl, trained

COLUMNS = ["arm", "seed", "step", "seconds"]

def runs(seed, quick):      # -> name: run
    arms = {name: curves.contender(name, seed, "" if quick else trained.rate(name))
            for name in curves.CONTENDERS}
    return arms | {name: fast.of_kind(name, seed) for name in fast.KINDS}

def measure(args, name, run):
    """-> rows, one a watched step."""
    with tempfile.TemporaryDirectory() as folder:
        log = rl.unwatched(args.bases, run, folder, args.quick)
    return [{"arm": name, "seed": run.seed, "step": step, "seconds": log[step]}
            for step in run.watched if step in log]

def main():
    args = rl.parse_flags("timing", "The seconds of every arm, alone on the machine.")
    rows = read_csv(args.csv) if Path(args.csv).exists() else []
    for name, run in runs(args.seeds[0], args.quick).items():
        if not any(r["arm"] == name for r in rows):
            rows += measure(args, name, run)
            write_csv(args.csv, COLUMNS, rows)
            rows = read_csv(args.csv)
    print_table(COLUMNS, [[r[c] for c in COLUMNS] for r in rows if int(r["step"]) > 0])

if __name__ == "__main__":
    main()
