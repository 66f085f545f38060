"""The base models that the experiments ask: made once, kept in out/bases, 4 minutes each.

    python experiments/bases.py                         all that are missing: two hours
    python experiments/bases.py --only default hard     some of them

A script of this folder makes the bases that it needs and lacks. With one thread a run (as here:
OMP_NUM_THREADS=1, two scripts side by side) two cores do nearly twice the work."""
import argparse
import functools
import hashlib
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import train
from data import Toy
from eval_gsm8k import read_csv, write_csv
from experiments.puzzle import Sudoku
from model import load_checkpoint

SEEDS = 0, 1, 2
VARIANTS = {    # name: task, pretraining steps, seeds; fixed before any order was measured on them
    "default": (Toy(), 1300, SEEDS),
    # Coverage: 8 operations instead of 6, and four answers of five given at once.
    "hard": (Toy(direct=0.8, n_steps=8), 1600, SEEDS),
    # The share of direct answers, from a text without forks up (`default` has .65).
    "direct-0": (Toy(direct=0, skip=0), 1300, SEEDS),
    "direct-25": (Toy(direct=0.25), 1300, SEEDS),
    "direct-50": (Toy(direct=0.5), 1300, SEEDS),
    "direct-60": (Toy(direct=0.6), 1300, SEEDS),
    "direct-70": (Toy(direct=0.7), 1300, SEEDS),
    # The model's own uncertainty: two of these tasks, stopped early. The steps were chosen by one
    # number, how many next values seed 0 gets right: .7 to .8, before any order was measured.
    "early-direct-0": (Toy(direct=0, skip=0), 300, SEEDS),
    "early": (Toy(), 500, SEEDS),
    # The default one with 300 steps more: as many seconds as JustGRPO's 60 take.
    "longer": (Toy(), 1600, SEEDS),
    "sudoku": (Sudoku(), 1300, SEEDS),
    # RL's edge: how strong a base is against how often its texts jump (.65 after 500: `early`).
    "direct-80": (Toy(direct=0.8), 1300, SEEDS),
    **{f"edge-{direct}-{steps}": (Toy(direct=direct / 100), steps, SEEDS)
       for direct in (25, 65, 80) for steps in (350, 500, 700) if (direct, steps) != (65, 500)}}
PROBES = ["masked_nll", *(f"next_value_{s}" for s in range(8)), *(f"go_on_{s}" for s in range(8)),
          *(f"answer_in_head_{s}" for s in range(9))]
COLUMNS = ["variant", "seed", "base", "steps", *PROBES]

def checkpoint(folder, variant, seed, quick=False):
    """-> path of a base, made now if it is missing; with quick, a small one that knows little."""
    task, steps, _ = VARIANTS[variant]
    path = Path(folder, f"{variant}-{seed}", "base.pt")
    if not path.exists() and quick:
        path = Path(folder, f"{variant}-quick", "base.pt")
    if not path.exists():
        size = ["--quick"] if quick else ["--steps", str(steps)]
        try:
            train.main([*size, "--stage", "pretrain", "--device", "cpu", "--seed", str(seed),
                        "--out", str(path.parent), "--resume"], task=task)
        except SystemExit as stop:      # it ends by saying that the steps are not learned: good
            if not path.exists():
                raise
            print(stop.code)
    return path

@functools.lru_cache(1)
def load(folder, variant, seed, quick=False):
    """-> model, task, fingerprint of the weights: rows of different weights can't be compared."""
    model = load_checkpoint(checkpoint(folder, variant, seed, quick))[0]
    weights = hashlib.sha256(b"".join(w.numpy().tobytes() for w in model.state_dict().values()))
    return model, VARIANTS[variant][0], weights.hexdigest()[:8]

def main(argv=None):
    parser = argparse.ArgumentParser(
        description="Train the bases that are missing, and write what they know to a CSV.")
    parser.add_argument("--bases", default="out/bases", help="folder of the checkpoints")
    parser.add_argument("--only", nargs="+", choices=VARIANTS, help="these variants")
    parser.add_argument("--seeds", nargs="+", type=int, help="of these seeds")
    parser.add_argument("--csv", help="write the probes of all bases that are there to this file")
    args = parser.parse_args(argv)
    rows = []
    for variant, (_, steps, seeds) in VARIANTS.items():
        for seed in seeds:
            if variant in (args.only or VARIANTS) and seed in (args.seeds or seeds):
                checkpoint(args.bases, variant, seed)
            folder = Path(args.bases, f"{variant}-{seed}")
            if (folder / "base.pt").exists():
                rows.append({"variant": variant, "seed": seed, "steps": steps, "base": load(
                    args.bases, variant, seed)[2], **{r["measure"]: r["value"] for r in read_csv(
                        folder / "measures.csv") if r["measure"] in PROBES}})
    if args.csv:
        write_csv(args.csv, COLUMNS, rows)

if __name__ == "__main__":
    main()
