"""RL experiment 4, second part: is it still a diffusion model?

    python experiments/still.py --figure assets/rl/still.png

From the committed rows: seconds. Without them: half an hour on one core, and curves.py's runs.

On held-out problems, with all steps written: the masked NLL at several mask rates; infilling (the
answer and some steps are given, the others to be filled in: their exact probability, with what is
given at rank -1); greedy decoding in random order; and, of 100 texts, how far apart eight random
orders are in what they give the same text. Also (mix) the NLL of texts as in pretraining, most of
which jump. The changes are against the base, at mask rate .5, paired by problem."""
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import torch
from eval_gsm8k import bootstrap, evaluate
from experiments import trained
from experiments.curves import style
from experiments.rl import each
from experiments.rows import STYLES, panels, save
from experiments.tables import pick
from grpo import log_prob_table
from sample import Decoder

RATES = 0.15, 0.3, 0.5, 0.7, 0.9, 1.0
COLUMNS = ["seed", "model", *(f"nll_{r:g}" for r in RATES), *(f"mix_nll_{r:g}" for r in RATES),
           "infill_logp", "infill_right", "random_order", "left_to_right_logp", "random_logp",
           "order_spread", "n_problems", *(f"{name}_{end}" for name in ("nll_change", "mix_change")
                                           for end in ("value", "low", "high"))]

def masked_nll(model, prompt, text, rate):
    """(n,) nats a masked token, of each text, four maskings each, the same for every model."""
    n, prompt, text = len(text), prompt.repeat(4, 1), text.repeat(4, 1)        # (4n, L)
    hidden = torch.rand(text.shape, generator=torch.Generator().manual_seed(0)) < rate
    table = log_prob_table(model, prompt, text, torch.where(hidden, 0, -1))
    table, hidden = (x.view(4, n, -1).sum((0, 2)) for x in (table, hidden))
    return -table / hidden.clamp(min=1)

def measure(model, task, n, before=None):
    """-> columns; and masked_nll's (n,) at rate .5, by text. before: those of the base."""
    problems = task.held_out("validation", n)
    prompt = task.prompts([p["question"] for p in problems])
    full = task.completions([task.solution(p, task.n_steps) for p in problems])        # (n, L)
    mix = task.completions([p["solution"] for p in problems])
    row, half, L = {"n_problems": n}, {}, full.shape[1]
    for name, change, text in (("nll", "nll_change", full), ("mix_nll", "mix_change", mix)):
        found = {rate: masked_nll(model, prompt, text, rate) for rate in RATES}
        row |= {f"{name}_{rate:g}": float(nll.mean()) for rate, nll in found.items()}
        half[name] = found[0.5]
        if before:
            row |= {f"{change}_{end}": float(v) for end, v in zip(
                ("value", "low", "high"), bootstrap((half[name] - before[name]).numpy()))}
    # Given: the first two steps, the last two, and the answer; to be filled in: two in the middle.
    position = torch.arange(L)
    gap = (position >= task.fork_position(2)) & (position < task.fork_position(4))
    fill = log_prob_table(model, prompt, full, torch.where(gap, position, -1).expand(n, L)).sum(1)
    row |= {"infill_logp": float(fill.mean()), "infill_right": float((fill.exp() > 0.5).float()
                                                                     .mean())}
    row["random_order"] = float(evaluate(model, task, task.held_out("test", n), Decoder("random"))[
        "correct"].mean())
    prompt, full = prompt[:100], full[:100]         # every term of these is a state: 100 will do
    forward = log_prob_table(model, prompt, full, position.expand_as(full)).sum(1)
    prompt, full = prompt.repeat(8, 1), full.repeat(8, 1)
    orders = torch.rand(full.shape, generator=torch.Generator().manual_seed(1)).argsort(1)
    logp = log_prob_table(model, prompt, full, orders).sum(1).view(8, -1)
    return row | {"left_to_right_logp": float(forward.mean()), "random_logp": float(logp.mean()),
                  "order_spread": float(logp.std(0).mean())}, half

BASES = {}      # seed: what `measure` gives besides the columns

def how(args, cell):
    n, seed = 16 if args.quick else 400, cell["seed"]
    if seed not in BASES:
        _, BASES[seed] = measure(*trained.load(args, trained.BASE, seed), n)
    row, _ = measure(*trained.load(args, cell["model"], seed), n, BASES[seed])
    return {k: round(v, 4) for k, v in row.items()}

def table(rows, seeds):
    names = ["nll_0.15", "nll_0.5", "nll_0.9", "mix_nll_0.5", "mix_change_value", "infill_logp",
             "infill_right", "random_order", "left_to_right_logp", "random_logp", "order_spread"]
    return ["model", *names], [[model, *(each(pick(rows, seed=s, model=model)[c] for s in seeds)
                                         for c in names)] for model in trained.MODELS]

TABLES = [table]

def draw(rows, seeds, path):
    figure, axes = panels(2, width=5, height=3.6, x="share of masked tokens", y="nats")
    for axis, name, title in zip(axes, ("nll", "mix_nll"), ("texts with every step",
                                                            "texts as in pretraining")):
        for model in trained.ONE_BLOCK:
            y = np.mean([[float(pick(rows, seed=s, model=model)[f"{name}_{r:g}"]) for r in RATES]
                         for s in seeds], 0)
            axis.plot(RATES, y, label=model, linewidth=1.1, markersize=3,
                      **STYLES[style(model)])
        axis.set_yscale("log")
        axis.set_title(f"{title}: NLL a masked token, mean of seeds", fontsize=8)
    axes[0].legend(fontsize=6)
    save(figure, path)

if __name__ == "__main__":
    trained.run("still", "Is it still a diffusion model?", COLUMNS, how, TABLES, draw)
