"""RL experiment 1: learning curves of all arms, three learning rates each.

    python experiments/curves.py --figure assets/rl/curves.png

From the committed rows: seconds. Without them: six hours on one core, and the bases.

Every arm has the same problems, rollouts and steps, and the same three learning rates. The best is
chosen on validation problems: the highest mean accuracy of three greedy decoders, over the seeds,
after the last step. What is shown is measured on test problems."""
import functools
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import train
from eval_gsm8k import read_csv
from experiments import rl
from experiments.rl import Run, each
from experiments.rows import ASSETS, STYLES, panels, save
from grpo import ARMS

RATES = "--grpo-lr 1.5e-5", "", "--grpo-lr 1.5e-4"      # "": train.py's, 5e-5
BLOCKS = "--rollout-block-length 8"
# Published rollouts have blocks: free orders come also in blocks of 8, nearest to 32 of 256.
CONTENDERS = {arm: (arm, "") for arm in ARMS} | {
    f"{arm}, blocks of 8": (arm, BLOCKS)
    for arm, (order, *_) in ARMS.items() if order in ("confidence", "top_probability")}
IN_BLOCKS = [name for name, (_, block) in CONTENDERS.items() if block]
DECODERS = [*train.WATCHED]
BASE, LONGER = "base", "more pretraining"        # what the arms are compared with

def style(name):        # index of a line's style: an arm has the same in blocks; base, longer: last
    return [*ARMS, BASE, LONGER].index(name.split(",")[0])

def joined(*options):
    return " ".join(filter(None, options))

def contender(name, seed, rate=""):
    arm, block = CONTENDERS[name]
    return Run(arm, seed, joined(rate, block))

def runs(seeds):
    return [contender(name, seed, rate) for rate in RATES for name in CONTENDERS for seed in seeds]

def last(rows, name, rate, seeds, make=contender):
    return [rl.of(rows, make(name, seed, rate))[-1] for seed in seeds]

def mean(row, split=""):        # of three greedy decoders; validation_: only after the last step
    return np.mean([float(row[split + d]) for d in DECODERS])

def validation(rows, name, rate, seeds, make=contender):
    return np.mean([mean(r, "validation_") for r in last(rows, name, rate, seeds, make)])

def best(rows, name, seeds, make=contender):    # -> the rate chosen; make(name, seed, rate): a Run
    return max(RATES, key=lambda rate: validation(rows, name, rate, seeds, make))

def at_best(rows, name, seeds):     # the runs of an arm at that rate
    rate = best(rows, name, seeds)
    return [rl.of(rows, contender(name, seed, rate)) for seed in seeds]

def lr(rate):
    return f"{train.parse_flags(rate.split())[1].grpo_lr:g}"

@functools.cache
def timing():
    return read_csv(ASSETS.parent / "rl" / "timing.csv")

def along(mine, column, name):
    """Means over the runs, by step. Seconds are of timing.py, which had the machine to itself (and
    timed the first base alone); but with --quick (two steps are watched) the runs' own."""
    if column == "seconds" and len(mine[0]) > 2:
        mine = [[r for r in timing() if r["arm"] == name]]
    return np.mean([[float(r[column]) for r in one] for one in mine], 0)

def table(rows, seeds):
    """The last step: every arm at every rate, the chosen one marked."""
    out = []
    for name in CONTENDERS:
        chosen = best(rows, name, seeds)
        for rate in RATES:
            mine = last(rows, name, rate, seeds)
            out.append([name, lr(rate) + " *" * (rate == chosen),
                        f"{validation(rows, name, rate, seeds):.3f}",
                        *(each(r[d] for r in mine) for d in rl.GREEDY),
                        *(f"{np.mean([float(r[c]) for r in mine]):,.0f}"
                          for c in ("evaluations", "states"))])
    return ["arm", "learning rate", "validation", *rl.GREEDY, "evaluations", "states run"], out

def n_trained(rows, name, seeds, make=contender):   # runs with .9 or more, of those at all rates
    found = [mean(r, "validation_") for rate in RATES for r in last(rows, name, rate, seeds, make)]
    return sum(value >= 0.9 for value in found), len(found)

def trained_well(*args):        # the same, as "8 of 9"
    return "{} of {}".format(*n_trained(*args))

def when(rows, run, bar=0.9):       # the watched step from which on it stays there, or "never"
    mine = rl.of(rows, run)
    since = 1 + max((i for i, r in enumerate(mine) if mean(r) < bar), default=-1)
    return mine[since]["step"] if since < len(mine) else "never"

def robust_table(rows, seeds):
    """How far an arm depends on the rate and the base: a mean of three greedy decoders of .9 or
    more (on validation problems; the steps, on test problems, when it was there to stay)."""
    return ["arm", "runs with .9", *(f"steps to .9, rate {lr(rate)}, by base" for rate in RATES)], [
        [name, trained_well(rows, name, seeds),
         *("; ".join(when(rows, contender(name, seed, rate)) for seed in seeds)
           for rate in RATES)] for name in CONTENDERS]

TABLES = [table, robust_table]

def draw(rows, seeds, path):
    """At each arm's best rate: means over seeds; the bars are from the least to the most. Above,
    rollouts in one block; below, in blocks of 8, with justgrpo and rejection again."""
    axes_of = {"step": "step", "seconds": "seconds", "evaluations": "forward evaluations, a row "
               "and state", "states": "distinct states run"}
    blocks = ["justgrpo", "rejection", *IN_BLOCKS]
    runs_of = {name: at_best(rows, name, seeds) for name in CONTENDERS}
    figure, axes = panels(len(axes_of), n_rows=2 * len(DECODERS), width=3.6, height=2.6)
    for row, decoder, names in zip(axes, [*DECODERS] * 2, [[*ARMS]] * 3 + [blocks] * 3):
        for axis, (x, label) in zip(row, axes_of.items()):
            for name in names:
                mine = runs_of[name]
                xs = along(mine, x, name)
                xs = xs if x == "step" else np.maximum(xs, xs[1] / 3)       # 0, on a log axis
                ys = np.array([[float(r[decoder]) for r in one] for one in mine])
                axis.errorbar(xs, ys.mean(0), [ys.mean(0) - ys.min(0), ys.max(0) - ys.mean(0)],
                              label=name, markersize=3, linewidth=1.1, elinewidth=0.4,
                              **STYLES[style(name)])
            if x != "step":
                axis.set_xscale("log")
            axis.set_title(f"greedy, {decoder}" + "; rollouts in blocks of 8" * (names is blocks),
                           fontsize=8)
        row[0].set_ylabel("accuracy")
    for axis, label in zip(axes[-1], axes_of.values()):
        axis.set_xlabel(label, fontsize=8)
    axes[0][0].legend(fontsize=5)
    axes[3][0].legend(fontsize=5)
    save(figure, path)

if __name__ == "__main__":
    rl.run("curves", "Learning curves of every arm.", runs, TABLES, draw)
