"""RL experiment 9: JustGRPO's knobs, one at a time; and one each of arms one_step and elbo.

    python experiments/knobs.py --figure assets/rl/knobs.png

From the committed rows: seconds. Without them: two hours on one core, and the bases. Every batch
has 128 rollouts, whatever the size of a group."""
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from experiments import rl
from experiments.curves import BLOCKS, joined
from experiments.rl import Run, each, number
from experiments.rows import panels, save

SETTINGS = {
    "plain: 8, T 1, std, token": "",
    "groups of 4": "--prompts 32 --rollouts 4", "groups of 16": "--prompts 8 --rollouts 16",
    "advantage none (Dr. GRPO)": "--advantage none",
    "advantage leave one out (RLOO)": "--advantage leave_one_out",
    "norm sequence (GRPO)": "--loss-norm sequence",
    "norm constant (Dr. GRPO)": "--loss-norm constant",
    "4 updates, clip .2": "--updates-per-batch 4",
    "4 updates, clip .2 to .28": "--updates-per-batch 4 --clip-high .28",
    "4 updates, no clip": "--updates-per-batch 4 --clip-low 1e9 --clip-high 1e9",
    "rollouts at T .6": "--rollout-temperature .6",
    "rollouts at T 1.3": "--rollout-temperature 1.3"}

# d1 masks part of the prompt, which this base has never seen masked; the 1/t of an ELBO has a long
# tail, which coupled-GRPO cuts off; ForkGRPO trains on few steps. Is that why they do as they do?
OTHERS = {f"{arm}, blocks of 8: {what}": (arm, joined(BLOCKS, word)) for arm, what, word in (
    ("one_step", ".15 of the prompt masked", ""), ("one_step", "none masked", "prompt_mask=0"),
    ("one_step", "4 updates of a batch, as d1 has 12", "--updates-per-batch 4"),
    ("fork", "fallback steps only", ""), ("fork", "every commit", "every_commit=1"),
    ("elbo", "t from 0 to 1", ""), ("elbo", "t from .2 to .8", "t_from=.2"))}

def run_of(name, seed):
    arm, options = OTHERS.get(name) or ("justgrpo", SETTINGS[name])
    return Run(arm, seed, options, watched=rl.ENDS)

def runs(seeds):
    return [run_of(name, seed) for name in [*SETTINGS, *OTHERS] for seed in seeds]

def table(rows, seeds):
    out = []
    for name in [*SETTINGS, *OTHERS]:
        mine = [rl.of(rows, run_of(name, seed)) for seed in seeds]
        out.append([name, *(each(one[1][d] for one in mine) for d in ("left_to_right",
                                                                      "confidence")),
                    *(each(one[-1][d] for one in mine) for d in rl.GREEDY),
                    each((one[1]["clipped"] for one in mine), "{:.3f}"),
                    each((number(one[-1], "states") / 1000 for one in mine), "{:.0f}")])
    return ["knob", "left to right at step 5", "confidence at step 5", *rl.GREEDY,
            "clipped at step 5", "states run, thousands"], out

TABLES = [table]

def draw(rows, seeds, path):
    figure, axes = panels(len(rl.GREEDY), width=2.4, height=4)
    for axis, decoder in zip(axes, rl.GREEDY):
        for y, name in enumerate(SETTINGS):
            for seed, marker in zip(seeds, "os^"):
                one = rl.of(rows, run_of(name, seed))
                axis.plot(float(one[-1][decoder]), -y, marker, color="black", markersize=4)
                axis.plot(float(one[1][decoder]), -y, marker, color="gray", markersize=4,
                          fillstyle="none")
        axis.set_title(decoder, fontsize=8)
        axis.grid(axis="y", linewidth=0.3)
    axes[0].set_yticks([-y for y in range(len(SETTINGS))], SETTINGS, fontsize=6)
    axes[0].set_xlabel("greedy accuracy at step 5 (open), 60", fontsize=7)
    save(figure, path)

if __name__ == "__main__":
    rl.run("knobs", "JustGRPO's knobs, one at a time.", runs, TABLES, draw)
