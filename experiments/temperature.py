"""Experiment 4: is it the temperature? Each order at its own best T, for every k.

    python experiments/temperature.py --figure assets/trap/temperature.png

From the committed rows: seconds. Without them: 40 minutes on one core, and the bases.

The best T of an order at a k is chosen on the first half of the problems and reported on the other
half, so that no order gains by having more to choose from."""
import sys
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from eval_gsm8k import bootstrap
from experiments.rows import (BLOCKS, LCR, LTR, TPP, Cell, ks_of, line, panels, pick, plain, run,
                              save, short, signed, solved)

TEMPERATURES = 0.3, 0.6, 1.0, 1.2, 1.5
ARMS = [LTR, LCR, BLOCKS, TPP]

def cells(seeds):
    return [Cell("default", seed, replace(decoder, temperature=t)) for seed in seeds
            for decoder in ARMS for t in TEMPERATURES]

def best(rows, decoder, seed, k):
    """-> the T that is best on the first half of the problems; pass@k of the others at it."""
    by_t = {t: solved(pick(rows, arm=decoder, seed=seed, temperature=t), k) for t in TEMPERATURES}
    half = len(by_t[TEMPERATURES[0]]) // 2
    t = max(TEMPERATURES, key=lambda t: by_t[t][:half].mean())      # ties: the lowest
    return t, by_t[t][half:]

def table(rows, seeds):
    """pass@k of each order at its best T (on held-out problems), and left to right's lead."""
    out, ks = [], ks_of(rows, (1, 8, 64, 256))
    for decoder in ARMS:
        for seed in seeds:
            found = [(best(rows, LTR, seed, k)[1], *best(rows, decoder, seed, k)) for k in ks]
            out.append([short(str(decoder)), seed, *(f"{plain(*bootstrap(x))} at {t}"
                                                     for _, t, x in found),
                        *(signed(*bootstrap(ltr - x)) if decoder != LTR else ""
                          for ltr, _, x in found)])
    return ["order", "seed", *(f"pass@{k} at the best T" for k in ks),
            *(f"left to right's lead, k={k}" for k in ks)], out

def draw(rows, seeds, path):
    figure, axes = panels(len(TEMPERATURES) + 1, width=3, n_rows=len(seeds))
    axes = axes if len(seeds) > 1 else [axes]
    ks = ks_of(rows)
    for row, seed in zip(axes, seeds):
        for i, decoder in enumerate(ARMS):
            for axis, t in zip(row, TEMPERATURES):
                mine = pick(rows, arm=decoder, seed=seed, temperature=t)
                line(axis, ks, [bootstrap(solved(mine, k)) for k in ks], short(str(decoder)), i)
                axis.set_title(f"T = {t}, seed {seed}")
            line(row[-1], ks, [bootstrap(best(rows, decoder, seed, k)[1]) for k in ks],
                 short(str(decoder)), i)
        row[-1].set_title("each at its best T")
        row[0].set_ylabel("pass@k")
        for axis in row:
            axis.set_xscale("log", base=2)
            axis.set_xlabel("k")
    axes[0][0].legend(fontsize=7, loc="lower right")
    save(figure, path)

def main(argv=None):
    run("temperature", "pass@k by order and temperature.", argv, cells,
        [table], draw)

if __name__ == "__main__":
    main()
