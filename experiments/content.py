"""RL experiment 2: where the arms go, and why. What do their rollouts contain?

    python experiments/content.py --figure assets/rl/content.png

From the committed rows, curves.py's and a few more: seconds. Without them: two hours on one core.

A policy gradient makes likelier what is right more often than the rest. So, before any training,
the rollouts say where an arm will go: it learns to write steps only if it writes some, and if the
texts that have them are right more often. The push to write is the covariance of "every step is
written" and the reward: share of such texts x (their reward - the mean reward). To see whether an
arm that writes none is stuck or slow, six arms are given three times as many steps; and to see
whether it lacks exploration, LCR's rollouts are drawn at higher temperatures, too."""
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
from experiments import curves, rl
from experiments.curves import CONTENDERS, contender
from experiments.rl import Run, each
from experiments.rows import panels, save, spearman

# One arm for each way to roll out.
ORDERS = {"left to right": "justgrpo", "LCR, one block": "confidence",
          "LCR, blocks of 8": "confidence, blocks of 8", "TPP, one block": "top_probability",
          "TPP with fork selection": "fork", "random": "random"}

LONG = "confidence", "confidence_exact", "one_step", "elbo", "mismatch", "fork"

def long(arm, seed):
    return Run(arm, seed, "--grpo-steps 180", watched=(0, 20, 60, 100, 140, 180))

HOT = {f"{arm} at T {t}": (arm, f"--rollout-temperature {t}")
       for arm in ("confidence", "confidence_exact") for t in (1.5, 2.0)}

def hot(name, seed):
    arm, options = HOT[name]
    return Run(arm, seed, options)

def runs(seeds):
    return curves.runs(seeds) + [f(name, seed) for f, names in ((long, LONG), (hot, HOT))
                                 for name in names for seed in seeds]

def number(row, column):        # a share of nothing is nothing
    return float(row[column] or 0)

def push(row):
    return number(row, "all_steps") * (number(row, "right_all") - number(row, "reward"))

def base_table(rows, seeds):
    """What rollouts at T=1 contain before training: share of texts, and how many are right."""
    out = []
    for order, name in ORDERS.items():
        for seed in seeds:
            row = rl.of(rows, contender(name, seed))[0]
            out.append([order, seed, *(f"{float(row[share]):.2f}" + (
                f" ({float(row[right]):.2f})" if row[right] else "") for share, right in (
                ("all_steps", "right_all"), ("some_steps", "right_some"),
                ("no_steps", "right_none"))), f"{float(row['reward']):.3f}",
                f"{float(row['signal']):.2f}", f"{push(row):+.4f}"])
    return ["rollouts", "seed", "every step (right)", "some", "none", "reward", "signal",
            "push to write"], out

def end_table(rows, seeds):
    """The same after training, at each arm's best rate."""
    out = []
    for name in CONTENDERS:
        mine = curves.last(rows, name, curves.best(rows, name, seeds), seeds)
        out.append([name, *(each((r[c] for r in mine), "{:.2f}") for c in (
            "all_steps", "right_all", "no_steps", "right_none", "reward", "signal", "length",
            "entropy_fork"))])
    return ["arm", "every step", "right", "none", "right", "reward", "signal", "length",
            "entropy at forks"], out

def predicted(rows, seeds):     # of every arm with its own likelihood: push before, steps after
    pairs = []
    for name in CONTENDERS:
        for seed in seeds:
            one = rl.of(rows, contender(name, seed))
            pairs.append((push(one[0]), number(one[-1], "all_steps")))
    return pairs

def push_table(rows, seeds):
    """Does the push before training say who writes every step after it? Rank correlation."""
    x, y = zip(*predicted(rows, seeds))
    return ["runs", "rank correlation of the push and the share of full texts at the end"], [
        [len(x), f"{spearman(x, y):.2f}"]]

def long_table(rows, seeds):
    """180 steps at train.py's rate: every step written, and greedy accuracy, after 60 and at the
    end."""
    out = []
    for arm in LONG:
        mine = [rl.of(rows, long(arm, seed)) for seed in seeds]
        out.append([arm, *(each((one[at][c] for one in mine), "{:.2f}")
                           for c in ("all_steps", "left_to_right", "confidence", "threshold")
                           for at in (2, -1))])
    return ["arm", *(f"{c} after {n}" for c in ("every step", "left to right", "LCR", "threshold")
                     for n in (60, 180))], out

def hot_table(rows, seeds):
    out = []
    for name in HOT:
        mine = [rl.of(rows, hot(name, seed)) for seed in seeds]
        out.append([name, *(each((one[at][c] for one in mine), "{:.2f}")
                            for c in ("all_steps", "right_all", "no_steps", "right_none")
                            for at in (0, -1)),
                    *(each(one[-1][d] for one in mine) for d in curves.DECODERS)])
    return ["rollouts", *(f"{c} {when}" for c in ("every step", "right", "none", "right")
                          for when in ("before", "after")), *curves.DECODERS], out

TABLES = [base_table, end_table, push_table, long_table, hot_table]

def draw(rows, seeds, path):
    """train.py's learning rate. Solid: every step is written; dashed: none."""
    figure, axes = panels(5, n_rows=-(-len(CONTENDERS) // 5), width=2.6, height=2.2)
    for axis, name in zip(np.concatenate(axes), CONTENDERS):
        for seed, color in zip(seeds, ("black", "tab:red", "tab:blue")):
            one = rl.of(rows, contender(name, seed))
            x = [int(r["step"]) for r in one]
            axis.plot(x, [float(r["all_steps"]) for r in one], "-o", color=color, markersize=2,
                      linewidth=1, label=f"seed {seed}: every step")
            axis.plot(x, [float(r["no_steps"]) for r in one], "--s", color=color, markersize=2,
                      linewidth=1, label=f"seed {seed}: none")
        axis.set_title(name, fontsize=8)
        axis.set_ylim(-0.03, 1.03)
    axes[0][0].legend(fontsize=5)
    for axis in axes[-1]:
        axis.set_xlabel("step", fontsize=8)
    for row in axes:
        row[0].set_ylabel("share of rollouts", fontsize=8)
    save(figure, path)

if __name__ == "__main__":
    rl.run("curves", "What the arms' rollouts contain.", runs, TABLES, draw)
