"""RL experiment 3: how much freedom is too much? Accuracy after RL by the rollouts' block length.

    python experiments/freedom.py --figure assets/rl/freedom.png

From the committed rows: seconds. Without them: two hours on one core, and the bases.

Arm `confidence` in blocks of 1 (which is left to right: justgrpo), 2, 4, 8, 16, and one block of
all 22 places, three learning rates each, the best chosen as in curves.py. How many of the nine runs
end with .9 or more, on validation problems, tells more: at its best rate nearly all train."""
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from experiments import curves, rl
from experiments.curves import DECODERS, RATES, joined, lr
from experiments.rl import Run, each
from experiments.rows import STYLES, panels, save

BLOCK_LENGTHS = 1, 2, 4, 8, 16, 22

def of_length(length, seed, rate=""):
    if length == 1:
        return Run("justgrpo", seed, rate, watched=rl.ENDS)
    block = f"--rollout-block-length {length}" * (length < 22)
    return Run("confidence", seed, joined(rate, block), watched=rl.ENDS)

def runs(seeds):
    return [of_length(length, seed, rate) for rate in RATES for length in BLOCK_LENGTHS
            for seed in seeds]

def table(rows, seeds):
    out = []
    for length in BLOCK_LENGTHS:
        rate = curves.best(rows, length, seeds, of_length)
        first = [rl.of(rows, of_length(length, seed))[0] for seed in seeds]
        mine = curves.last(rows, length, rate, seeds, of_length)
        out.append([length, lr(rate), curves.trained_well(rows, length, seeds, of_length),
                    *(each(r[d] for r in mine) for d in DECODERS),
                    *(each((r[c] for r in rows_), "{:.2f}") for rows_, c in (
                        (first, "reward"), (first, "all_steps"), (mine, "reward"),
                        (mine, "all_steps")))])
    return ["block length", "best rate", "runs with .9", *DECODERS, "reward before",
            "every step before", "reward", "every step"], out

TABLES = [table]

def draw(rows, seeds, path):
    figure, axes = panels(len(RATES), width=3.4, height=3, x="block length of the rollouts",
                          y="greedy accuracy after RL,\nmean of three decoders")
    for axis, rate in zip(axes, RATES):
        for i, seed in enumerate(seeds):
            y = [curves.mean(rl.of(rows, of_length(length, seed, rate))[-1])
                 for length in BLOCK_LENGTHS]
            axis.plot(range(len(y)), y, label=f"base {seed}", markersize=4, **STYLES[i])
            before = curves.mean(rl.of(rows, of_length(1, seed))[0])
            axis.axhline(before, color=STYLES[i]["color"], linewidth=0.6, linestyle=":")
        axis.set_xticks(range(len(BLOCK_LENGTHS)), BLOCK_LENGTHS)
        axis.set_title(f"learning rate {lr(rate)}; dotted: before", fontsize=8)
    axes[0].legend(fontsize=7)
    save(figure, path)

if __name__ == "__main__":
    rl.run("freedom", "RL by the block length of LCR's rollouts.", runs, TABLES, draw)
