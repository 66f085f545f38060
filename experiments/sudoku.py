"""Experiment 8: where freedom should win: 4x4 Sudoku, adaptive order against left to right.

    python experiments/sudoku.py --figure assets/trap/sudoku.png

From the committed rows: seconds. Without them: half an hour on one core, and the bases.
The same network, pretraining (1,300 steps), sampler and measures; another task. In arXiv 2502.06768
choosing the surest cell takes Sudoku (9x9) from under 7 % to about 90 %. The 200 puzzles have some
25 different grids: intervals are over grids."""
import functools
import sys
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from eval_gsm8k import bootstrap
from experiments.puzzle import Sudoku
from experiments.rows import (LCR, LTR, RANDOM, TABLE_KS, TPP, Cell, curve, panels, plain, run,
                              save, short, signed, solved)
from experiments.tables import pick

ARMS = [LTR, LCR, replace(LCR, block_length=4), TPP, replace(TPP, order="margin"),
        replace(TPP, order="entropy"), RANDOM]

@functools.cache
def grids(n):       # of the first n puzzles
    return [p["answer"] for p in Sudoku().held_out("test", n)]

def by_grid(values):
    """The mean over puzzles, as bootstrap()'s, but resampled by grid: puzzles of one grid, which
    have one solution, are no independent problems."""
    groups = {}
    for grid, value in zip(grids(len(values)), values):
        groups.setdefault(grid, []).append(value)
    return bootstrap([sum(g) for g in groups.values()], [len(g) for g in groups.values()])

def cells(seeds):
    return [Cell("sudoku", seed, replace(decoder, temperature=t), n) for seed in seeds
            for t, n in ((0.0, 1), (0.6, 256)) for decoder in ARMS]

def table(rows, seeds):
    """Greedy accuracy and pass@k, and by how much left to right is ahead (paired)."""
    out, most = [], max(int(r["n_samples"]) for r in rows)
    columns = [(0.0, 1), *((0.6, k) for k in TABLE_KS if k <= most)]
    for decoder in ARMS:
        for seed in seeds:
            pairs = [[solved(pick(rows, arm=d, seed=seed, temperature=t), k)
                      for d in (LTR, decoder)] for t, k in columns]
            out.append([short(decoder), seed, *(plain(*by_grid(x)) for _, x in pairs),
                        *("" if decoder == LTR else signed(*by_grid(ltr - x)) for ltr, x in pairs)])
    names = ["greedy" if t == 0 else f"pass@{k}" for t, k in columns]
    return ["order", "seed", *names, *(f"left to right's lead, {name}" for name in names)], out

TABLES = [table]

def draw(rows, seeds, path):
    figure, axes = panels(len(seeds), x="k", y="pass@k")
    for axis, seed in zip(axes, seeds):
        for i, decoder in enumerate(ARMS):
            mine = pick(rows, arm=decoder, seed=seed, temperature=0.6)
            curve(axis, mine, short(decoder), i, mean=by_grid)
        axis.set_title(f"4x4 Sudoku, T = 0.6, seed {seed}", fontsize=9)
    axes[0].legend(fontsize=7, loc="lower right")
    save(figure, path)

if __name__ == "__main__":
    run("sudoku", "4x4 Sudoku, by order.", cells, TABLES, draw)
