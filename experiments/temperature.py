"""Experiment 4: is it the temperature? Each order at its own best T, for every k.

    python experiments/temperature.py --figure assets/trap/temperature.png

From the committed rows: seconds. Without them: 50 minutes on one core, and the bases.

The best T of an order at a k is chosen on the first half of the problems and reported on the other
half, so that no order gains by having more to choose from. The figure has the same rows against the
rate of non-top commits, too (rebuttal.py makes these rates equal)."""
import sys
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from eval_gsm8k import bootstrap
from experiments.rows import (FOUR, LTR, TABLE_KS, Cell, curve, ks_of, line, panels, plain, rate,
                              run, save, short, signed, solved)
from experiments.tables import pick

TEMPERATURES = 0.3, 0.6, 1.0, 1.2, 1.5

def cells(seeds):
    return [Cell("default", seed, replace(decoder, temperature=t)) for seed in seeds
            for decoder in FOUR for t in TEMPERATURES]

def best(rows, decoder, seed, k):
    """-> the T that is best on the first half of the problems; pass@k of the others at it."""
    by_t = {t: solved(pick(rows, arm=decoder, seed=seed, temperature=t), k) for t in TEMPERATURES}
    half = len(by_t[TEMPERATURES[0]]) // 2
    t = max(TEMPERATURES, key=lambda t: (by_t[t][:half].mean(), -abs(t - 0.6)))     # ties: near .6
    return t, by_t[t][half:]

def table(rows, seeds):
    """pass@k of each order at its best T (on held-out problems), and left to right's lead."""
    out, ks = [], ks_of(rows, TABLE_KS)
    for decoder in FOUR:
        for seed in seeds:
            found = [(best(rows, LTR, seed, k)[1], *best(rows, decoder, seed, k)) for k in ks]
            out.append([short(decoder), seed, *(f"{plain(*bootstrap(x))} at {t}"
                                                     for _, t, x in found),
                        *(signed(*bootstrap(ltr - x)) if decoder != LTR else ""
                          for ltr, _, x in found)])
    return ["order", "seed", *(f"pass@{k} at the best T" for k in ks),
            *(f"left to right's lead, k={k}" for k in ks)], out

TABLES = [table]

def draw(rows, seeds, path):
    figure, axes = panels(len(TEMPERATURES) + 4, width=2.2, height=2.8, n_rows=len(seeds))
    ks = ks_of(rows)
    for row, seed in zip(axes, seeds):
        for i, decoder in enumerate(FOUR):
            for axis, t in zip(row, TEMPERATURES):
                mine = pick(rows, arm=decoder, seed=seed, temperature=t)
                curve(axis, mine, short(decoder), i)
                axis.set_title(f"T = {t}", fontsize=9)
            line(row[-4], ks, [bootstrap(best(rows, decoder, seed, k)[1]) for k in ks],
                 short(decoder), i)
            mine = [pick(rows, arm=decoder, seed=seed, temperature=t) for t in TEMPERATURES]
            many = min(64, ks[-1])
            for axis, k, column in zip(row[-3:], (1, many, many),
                                       ("correct", "correct", "derived")):
                line(axis, [rate(r) for r in mine],
                     [bootstrap(solved(r, k, column)) for r in mine], short(decoder), i)
                what = f"derivations, k = {k}" if column == "derived" else f"k = {k}"
                axis.set_title(f"all T, {what}", fontsize=9)
                axis.set_xlabel("non-top rate")
        row[-4].set_title("each at its best T", fontsize=9)
        row[0].set_ylabel(f"pass@k, seed {seed}")
        row[-4].set_xscale("log", base=2)
        for axis in row[:-3]:
            axis.set_xlabel("k")
    axes[0][0].legend(fontsize=7, loc="lower right")
    save(figure, path)

if __name__ == "__main__":
    run("temperature", "pass@k by order and temperature.", cells, TABLES, draw)
