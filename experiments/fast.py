"""RL experiment 7: fast. A quarter of the positions: the least certain ones, any, or all?

    python experiments/fast.py --figure assets/rl/fast.png

From the committed rows: seconds. Without them: half an hour on one core, and the bases.

JustGRPO-Fast trains on the quarter of tokens that had the highest entropy in the rollouts. What of
them are forks, where the text goes on or jumps to the answer?"""
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from experiments import rl
from experiments.curves import DECODERS, along
from experiments.rl import Run, each
from experiments.rows import STYLES, panels, save

KINDS = {"all": "", "top quarter by entropy": "--positions top_entropy",
         "a random quarter": "--positions random",
         "top tenth by entropy": "--positions top_entropy --fraction .1",
         "a random tenth": "--positions random --fraction .1"}

def of_kind(kind, seed):
    return Run("justgrpo", seed, KINDS[kind])

def runs(seeds):
    return [of_kind(kind, seed) for kind in KINDS for seed in seeds]

def table(rows, seeds):
    out = []
    for name in KINDS:
        mine = [rl.of(rows, of_kind(name, seed)) for seed in seeds]
        for at in range(1, len(mine[0])):
            out.append([name, mine[0][at]["step"], *(each(one[at][d] for one in mine)
                                                     for d in rl.GREEDY),
                        *(f"{along(mine, c, name)[at]:,.0f}" for c in ("seconds", "states")),
                        *(each((one[at][c] for one in mine), "{:.2f}")
                          for c in ("forks_trained", "forks"))])
    return ["trained on", "step", *rl.GREEDY, "seconds", "states run", "forks among them so far",
            "among all"], out

TABLES = [table]

def draw(rows, seeds, path):
    figure, axes = panels(len(DECODERS), n_rows=2, width=3.4, height=2.8)
    for line, x, label in zip(axes, ("seconds", "states"), ("seconds", "distinct states run")):
        for axis, decoder in zip(line, DECODERS):
            for i, name in enumerate(KINDS):
                mine = [rl.of(rows, of_kind(name, seed)) for seed in seeds]
                axis.plot(*(along(mine, column, name) for column in (x, decoder)),
                          label=name, linewidth=1.1, markersize=4, **STYLES[i])
            axis.set_title(f"greedy, {decoder}", fontsize=9)
            axis.set_xlabel(label)
        line[0].set_ylabel("accuracy, mean of seeds")
    axes[0][0].legend(fontsize=6)
    save(figure, path)

if __name__ == "__main__":
    rl.run("fast", "JustGRPO on some of the positions.", runs, TABLES, draw)
