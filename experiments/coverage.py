"""Experiment 2: coverage at k = 1,024: which problems does only one order solve?

    python experiments/coverage.py --figure assets/trap/coverage.png

From the committed rows: seconds. Without them: half an hour on one core, and the bases.

On the default task left to right solves nearly every problem within 32 samples, so there is a
harder one (`hard` in bases.py: 8 operations, four answers of five given at once), fixed before any
order was tried on it. There are only 13 different answers, and 1,024 guesses hit most of them. So
beside the right answers stand the right *derivations*: texts that write every step, and every one
of them right. A guess is none."""
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from eval_gsm8k import bootstrap
from experiments.rows import (FOUR, LTR, Cell, curve, holm, mcnemar, panels, plain, run, save,
                              short, solved)
from experiments.tables import pick

VARIANTS = {"hard": "8 operations, .8 at once", "default": "default"}
WHAT = {"correct": "right answer", "derived": "right derivation"}

def cells(seeds):
    return [Cell(variant, seed, decoder, 1024) for variant in VARIANTS for seed in seeds
            for decoder in FOUR]

def table(rows, seeds):
    """Problems of 200 that only left to right solves, that only the other does; exact McNemar,
    corrected by Holm over all rows of this table."""
    n, out, p_values = int(rows[0]["n_samples"]), [], []
    for variant, title in VARIANTS.items():
        for column, what in WHAT.items():
            for decoder in FOUR[1:]:
                for seed in seeds:
                    ltr, row = (pick(rows, variant=variant, arm=d, seed=seed)
                                for d in (LTR, decoder))
                    only_ltr, only_other, p = mcnemar(ltr, row, column)
                    p_values.append(p)
                    out.append([title, what, short(decoder), seed, only_ltr, only_other, *(
                        plain(*bootstrap(solved(r, n, column))) for r in (ltr, row))])
    for row, p in zip(out, holm(p_values)):
        row.append(f"{p:.1g}")
    return ["task", "solved by", "order", "seed", "only left to right", "only this order",
            f"left to right, pass@{n}", "this order", "p (McNemar, Holm)"], out

TABLES = [table]

def draw(rows, seeds, path):
    figure, axes = panels(len(seeds), n_rows=2, x="k",
                          y=[f"{what} within k" for what in WHAT.values()])
    for row, column in zip(axes, WHAT):
        for axis, seed in zip(row, seeds):
            for i, decoder in enumerate(FOUR):
                mine = pick(rows, variant="hard", arm=decoder, seed=seed)
                curve(axis, mine, short(decoder), i, column)
            axis.set_title(f"harder task, seed {seed}")
    axes[0][0].legend(fontsize=7)
    save(figure, path)

if __name__ == "__main__":
    run("coverage", "Coverage at k = 1,024.", cells, TABLES, draw)
