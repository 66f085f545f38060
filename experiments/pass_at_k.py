"""Experiment 1: pass@k by order, k = 1 to 256, and where left to right overtakes.

    python experiments/pass_at_k.py --figure assets/trap/pass_at_k.png

From the committed rows: seconds. Without them (--csv another.csv): about an hour on one core, most
of it for random order, of which little is shared; and 4 minutes for each base that is missing."""
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from eval_gsm8k import bootstrap
from experiments.rows import (FOUR, LTR, RANDOM, TABLE_KS, Cell, crossing, curve, ks_of, lead,
                              panels, plain, run, save, short, signed, solved, value)
from experiments.tables import pick
from sample import Decoder

# exploratory: the first commit at T=.9 and the rest at .6 in arXiv 2609.34509; all at .6 here.
OTHERS = [Decoder(order, temperature=0.6) for order in ("margin", "entropy", "exploratory")]
FORK = Decoder("top_probability", "fork", 0.9, temperature=0.6)
ARMS = [*FOUR, *OTHERS, FORK, RANDOM]

def cells(seeds):
    return [Cell("default", seed, decoder) for decoder in ARMS for seed in seeds]

def table(rows, seeds):
    """pass@1, 8, 64, 256 and the crossing with left to right, by order and seed."""
    last, out = ks_of(rows)[-1], []
    ks = ks_of(rows, TABLE_KS)
    for decoder in ARMS:
        for seed in seeds:
            ltr, row = (pick(rows, arm=d, seed=seed) for d in (LTR, decoder))
            over, low, high = crossing(ltr, row, ks_of(rows))
            out.append([short(decoder), seed, *(plain(*bootstrap(solved(row, k))) for k in ks),
                        *(["", ""] if row is ltr else
                          [f"{over:g} [{low:g}, {high:g}]", signed(*lead(ltr, row, last))]),
                        *(f"{value(row, m):.3f}" for m in ("non_top_commits", "bypass_fork",
                                                           "entropy_fork", "early_end"))])
    return ["order", "seed", *(f"pass@{k}" for k in ks), "left to right is ahead from k",
            f"its lead at {last}", "non-top commits", "forks bypassed", "entropy at forks",
            "length first"], out

TABLES = [table]

def draw(rows, seeds, path):
    figure, axes = panels(len(seeds), n_rows=2, x="k", y="pass@k")
    for row, arms in zip(axes, ([*FOUR, RANDOM], [LTR, *OTHERS, FORK])):
        for axis, seed in zip(row, seeds):
            for decoder in arms:
                mine = pick(rows, arm=decoder, seed=seed)
                curve(axis, mine, short(decoder), ARMS.index(decoder))
            axis.set_title(f"seed {seed}")
        row[0].legend(fontsize=7, loc="lower right")
    save(figure, path)

if __name__ == "__main__":
    run("pass_at_k", "pass@k by order.", cells, TABLES, draw)
