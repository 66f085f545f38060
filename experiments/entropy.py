"""Experiment 5: where the entropy goes, and what was known when a token was committed.

    python experiments/entropy.py --figure assets/trap/entropy.png

From the committed rows: seconds. Without them: ten minutes on one core, and the bases. 64 samples
of 200 problems. Three tables in one CSV: by kind of token (entropy in nats and bypass, as in
eval_gsm8k.py); by text (what was committed first); by position and rank (the picture)."""
import functools
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
from tqdm import tqdm
from eval_gsm8k import evaluate, interval, read_csv, write_csv
from experiments.rows import (BLOCKS, LCR, LTR, RANDOM, TPP, load, panels, plain, refuse_other, run,
                              save, short)
from experiments.tables import pick
from sample import generate, text_length

ARMS = [LTR, LCR, BLOCKS, TPP, RANDOM]
COLUMNS = ["seed", "base", "arm", "table", "name", "measure", "position", "rank", "n", "value",
           "low", "high"]
KINDS = ["fork: go on", "fork: jump", "first operand", "->", "value", "#### after the last step",
         "final number", "end-of-text"]
TEXTS = {   # of the texts, unless said: what they write, and what was committed first
    "in_the_head": "no step is written", "all_steps": "all steps are written",
    "end_first": "the end was committed before the first fork",
    "no_room": "padding was, so that not all steps fit any more",
    "leftmost": "of all commits: at the leftmost mask",
    "right_in_the_head": "right, of those without a step",
    "right_all_steps": "right, of those with all steps",
    "number_before_a_value": "of those with steps: the final number before some value left of it",
    "number_before_all": "of those with steps: the final number before all values"}

def kinds(task, tokens):
    """(B, L) -> name: (B, L) bool, of everything up to and including the first end-of-text."""
    L = tokens.shape[1]
    inside, end = torch.arange(L) < text_length(tokens, task.eos_id)[:, None], tokens == task.eos_id
    forks, hashes = task.forks(tokens) & inside, tokens == task.hash_id
    before = (hashes.cumsum(1) == 0) & inside & ~end
    arrow, number = (tokens == task.arrow_id) & before, torch.isin(tokens, task.number_ids)
    def after(mask):    # one position to the right
        return torch.nn.functional.pad(mask, (1, 0))[:, :L]
    first_hash = hashes & (hashes.cumsum(1) == 1) & inside
    return {"fork: go on": forks & before, "fork: jump": forks & hashes,
            "first operand": (torch.arange(L) == 1) & before, "->": arrow,
            "value": after(arrow) & number & before,
            "#### after the last step": first_hash & ~forks,
            "final number": after(first_hash) & number & inside, "end-of-text": inside & end}

def sampled(model, task, problems, decoder, n_samples):
    """-> evaluate's result, with "samples": the Samples of 8 problems each."""
    samples = []
    def decode(*args):
        samples.append(generate(*args))
        return samples[-1]
    result = evaluate(model, task, problems, decoder, n_samples, decode=decode, budget=(
        8 * n_samples * task.completion_length * task.tokenizer.n_vocab))
    return result | {"samples": samples}

