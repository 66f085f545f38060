"""RL experiment 4: is nothing lost? Accuracy against evaluations, before and after each arm.

    python experiments/frontier.py --figure assets/rl/frontier.png

From the committed rows: seconds. Without them: an hour on one core, and the runs of curves.py."""
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
from eval_gsm8k import bootstrap, evaluate
from experiments import trained
from experiments.curves import IN_BLOCKS, style
from experiments.rl import bits, from_bits
from experiments.rows import STYLES, panels, plain, save
from experiments.tables import pick
from grpo import ARMS
from sample import Decoder

VALUES = {"k": (1, 2, 3, 4, 6), "threshold": (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99),
          "entropy_bound": (0.01, 0.03, 0.1, 0.3, 1.0), "factor": (0.1, 0.3, 1.0, 2.0, 4.0),
          "fork": (0.5, 0.6, 0.7, 0.8, 0.9, 0.95)}
DECODERS = {str(d): d for d in [Decoder(), Decoder("confidence", block_length=8), *(
    Decoder("top_probability", name, value) for name, values in VALUES.items()
    for value in values)]}
LTR, LCR, THRESHOLD, BOUND = (str(Decoder(*d)) for d in (
    (), ("top_probability",), ("top_probability", "threshold"),
    ("top_probability", "entropy_bound")))      # greedy, top_probability is confidence
COLUMNS = ["seed", "model", "decoder", "nfe", "tokens_per_evaluation", "n_problems", "correct"]

def how(args, cell):
    model, task = trained.load(args, cell["model"], cell["seed"])
    problems = task.held_out("test", 16 if args.quick else 400)
    result = evaluate(model, task, problems, DECODERS[cell["decoder"]])
    tokens, nfe = (part.sum() for part in result["measures"]["tokens_per_evaluation"])
    return {"nfe": round(result["nfe"], 3), "tokens_per_evaluation": round(tokens / nfe, 3),
            "n_problems": len(problems), "correct": bits(result["correct"][:, 0])}

def correct(row):       # (Q,) of 0/1
    return from_bits(row["correct"])

def gain(rows, seed, model, decoder, than=trained.BASE):
    """Of this model over another, on each problem: (Q,)."""
    one, other = (correct(pick(rows, seed=seed, model=m, decoder=decoder)) for m in (model, than))
    return one - other

def table(rows, seeds):
    out = []
    for model in trained.MODELS:
        for seed in seeds:
            line = [model, seed]
            for decoder in (LTR, LCR, THRESHOLD, BOUND):
                row = pick(rows, seed=seed, model=model, decoder=decoder)
                line += [plain(*bootstrap(correct(row))), f"{float(row['nfe']):.1f}",
                         row["tokens_per_evaluation"]]
            out.append(line)
    names = "left to right", "LCR", "threshold .9", "entropy bound .1"
    return ["model", "seed", *(n + what for n in names for what in ("", ", NFE", ", tokens/NFE"))
            ], out

def best_within(rows, seed, model, nfe):        # the best decoder that takes no more evaluations
    mine = [r for r in rows if r["model"] == model and int(r["seed"]) == seed
            and float(r["nfe"]) <= nfe and r["decoder"] != LTR]
    return max(mine, key=lambda r: correct(r).mean(), default=None)

BUDGETS = 3, 4, 5, 6, 8, 12, 22

def budget_table(rows, seeds):
    """The best of all decoders on these problems, within so many evaluations a text."""
    out = []
    for model in trained.MODELS:
        for seed in seeds:
            found = [best_within(rows, seed, model, nfe) for nfe in BUDGETS]
            out.append([model, seed, *(f"{correct(r).mean():.3f}" if r else "none"
                                       for r in found)])
    return ["model", "seed", *(f"NFE <= {n}" for n in BUDGETS)], out

TABLES = [table, budget_table]

def draw(rows, seeds, path):
    """Above, rollouts in one block; below, in blocks of 8. The base and justgrpo in both."""
    groups = [trained.LONGER, *list(ARMS)[1:]], ["rejection", *IN_BLOCKS]
    figure, axes = panels(len(seeds), n_rows=2, width=4.4, height=3.4, y="greedy accuracy",
                          x="forward evaluations a text")
    for column, seed in zip(zip(*axes), seeds):
        for axis, group in zip(column, ([trained.BASE, "justgrpo", *g] for g in groups)):
            for model in group:
                mine = sorted((float(r["nfe"]), correct(r).mean()) for r in rows
                              if r["model"] == model and int(r["seed"]) == seed
                              and r["decoder"].startswith("top_prob"))
                x, y = zip(*mine)
                axis.plot(x, np.maximum.accumulate(y), label=model, linewidth=1.1, markersize=2.5,
                          **STYLES[style(model)])
            axis.set_title(f"the best of all parallel decoders, seed {seed}", fontsize=8)
    for row in axes:
        row[0].legend(fontsize=6)
    save(figure, path)

if __name__ == "__main__":
    trained.run("frontier", "Accuracy against evaluations, before and after each arm.", COLUMNS,
                how, TABLES, draw, decoder=DECODERS)
