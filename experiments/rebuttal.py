"""Experiment 6: is it the order, or the rejection of draws? Both taken apart.

    python experiments/rebuttal.py --figure assets/trap/rebuttal.png

From the committed rows: seconds. Without them: half an hour on one core, and the bases.

arXiv 2609.34509 says: LCR draws at every masked position and keeps the likeliest draw, so that
hardly any unlikely token is ever committed; that, not the order, costs pass@k. Two tests.
1. Matched rates. How many of a canvas's tokens were not the likeliest at their commit (non-top
   commits) is made equal for all orders: to LCR's number at T=.6, to TPP's, to left to right's, by
   the temperature, tuned on validation problems.
2. Positions and draws exchanged. LCR chooses a place and, with it, a token. "LCR's places, fresh
   draws": the place is LCR's, the token is drawn anew (`--order redrawn`), or the whole order of an
   LCR sample is replayed. "Left to right, LCR's law": the token is drawn as LCR would draw it where
   the leftmost mask wins (closed form: P(v) ~ q_i(v) prod_j P(the draw at j is less likely))."""
import sys
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
from eval_gsm8k import bootstrap, evaluate
from experiments.rows import (LCR, LTR, RANDOM, TABLE_KS, TPP, Cell, curve, ks_of, lead, panels,
                              plain, rate, run, save, short, signed, solved)
from experiments.tables import pick
from sample import Decoder, generate

REDRAWN = Decoder("redrawn", temperature=0.6)
FRESH, REPLAY = "LCR's places, fresh draws", "an LCR sample's order, fresh draws"
LAW = "left to right, LCR's law"

class WinnersLaw(torch.nn.Module):
    """A model that answers, at the leftmost mask, with the law of the token that LCR at temperature
    T commits there, given that this position wins (its draw is the likeliest of all masks' draws):

        P(v) = q_i(v) prod_{masked j != i} sum_{u: p_j(u) <= p_i(v)} q_j(u) / norm,  q = p^T

    Decoded from left to right at temperature 1, it is left to right with LCR's draws. Equal draws
    count for the leftmost, as in sample.py. Exact, in double precision."""
    def __init__(self, model, temperature):
        super().__init__()
        self.model, self.config, self.temperature = model, model.config, temperature
        self.cos = model.cos

    def forward(self, tokens, wanted):
        masked = tokens == self.config.mask_id                                         # (U, S)
        if not (masked.cumsum(1)[wanted] == 1).all() or (wanted.sum(1) != 1).any():
            raise ValueError("LCR's law is known here for the leftmost mask of each canvas only")
        logp = self.model(tokens, masked).double().log_softmax(-1)                     # (n, V)
        logq = (logp / self.temperature).log_softmax(-1)
        which = torch.zeros_like(masked, dtype=torch.long)
        which[masked] = torch.arange(len(logp), device=tokens.device)   # row of logp, by place
        out = logq[which[wanted]]                                                      # (U, V)
        ascending, order = logp.sort(-1)                                               # (n, V)
        cdf = torch.nn.functional.pad(logq.gather(1, order).exp().cumsum(-1), (1, 0))  # (n, V+1)
        for column in masked.any(0).nonzero()[:, 0].tolist():   # one rival position at a time
            at = masked[:, column] & ~wanted[:, column]                                # (U,)
            j, mine = which[at, column], logp[which[wanted][at]]                     # (m,), (m, V)
            below = torch.searchsorted(ascending[j], mine, right=True)               # (m, V)
            out[at] = out[at] + cdf[j].gather(1, below).log()
        return out.log_softmax(-1).float()

def law(model, task, problems, decoder, n_samples):
    """Left to right, every token drawn as LCR at decoder.temperature would draw it there."""
    result = evaluate(WinnersLaw(model, decoder.temperature), task, problems,
                      replace(decoder, temperature=1.0), n_samples)
    for name in ("non_top_commits", "entropy_fork", "entropy_other"):
        del result["measures"][name]        # of the law's, not of the model's distribution
    return result

def replayed(model, prompts, length, decoder, uniform):
    """generate() with the order of a fresh LCR sample of the same prompt: "random" order, whose
    permutation is the first thing asked of uniform(). What LCR never committed comes last."""
    rank = generate(model, prompts, length, replace(LCR, temperature=decoder.temperature),
                    uniform).rank
    first = [1 - rank / (length + 1)]
    return generate(model, prompts, length, decoder, lambda: first.pop() if first else uniform())

def replay(*args):
    return evaluate(*args, decode=replayed)

def tried(model, task, decoder, n):     # rows.rate of validation problems
    problems, n_samples = task.held_out("validation", min(64, n)), min(32, n)
    result = evaluate(model, task, problems, decoder, n_samples)
    return result["measures"]["non_top_commits"][0].sum() / (
        len(problems) * n_samples * task.completion_length)

