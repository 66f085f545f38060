"""Experiment 3: how much freedom? pass@k against the block length, 1 to the whole completion.

    python experiments/block_length.py --figure assets/trap/block_length.png

From the committed rows: seconds. Without them: ten minutes on one core, and the bases. Blocks of 1
are left to right; one block is the whole completion, 22 tokens."""
import sys
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from eval_gsm8k import bootstrap
from experiments.rows import (LCR, TABLE_KS, TPP, Cell, ks_of, line, panels, plain, run, save,
                              short, solved, spearman)
from experiments.tables import pick

BLOCK_LENGTHS = 1, 2, 4, 8, 16, None

def arm(order, block_length):
    return replace(order, block_length=block_length)

def cells(seeds):
    return [Cell("default", seed, arm(order, b)) for seed in seeds for order in (LCR, TPP)
            for b in BLOCK_LENGTHS]

def table(rows, seeds):
    """pass@k by block length, and its rank correlation with the block length, by seed."""
    out = []
    for order in (LCR, TPP):
        for k in ks_of(rows, TABLE_KS):
            for seed in seeds:
                mine = [solved(pick(rows, arm=arm(order, b), seed=seed), k) for b in BLOCK_LENGTHS]
                means = [float(x.mean()) for x in mine]
                out.append([short(order.order), k, seed, *(plain(*bootstrap(x)) for x in mine),
                            f"{spearman(range(len(means)), means):+.2f}"])
    return ["order", "k", "seed", *(f"B={b or 'all'}" for b in BLOCK_LENGTHS), "Spearman"], out

TABLES = [table]

def draw(rows, seeds, path):
    figure, axes = panels(len(seeds), n_rows=2, x="block length", y="pass@k")
    for row, order in zip(axes, (LCR, TPP)):
        for axis, seed in zip(row, seeds):
            for i, k in enumerate(ks_of(rows, TABLE_KS)):
                mine = [pick(rows, arm=arm(order, b), seed=seed) for b in BLOCK_LENGTHS]
                line(axis, range(6), [bootstrap(solved(r, k)) for r in mine], f"k = {k}", i)
            axis.set_xticks(range(6), [str(b or "22") for b in BLOCK_LENGTHS])
            axis.set_title(f"{short(order.order)}, seed {seed}")
    axes[0][0].legend(fontsize=7)
    save(figure, path)

if __name__ == "__main__":
    run("block_length", "pass@k against the block length.", cells, TABLES, draw)
