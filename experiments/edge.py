"""RL experiment 6b: when JustGRPO fails, from too weak a base.

    python experiments/edge.py --figure assets/rl/edge.png

From the committed rows: seconds. Without them: two hours on one core, and the bases.

How long the base was trained, and how often its texts jump to the answer. The calculation, with
probabilities at T=1: writing every step costs the chance that a value is wrong, and earns an answer
that follows: write = P(all six values right) x P(answer right after them). Jumping earns what the
head knows: jump = P(answer right at once). RL should learn to write if write > jump. (Mended when
rows of the weakest bases had been seen: an answer after a wrong value is right, too, as often as
a guess is. So write also earns P(not all values right) / 13.)"""
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import torch
from eval_gsm8k import read_csv
from experiments import bases, rl
from experiments.rl import Run, each, number
from experiments.rows import panels, report, save
from experiments.tables import pick
from grpo import log_prob_table

DIRECT, STEPS = (25, 65, 80), (350, 500, 700, 1300)
AFTER = ["left_to_right", "confidence", "threshold", "all_steps", "no_steps", "reward"]
COLUMNS = ["direct", "steps", "seed", "base", "values", "answer", "jump", "next_value",
           *(f"{name}_{when}" for when in ("before", "after") for name in AFTER)]

def variant(direct, steps):
    if steps == 1300:
        return "default" if direct == 65 else f"direct-{direct}"
    return "early" if (direct, steps) == (65, 500) else f"edge-{direct}-{steps}"

def calculate(model, task, n):
    """Of held-out problems: P(all values right, given that each step is begun), P(answer right
    after them), P(answer right at once), means."""
    problems = task.held_out("validation", n)
    prompt = task.prompts([p["question"] for p in problems])
    order = torch.arange(task.completion_length).expand(n, -1)
    full, short = (log_prob_table(model, prompt, task.completions(
        [task.solution(p, steps) for p in problems]), order) for steps in (task.n_steps, 0))
    values = [task.fork_position(s + 1) - 1 for s in range(task.n_steps)]
    return {"values": full[:, values].sum(1), "jump": short[:, 1],
            "answer": full[:, task.fork_position(task.n_steps) + 1]}

def how(args, cell):
    name = variant(cell["direct"], cell["steps"])
    first, *_, last = rl.train_run(args.bases, args.runs, Run(
        "justgrpo", cell["seed"], "", name, watched=(0, 60)), args.quick)
    path = bases.checkpoint(args.bases, name, cell["seed"], args.quick)
    probe = [float(r["value"]) for r in read_csv(path.parent / "measures.csv")
             if r["measure"].startswith("next_value")]
    model, task, _ = bases.load(args.bases, name, cell["seed"], args.quick)
    found = calculate(model, task, 16 if args.quick else 400)
    return {"base": first["base"], "next_value": round(np.mean(probe), 4),
            **{k: round(float(v.exp().mean()), 4) for k, v in found.items()},
            **{f"{k}_before": first[k] for k in AFTER},
            **{f"{k}_after": last[k] for k in AFTER}}

LUCK = 1 / 13       # the toy's answers are 0 to 12

def pays(row, luck=0.0):    # what writing every step earns, less what a jump does
    values, answer, jump = (number(row, name) for name in ("values", "answer", "jump"))
    return values * answer + (1 - values) * luck - jump

def table(rows, seeds):
    out = []
    for direct in DIRECT:
        for steps in STEPS:
            mine = [pick(rows, direct=direct, steps=steps, seed=s) for s in seeds]
            out.append([f".{direct}", steps, *(each(r[c] for r in mine) for c in (
                "next_value", "values", "answer", "jump")),
                *(each((pays(r, luck) for r in mine), "{:+.2f}") for luck in (0, LUCK)),
                *(" / ".join(each((r[f"{c}_{when}"] for r in mine), "{:.2f}")
                             for when in ("before", "after"))
                  for c in ("left_to_right", "threshold", "all_steps", "no_steps"))])
    return ["direct", "steps", "next value right, greedy", "P(all values)", "P(answer) after them",
            "P(answer) at once", "write - jump", "with luck", "left to right before / after",
            "threshold .9", "every step written", "none"], out

def wrote(row):     # after RL, more rollouts have every step than none
    return number(row, "all_steps_after") > number(row, "no_steps_after")

def check(rows, luck=0.0):  # -> of all bases: writing pays or not; RL learned to write or did not
    found = [(pays(r, luck) > 0, wrote(r)) for r in rows]
    return [[what, sum(f == (p, True) for f in found), sum(f == (p, False) for f in found)]
            for p, what in ((True, "writing pays"), (False, "jumping pays"))]

def check_table(rows, seeds):
    return ["the calculation", "RL wrote", "RL did not"], [
        [what + how, *counts] for luck, how in ((0, ""), (LUCK, ", with luck"))
        for what, *counts in check(rows, luck)]

TABLES = [table, check_table]

def draw(rows, seeds, path):
    shown = {"left_to_right": "gain, left to right", "threshold": "gain, threshold .9",
             "all_steps": "share with every step, after"}
    figure, axes = panels(len(shown) + 1, width=3.3, height=3, sharey=False)
    for axis, (name, title) in zip(axes, shown.items()):
        cell = [[np.mean([number(r, f"{name}_after")
                          - number(r, f"{name}_before") * (name != "all_steps")
                          for s in seeds for r in [pick(rows, direct=d, steps=n, seed=s)]])
                 for d in DIRECT] for n in STEPS]
        axis.imshow(cell, cmap="RdBu", vmin=-1, vmax=1, origin="lower", aspect="auto")
        for y, line in enumerate(cell):
            for x, value in enumerate(line):
                axis.text(x, y, f"{value:.2f}", ha="center", va="center", fontsize=8,
                          color="white" if value > 0.6 else "black")
        axis.set_xticks(range(len(DIRECT)), [f".{d}" for d in DIRECT])
        axis.set_yticks(range(len(STEPS)), STEPS)
        axis.set_xlabel("share of direct answers")
        axis.set_title(title, fontsize=9)
    axes[0].set_ylabel("pretraining steps")
    for luck, fill in ((0, "none"), (LUCK, "full")):
        axes[-1].plot([pays(r, luck) for r in rows], [number(r, "all_steps_after") for r in rows],
                      "o", color="black", markersize=4, fillstyle=fill,
                      label="with luck" if luck else "without")
    axes[-1].axvline(0, color="gray", linewidth=0.6)
    axes[-1].legend(fontsize=7)
    axes[-1].set_xlabel("what writing earns - what a jump does")
    axes[-1].set_title("share with every step, after", fontsize=9)
    save(figure, path)

def main():
    args = rl.parse_flags("edge", "JustGRPO from bases of all strengths.")
    cells = [dict(direct=d, steps=n, seed=s) for d in DIRECT for n in STEPS for s in args.seeds]
    report(args, rl.gather(args, COLUMNS, cells, lambda cell: how(args, cell)), TABLES, draw)

if __name__ == "__main__":
    main()