def matched(target):
    """-> how to measure a decoder at the temperature where its rate is that of `target`."""
    def how(model, task, problems, decoder, n_samples):
        wanted, low, high = tried(model, task, target, n_samples), 0.05, 4.0
        for _ in range(9):      # bisection; the rate rises with T. Out of reach: the end it is at
            middle = (low * high) ** 0.5
            low, high = (low, middle) if tried(model, task, replace(
                decoder, temperature=middle), n_samples) > wanted else (middle, high)
        t = round((low * high) ** 0.5, 4)
        return evaluate(model, task, problems, replace(decoder, temperature=t), n_samples) | {
            "tuned": t}
    return how

ORDERS = {"left to right": LTR, "LCR": LCR, "TPP": TPP}
TARGETS = "LCR", "TPP", "left to right"
PARTS = [Cell("", 0, REDRAWN, arm=FRESH), Cell("", 0, RANDOM, arm=REPLAY, how=replay),
         Cell("", 0, LTR, arm=LAW, how=law)]

def at_rate(name, target):      # the arm's name
    return str(ORDERS[name]) if name == target else f"{name} at the rate of {target}"

def cells(seeds):
    tuned = [Cell("", 0, ORDERS[name], arm=at_rate(name, target), how=(
        evaluate if name == target else matched(ORDERS[target])))
        for target in TARGETS for name in ORDERS]
    return [replace(cell, variant="default", seed=seed) for seed in seeds
            for cell in [*tuned, *PARTS]]

def rate_table(rows, seeds):
    """Three orders at one share of non-top commits. (One token a step: nfe is their number.)"""
    out, ks = [], ks_of(rows, TABLE_KS)
    for target in TARGETS:
        for seed in seeds:
            ltr = pick(rows, arm=at_rate("left to right", target), seed=seed)
            for name in ORDERS:
                row = pick(rows, arm=at_rate(name, target), seed=seed)
                out.append([target, seed, name, row["tuned"] or row["temperature"],
                            f"{rate(row):.4f}",
                            *(plain(*bootstrap(solved(row, k))) for k in ks),
                            *("" if row is ltr else signed(*lead(ltr, row, k)) for k in ks)])
    return ["rate of", "seed", "order", "T", "non-top rate", *(f"pass@{k}" for k in ks),
            *(f"left to right's lead, k={k}" for k in ks)], out

STEPS = [("places first", "places", LTR, FRESH), ("places first", "draws", FRESH, LCR),
         ("draws first", "draws", LTR, LAW), ("draws first", "places", LAW, LCR),
         ("places replayed", "places", LTR, REPLAY), ("places replayed", "draws", REPLAY, LCR),
         ("in all", "places and draws", LTR, LCR)]

def parts_table(rows, seeds):
    """What each exchange costs, from left to right to LCR; the two of a path add up to the gap.
    Of right answers, and of right derivations (as in coverage.py)."""
    out, ks = [], ks_of(rows, TABLE_KS)
    for path, what, a, b in STEPS:
        for seed in seeds:
            pair = [pick(rows, arm=arm, seed=seed) for arm in (a, b)]
            out.append([path, what, seed, *(signed(*lead(*pair, k, column)) for column in
                                            ("correct", "derived") for k in ks)])
    return ["path", "exchanged", "seed", *(f"cost in pass@{k}" for k in ks),
            *(f"in derivations, pass@{k}" for k in ks)], out

TABLES = [rate_table, parts_table]

def draw(rows, seeds, path):
    figure, axes = panels(len(seeds), n_rows=3, x="k", y="pass@k")
    for *tops, bottom, seed in zip(*axes, seeds):
        for axis, target in zip(tops, ("LCR", "left to right")):
            for i, name in enumerate(ORDERS):
                mine = pick(rows, arm=at_rate(name, target), seed=seed)
                curve(axis, mine, f"{name}, T = {float(mine['tuned'] or 0.6):.2g}", i)
            axis.set_title(f"all at {target}'s rate of non-top commits, seed {seed}", fontsize=9)
        for i, arm in enumerate([LTR, LAW, FRESH, REPLAY, LCR]):
            curve(bottom, pick(rows, arm=arm, seed=seed), short(arm), i)
        bottom.set_title(f"places and draws exchanged, T = 0.6, seed {seed}", fontsize=9)
        for axis in (*tops, bottom):
            axis.legend(fontsize=7, loc="lower right")
    save(figure, path)

if __name__ == "__main__":
    run("rebuttal", "Order or rejection? Rates matched, places exchanged.", cells, TABLES, draw)
