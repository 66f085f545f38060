"""RL experiment 6b: when JustGRPO fails, from too weak a base.

    python experiments/edge.py --figure assets/rl/edge.png

From the committed rows: seconds. Without them: three hours on one core, and the bases.

How long the base was trained, and how often its texts jump to the answer. The calculation: a step
is written right with probability a; an answer is right with probability h_0 in the head and h_6
after six steps. Writing them all earns a^6 h_6, jumping h_0. So it should pay, and be learned, only
from a > (h_0 / h_6)^(1/6)."""
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
from eval_gsm8k import print_table, read_csv
from experiments import bases, rl
from experiments.rl import Run, each
from experiments.rows import panels, save
from experiments.tables import pick

DIRECT, STEPS = (25, 50, 65, 80), (350, 500, 700, 1300)
AFTER = ["left_to_right", "confidence", "threshold", "all_steps", "no_steps", "reward"]
COLUMNS = ["direct", "steps", "seed", "base", "a", "h_0", "h_6", "right_all", "right_some",
           "right_none", *(f"{name}_{when}" for when in ("before", "after") for name in AFTER)]

def variant(direct, steps):
    if steps == 1300:
        return "default" if direct == 65 else f"direct-{direct}"
    return "early" if (direct, steps) == (65, 500) else f"edge-{direct}-{steps}"

def how(args):
    def measure(cell):
        name = variant(cell["direct"], cell["steps"])
        first, *_, last = rl.train_run(args.bases, args.runs, Run(
            "justgrpo", cell["seed"], "", name, watched=(0, 60)), args.quick)
        path = bases.checkpoint(args.bases, name, cell["seed"], args.quick)
        probe = {r["measure"]: float(r["value"]) for r in read_csv(path.parent / "measures.csv")
                 if r["measure"] in bases.PROBES}
        return {"base": first["base"], "h_0": probe["answer_in_head_0"],
                "a": round(np.mean([probe[f"next_value_{s}"] for s in range(6)]), 4),
                "h_6": probe["answer_in_head_6"],
                **{k: first[k] for k in ("right_all", "right_some", "right_none")},
                **{f"{k}_before": first[k] for k in AFTER},
                **{f"{k}_after": last[k] for k in AFTER}}
    return measure

def numbers(row, *names):
    return [float(row[name] or 0) for name in names]

def pays(row):      # the calculation: what all six steps earn, less what a jump does
    a, h_0, h_6 = numbers(row, "a", "h_0", "h_6")
    return a ** 6 * h_6 - h_0

def table(rows, seeds):
    out = []
    for direct in DIRECT:
        for steps in STEPS:
            mine = [pick(rows, direct=direct, steps=steps, seed=s) for s in seeds]
            out.append([f".{direct}", steps, *(each(r[c] for r in mine) for c in (
                "a", "h_0", "h_6")), each(map(pays, mine), "{:+.2f}"),
                *(" / ".join(each((r[f"{c}_{when}"] for r in mine), "{:.2f}")
                             for when in ("before", "after"))
                  for c in ("left_to_right", "threshold", "all_steps", "no_steps"))])
    return ["direct", "steps", "a", "h_0", "h_6", "a^6 h_6 - h_0",
            "left to right before / after", "threshold .9", "every step written", "none"], out

def check(rows, seeds):     # -> of all bases: writing pays or not; RL learned to write or to jump
    found = [(pays(r) > 0, numbers(r, "all_steps_after")[0] > numbers(r, "no_steps_after")[0])
             for r in rows]
    return [[what, sum(f == (p, True) for f in found), sum(f == (p, False) for f in found)]
            for p, what in ((True, "writing pays"), (False, "jumping pays"))]

def check_table(rows, seeds):
    return ["the calculation", "RL wrote", "RL jumped"], check(rows, seeds)

TABLES = [table, check_table]

def draw(rows, seeds, path):
    shown = {"left_to_right": "gain, left to right", "threshold": "gain, threshold .9",
             "all_steps": "share with every step, after"}
    figure, axes = panels(len(shown) + 1, width=3.3, height=3)
    for axis, (name, title) in zip(axes, shown.items()):
        cell = [[np.mean([float(r[f"{name}_after"] or 0)
                          - float(r[f"{name}_before"] or 0) * (name != "all_steps")
                          for s in seeds for r in [pick(rows, direct=d, steps=n, seed=s)]])
                 for d in DIRECT] for n in STEPS]
        axis.imshow(cell, cmap="RdBu", vmin=-1, vmax=1, origin="lower", aspect="auto")
        for y, line in enumerate(cell):
            for x, value in enumerate(line):
                axis.text(x, y, f"{value:.2f}", ha="center", va="center", fontsize=8)
        axis.set_xticks(range(len(DIRECT)), [f".{d}" for d in DIRECT])
        axis.set_yticks(range(len(STEPS)), STEPS)
        axis.set_xlabel("share of direct answers")
        axis.set_title(title, fontsize=9)
    axes[0].set_ylabel("pretraining steps")
    for row in rows:
        axes[-1].plot(pays(row), numbers(row, "all_steps_after")[0], "o", color="black",
                      markersize=4, fillstyle="none")
    axes[-1].axvline(0, color="gray", linewidth=0.6)
    axes[-1].set_xlabel("a^6 h_6 - h_0")
    axes[-1].set_title("share with every step, after", fontsize=9)
    save(figure, path)

def main():
    args = rl.parse_flags("edge", "JustGRPO from bases of all strengths.")
    cells = [dict(direct=d, steps=n, seed=s) for d in DIRECT for n in STEPS for s in args.seeds]
    rows = rl.gather(args, COLUMNS, cells, how(args))
    for one in TABLES:
        print_table(*one(rows, args.seeds))
    if args.figure:
        draw(rows, args.seeds, args.figure)

if __name__ == "__main__":
    main()