def look(task, result, n_samples):
    """-> rows of one arm (without seed, base, arm)."""
    tokens, rank, entropy = (torch.cat([getattr(s, name) for s in result["samples"]])
                             for name in ("tokens", "rank", "entropy"))
    L = rank.shape[1]
    def per_problem(x):     # (B,) or (B, L) -> (Q,)
        return x.double().reshape(-1, n_samples * (L if x.ndim == 2 else 1)).sum(1).numpy()
    def row(table, name, measure, numerator, denominator):
        pair = per_problem(numerator), per_problem(denominator)
        return {"table": table, "name": name, "measure": measure, "n": int(pair[1].sum()),
                **interval(*pair)}
    where, committed = kinds(task, tokens), rank < L
    body = (torch.arange(L) < text_length(tokens, task.eos_id)[:, None]) & (tokens != task.eos_id)
    later = rank.masked_fill(~body, L).flip(1).cummin(1).values.flip(1)     # least, from here on
    rows = []
    for name in KINDS:
        at = where[name] & committed
        rows += [row("kind", name, "entropy", entropy * at, at),
                 row("kind", name, "bypass", (later < rank) & at, at)]
    right = torch.tensor(result["correct"]).flatten()
    written, one = where["value"].sum(1), torch.ones(len(tokens))
    def at_rank(name, missing, least=False):    # when it was committed: (B,)
        found = rank.masked_fill(~where[name], missing)
        return found.amin(1) if least else found.amax(1)
    number, with_steps = at_rank("final number", L, True), where["final number"].any(1) & (
        written > 0)
    padding = (tokens == task.eos_id) & (rank < rank[:, :1])    # the longest text leaves one place
    leftmost = committed & (rank > torch.nn.functional.pad(rank, (1, 0), value=-1)[:, :L].cummax(
        1).values)
    head, full = written == 0, written == task.n_steps
    for name, (numerator, denominator) in {
            "in_the_head": (head, one), "all_steps": (full, one),
            "end_first": (at_rank("end-of-text", L, True) < rank[:, 0], one),
            "no_room": (padding[:, :-1].any(1), one), "leftmost": (leftmost, committed),
            "right_in_the_head": (right * head, head), "right_all_steps": (right * full, full),
            "number_before_a_value": ((number < at_rank("value", -1)) & with_steps, with_steps),
            "number_before_all": ((number < at_rank("value", L, True)) & with_steps, with_steps),
            }.items():
        rows.append(row("text", name, "share", numerator, denominator))
    for i in range(L):      # the picture: how many were committed here then, and their mean entropy
        for r in rank[:, i][committed[:, i]].unique().tolist():
            at = rank[:, i] == r
            rows.append({"table": "place", "position": i, "rank": r, "n": int(at.sum()),
                         "value": round(entropy[at, i].mean().item(), 4)})
    return rows

def cells(seeds):
    return [(seed, decoder) for seed in seeds for decoder in ARMS]

def collect(args, cells):       # as in rows.py, but an arm has many rows
    rows = read_csv(args.csv) if Path(args.csv).exists() else []
    for seed, decoder in tqdm(cells, desc="arms"):
        if any((r["seed"], r["arm"]) == (str(seed), str(decoder)) for r in rows):
            continue
        model, task, weights = load(args.bases, "default", seed, args.quick)
        refuse_other(weights, [r for r in rows if r["seed"] == str(seed)], args.csv)
        n_problems, n_samples = (16, 16) if args.quick else (200, 64)
        problems = task.held_out("test", n_problems)
        result = sampled(model, task, problems, decoder, n_samples)
        rows += [{"seed": str(seed), "base": weights, "arm": str(decoder), **r}
                 for r in look(task, result, n_samples)]
        write_csv(args.csv, COLUMNS, rows)
    return read_csv(args.csv)

def found(rows, seed, decoder, name, measure):
    """-> value, low, high; nan where there was nothing to measure."""
    row = pick(rows, seed=seed, arm=decoder, name=name, measure=measure)
    return tuple(float(row[c] or "nan") for c in ("value", "low", "high"))

def table(what, names, rows, seeds):
    return [what, "seed", *(short(d) for d in ARMS)], [
        [text, seed, *(plain(*found(rows, seed, d, name, measure)) for d in ARMS)]
        for name, text, measure in names for seed in seeds]

TABLES = [functools.partial(table, *part) for part in (
    ("entropy at commit, nats", [(k, k, "entropy") for k in KINDS]),
    ("bypassed", [(k, k, "bypass") for k in KINDS]),
    ("share of texts", [(name, text, "share") for name, text in TEXTS.items()]))]

def draw(rows, seeds, path):
    figure, axes = panels(len(ARMS), width=3.4, height=3.4, x="position",
                          y="rank: the step of its commit")
    for axis, decoder in zip(axes, ARMS):
        mine = [r for r in rows if (r["seed"], r["arm"], r["table"]) == (
            str(seeds[0]), str(decoder), "place")]
        most = max(int(r["n"]) for r in mine)
        dots = axis.scatter([int(r["position"]) for r in mine], [int(r["rank"]) for r in mine],
                            s=[90 * (int(r["n"]) / most) ** 0.5 for r in mine],
                            c=[float(r["value"]) for r in mine], cmap="Greys", vmin=-0.15,
                            vmax=0.7, edgecolors="black", linewidths=0.4)
        axis.set_title(f"{short(decoder)}, seed {seeds[0]}", fontsize=9)
    figure.colorbar(dots, ax=list(axes), label="entropy at commit, nats", pad=0.01)
    save(figure, path, tight=False)

if __name__ == "__main__":
    run("entropy", "Entropy at commit, by kind of token, position and rank.", cells, TABLES, draw,
        collect)
