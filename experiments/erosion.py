"""RL experiment 6a: when JustGRPO fails, too long or too fast.

    python experiments/erosion.py --figure assets/rl/erosion.png

From the committed rows: seconds. Without them: an hour on one core, and the bases.

Four learning rates, falling to zero or constant; and, at the highest, Adam's eps at 1e-4 (then
vanishing gradients no longer make steps of full size) and a KL term of .03 against the base.
Watched besides the decoders: P(####) on an empty canvas at the place where full texts have it,
which no rollout from left to right ever asks for; and how far the weights have moved, for a smaller
step moves less in every way."""
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from experiments import rl
from experiments.curves import along, joined
from experiments.rl import Run, each
from experiments.rows import STYLES, panels, save

RATES = "2e-5", "5e-5", "2e-4", "4e-4"
WAYS = {"falling": ("", RATES), "constant": ("--grpo-schedule constant", RATES),
        "constant, eps 1e-4": ("--grpo-schedule constant --adam-eps 1e-4", ("4e-4",)),
        "constant, KL .03": ("--grpo-schedule constant kl=.03", ("4e-4",))}
PARALLEL = "threshold", "entropy_bound"

def one(rate, way, seed):
    rate = f"--grpo-lr {rate}" * (rate != "5e-5")       # which is train.py's: a run of curves.py
    return Run("justgrpo", seed, joined(rate, WAYS[way][0]))

def runs(seeds):
    return [one(rate, way, seed) for way, (_, rates) in WAYS.items() for rate in rates
            for seed in seeds]

def table(rows, seeds):
    """The last step; and the best that a parallel decoder ever was."""
    out = []
    for way, (_, rates) in WAYS.items():
        for rate in rates:
            mine = [rl.of(rows, one(rate, way, seed)) for seed in seeds]
            out.append([way, rate, *(each(r[-1][d] for r in mine) for d in rl.GREEDY),
                        *(each(max(float(x[d]) for x in r) for r in mine)
                          for d in PARALLEL),
                        *(each((r[-1][f"nfe_{d}"] for r in mine), "{:.1f}") for d in PARALLEL),
                        *(each((r[at]["far_hash"] for r in mine), "{:.2f}") for at in (0, -1)),
                        each((r[-1]["moved"] for r in mine), "{:.1f}")])
    return ["schedule", "rate", *rl.GREEDY, *(f"{d}{what}" for what in (" at best", ", NFE")
                                               for d in PARALLEL),
            "P(#### far) before", "after", "distance moved"], out

TABLES = [table]

def draw(rows, seeds, path):
    """Means of the seeds."""
    shown = ["left_to_right", "confidence", "threshold", "entropy_bound", "far_hash"]
    figure, axes = panels(len(shown), n_rows=len(WAYS), width=2.6, height=2.2, x="step",
                          fontsize=8)
    for line, way in zip(axes, WAYS):
        for axis, column in zip(line, shown):
            for i, rate in enumerate(RATES):
                if rate not in WAYS[way][1]:
                    continue
                mine = [rl.of(rows, one(rate, way, seed)) for seed in seeds]
                axis.plot(*(along(mine, c, way) for c in ("step", column)), label=rate,
                          linewidth=1, markersize=2.5, **STYLES[i])
            axis.set_title(f"{column}; {way}", fontsize=7)
            axis.set_ylim(-0.03, 1.03)
        line[0].set_ylabel("mean of seeds", fontsize=7)
    axes[0][0].legend(fontsize=5)
    save(figure, path)

if __name__ == "__main__":
    rl.run("erosion", "JustGRPO, too long or too fast.", runs, TABLES, draw)
