"""The second verdict table of experiments/README.md, and the tables under it, from assets/rl; and
README.md's table of methods.

    python experiments/rl_verdicts.py            print them
    python experiments/rl_verdicts.py --write    put them into both pages, between markers

tests/test_rl.py fails if a page and the rows differ. The rule is that of verdicts.py: a claim holds
if the intervals of all three seeds are on its side, does not if all three are on the other, else it
is undecided. The claims and their bars were written down before the rows were there, but for those
that say otherwise."""
import functools
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
from eval_gsm8k import bootstrap, read_csv
from experiments import (after, beyond, content, curves, edge, erosion, fast, freedom, frontier,
                         knobs, rl, still, trained)
from experiments.bases import SEEDS
from experiments.rl import Run
from experiments.rows import ASSETS, LCR, LTR, solved, spearman
from experiments.tables import ROOT, fill, markdown, pick
from experiments.verdicts import PAGE, above, below, shown, within
from grpo import ARMS

FOLDER, README = ASSETS.parent / "rl", ROOT / "README.md"
PAPER, REJECTION, FALLBACK, D1 = "2601.15165", "2609.34509", "2609.39859", "2504.12216"
WHOSE = {"random": f"{PAPER}, table 5", "one_step": f"{PAPER}, table 2",
         "elbo": f"{PAPER}, table 2", "rejection": "nobody's, and a reviewer's first"}
THREE = frontier.LTR, frontier.LCR, frontier.THRESHOLD
EXPERIMENTS = {"curves": curves, "content": content, "freedom": freedom, "frontier": frontier,
               "still": still, "after": after, "erosion": erosion, "edge": edge, "fast": fast,
               "beyond": beyond, "knobs": knobs}

@functools.cache
def load(name):
    return read_csv(FOLDER / f"{'curves' if name == 'content' else name}.csv")

def share(value, n=400):    # a share of n -> value, low, high, as bootstrap has them
    right = round(float(value) * n)
    return bootstrap([1] * right + [0] * (n - right))

def apart(a, b, n=400):     # the difference of two shares of n, not paired
    a, b = float(a), float(b)
    error = 1.96 * ((a * (1 - a) + b * (1 - b)) / n) ** 0.5
    return a - b, a - b - error, a - b + error

def three(seed, model):     # mean of three greedy decoders, of each problem
    return np.mean([frontier.correct(pick(load("frontier"), seed=seed, model=model, decoder=d))
                    for d in THREE], 0)

def leads(a, b):            # the same, paired
    return [bootstrap(three(seed, a) - three(seed, b)) for seed in SEEDS]

def gains(model, decoder, than=trained.BASE):
    return [frontier.gain(load("frontier"), seed, model, decoder, than) for seed in SEEDS]

MEAN = "mean of three greedy decoders (left to right, LCR, threshold .9)"

def by_arm():
    for name in [trained.LONGER, *curves.CONTENDERS]:
        arm = name.split(",")[0]
        if arm in ("justgrpo", "top_probability", "fork"):
            continue
        found = leads("justgrpo", name)
        yield (f"left to right trains better than {name}", WHOSE.get(arm, PAPER),
               f"justgrpo - {name}, {MEAN}, above 0", shown(found), above(found))
    for name, whose in (("top_probability", REJECTION), ("fork", FALLBACK)):
        found = leads("justgrpo", name)
        yield (f"rollouts by {name} train as well", whose,
               f"justgrpo - {name}, {MEAN}, within .02 of 0", shown(found), within(found, 0.02))
        yield ("left to right trains better than that", PAPER,
               f"justgrpo - {name}, {MEAN}, above 0", shown(found), above(found))

def by_content():
    found = leads("confidence_exact", "confidence")
    yield ("confidence fails for want of its choice of place", "design.md 10 (denied there)",
           f"confidence_exact - confidence, {MEAN}, above 0", shown(found), above(found))
    found = leads("top_probability", "confidence")
    yield ("it fails by its rejection of draws", REJECTION,
           f"top_probability - confidence, {MEAN}, above 0", shown(found), above(found))
    found = leads("confidence", "mismatch")
    yield ("a likelihood that disagrees with the rollouts does harm", PAPER,
           f"confidence - mismatch, {MEAN}, above 0", shown(found), above(found))
    for name in ("confidence", "confidence_exact", "one_step", "elbo", "mismatch"):
        last = curves.last(load("curves"), name, curves.best(load("curves"), name, SEEDS), SEEDS)
        found = [share(r["no_steps"], 64) for r in last]
        yield (f"{name}, in one block, learns to write the answer only", "design.md 10",
               "share of its rollouts without a step, after training, above .95 (interval as of "
               "64 texts)", shown(found), above(found, 0.95))

def by_block():
    found = []
    for seed in SEEDS:
        rows = [freedom.last(load("freedom"), b, freedom.best(load("freedom"), b, SEEDS), [seed])[0]
                for b in freedom.BLOCK_LENGTHS]
        p = np.array([np.mean([float(r[d]) for d in curves.DECODERS]) for r in rows])
        draws = np.random.default_rng(0).binomial(400, p, size=(1000, len(p)))
        found.append((spearman(range(len(p)), p), *np.nanpercentile(
            [spearman(range(len(p)), draw) for draw in draws], [2.5, 97.5])))
    yield ("the longer the blocks of the rollouts, the less RL learns", PAPER,
           f"rank correlation of the block length and the accuracy ({MEAN}), 6 lengths, below 0",
           shown(found), below(found))

def by_frontier():
    def k(n):
        return str(frontier.Decoder("top_probability", "k", n))
    for name, decoder in (("threshold .9", frontier.THRESHOLD), ("entropy bound .1",
                                                                 frontier.BOUND), ("k = 4", k(4))):
        found = gains("justgrpo", decoder)
        yield ("nothing is lost: parallel decoding is better after JustGRPO", f"{PAPER}, fig. 8",
               f"justgrpo - base, {name}, above 0", shown(found), above(found))
    more = [bootstrap(sum(sign * frontier.correct(pick(load("frontier"), seed=s, model=m,
                                                       decoder=d))
                          for sign, m, d in ((1, "justgrpo", k(4)), (-1, "base", k(4)),
                                             (-1, "justgrpo", k(1)), (1, "base", k(1)))))
            for s in SEEDS]
    yield ("the more tokens a step, the more is gained", f"{PAPER}, fig. 8",
           "gain at k = 4 - gain at k = 1, above 0", shown(more), above(more))
    for name, decoder in (("threshold .9", frontier.THRESHOLD), ("entropy bound .1",
                                                                 frontier.BOUND)):
        found = gains("top_probability", decoder, "justgrpo")
        yield ("rollouts in the decoder's own order keep it better", "us",
               f"top_probability - justgrpo, {name}, above 0", shown(found), above(found))

def by_still():
    rows = load("still")
    for column, what, bar in (("random_order", "accuracy in random order", 0.0),
                              ("infill_right", "share of gaps that are more likely right than not",
                               -0.02)):
        found = [apart(pick(rows, seed=s, model="justgrpo")[column],
                       pick(rows, seed=s, model="base")[column]) for s in SEEDS]
        yield ("it is still a diffusion model", PAPER, f"{what}, justgrpo - base, above {bar:g}",
               shown(found), above(found, bar))

def by_k():
    def change(model, decoder, k):
        rows = load("after")
        return [bootstrap(solved(pick(rows, seed=s, model=model, decoder=decoder), k) - solved(
            pick(rows, seed=s, model=trained.BASE, decoder=decoder), k)) for s in SEEDS]
    for decoder, name in ((LTR, "left to right"), (LCR, "LCR in one block")):
        found = change("justgrpo", decoder, 1)
        yield ("JustGRPO raises pass@1", PAPER, f"justgrpo - base, {name}, pass@1, above 0",
               shown(found), above(found))
        found = change("justgrpo", decoder, 256)
        yield ("and does not pay with pass@256", "the debate on RL (Yue et al. 2025)",
               f"justgrpo - base, {name}, pass@256, within .02 of 0", shown(found),
               within(found, 0.02))
    found = change("confidence", LTR, 256)
    yield ("training in order of confidence pays with it", "the debate on RL",
           "confidence - base, left to right, pass@256, below 0", shown(found), below(found))

def by_erosion():
    def final(rate, way, column, at=-1):
        return [rl.of(load("erosion"), erosion.one(rate, way, s))[at][column] for s in SEEDS]
    def best(rate, way, column):
        return [max(float(r[column]) for r in rl.of(load("erosion"), erosion.one(rate, way, s)))
                for s in SEEDS]
    for column in ("threshold", "entropy_bound"):
        for rate in ("5e-5", "4e-4"):
            found = [apart(a, b) for a, b in zip(best(rate, "constant", column),
                                                 final(rate, "constant", column))]
            yield ("parallel decoding erodes while left to right stays", "design.md 8",
                   f"{column}, best of 9 watched - last, constant rate {rate}, above .05",
                   shown(found), above(found, 0.05))
        found = [apart(a, b) for a, b in zip(final("4e-4", "falling", column),
                                             final("4e-4", "constant", column))]
        yield ("a falling rate keeps it", "design.md 8",
               f"{column}, falling - constant, rate 4e-4, above 0", shown(found), above(found))
        found = [apart(a, b) for a, b in zip(final("4e-4", "constant, eps 1e-4", column),
                                             final("4e-4", "constant", column))]
        yield ("it is Adam, which makes full steps of vanishing gradients", "design.md 8",
               f"{column}, eps 1e-4 - 1e-8, constant rate 4e-4, above 0", shown(found),
               above(found))
        found = [apart(a, b) for a, b in zip(final("4e-4", "constant, KL .03", column),
                                             final("4e-4", "constant", column))]
        yield ("a small KL term keeps it", "GRPO", f"{column}, KL .03 - none, constant rate 4e-4, "
               "above 0", shown(found), above(found))
    found = [apart(a, b) for a, b in zip(final("4e-4", "constant", "far_hash", 0),
                                         final("4e-4", "constant", "far_hash"))]
    yield ("RL pushes #### down where no rollout asks for it", "design.md 8", "P(####) far out on "
           "an empty canvas, before - after, constant rate 4e-4, above 0", shown(found),
           above(found))

def by_edge():
    found = []
    for seed in SEEDS:
        mine = [r for r in load("edge") if int(r["seed"]) == seed]
        (wrote, jumped), (wrong, right) = (line[1:] for line in edge.check(mine, SEEDS))
        found.append(bootstrap([1] * (wrote + right) + [0] * (jumped + wrong)))
    yield ("two lines of arithmetic say which bases learn to write and which to jump", "us",
           "share of 16 bases where a^6 h_6 > h_0 and what RL learned agree, above .75",
           shown(found, "{:.2f} [{:.2f}, {:.2f}]"), above(found, 0.75))

def by_fast():
    def last(kind):
        found = [rl.of(load("fast"), Run("justgrpo", s, fast.KINDS[kind]))[-1] for s in SEEDS]
        return [np.mean([float(r[d]) for d in curves.DECODERS]) for r in found]
    found = [apart(a, b) for a, b in zip(last("all"), last("top quarter by entropy"))]
    yield ("the quarter with the highest entropy trains as well as all", f"{PAPER}, fig. 9",
           f"all - top quarter, after 60 steps, {MEAN}, within .05 of 0", shown(found),
           within(found, 0.05))
    found = [apart(a, b) for a, b in zip(last("top quarter by entropy"), last("a random quarter"))]
    yield ("and better than a random quarter", PAPER, f"top - random, {MEAN}, above 0",
           shown(found), above(found))

def by_story():
    rows = load("beyond")
    def of(seed, model, name):
        return frontier.correct(pick(rows, seed=seed, model=model, set=name,
                                     decoder="left to right"))
    for name in ("7 operations", "8 operations", "rare operands"):
        found = [bootstrap(of(s, "justgrpo", name) - of(s, "base", name)) for s in SEEDS]
        yield ("what RL taught reaches beyond the task", "us",
               f"justgrpo - base, {name}, greedy left to right, above 0", shown(found),
               above(found))
        found = [share(pick(rows, seed=s, model="justgrpo", set=name,
                            decoder="left to right")["every_step"]) for s in SEEDS]
        yield ("it writes as many steps as the story has", "us",
               f"share of texts, {name}, above .5", shown(found), above(found, 0.5))

def by_knob():
    def last(setting):
        found = [rl.of(load("knobs"), Run("justgrpo", s, knobs.SETTINGS[setting]))[-1]
                 for s in SEEDS]
        return [np.mean([float(r[d]) for d in curves.DECODERS]) for r in found]
    plain = last(next(iter(knobs.SETTINGS)))
    for setting in list(knobs.SETTINGS)[1:]:
        found = [apart(a, b) for a, b in zip(last(setting), plain)]
        yield (f"{setting}: no different", "us", f"less the plain setting, {MEAN}, within .03 of 0",
               shown(found), within(found, 0.03))

PARTS = [(1, by_arm), (2, by_content), (3, by_block), (4, by_frontier), (4, by_still), (5, by_k),
         (6, by_erosion), (6, by_edge), (7, by_fast), (8, by_story), (9, by_knob)]

def methods_table():
    """README.md's: every arm at its best learning rate, over the seeds."""
    out = []
    for name in [trained.BASE, trained.LONGER, *curves.CONTENDERS]:
        cells = []
        for decoder in THREE:
            right = [frontier.correct(pick(load("frontier"), seed=s, model=name, decoder=decoder))
                     for s in SEEDS]
            value, low, high = bootstrap(np.mean(right, 0))
            by_seed = ", ".join(f"{r.mean():.2f}" for r in right)
            cells.append(f"{value:.3f} [{low:.2f}, {high:.2f}] ({by_seed})")
        if name in curves.CONTENDERS:
            rate = curves.best(load("curves"), name, SEEDS)
            last = curves.last(load("curves"), name, rate, SEEDS)
            cells += [curves.lr(rate), *(f"{np.mean([float(r[c]) for r in last]):,.0f}"
                                         for c in ("seconds", "evaluations", "states"))]
            cells.insert(0, ARMS[name.split(",")[0]][3])
        else:
            cells = ["" if name == trained.BASE else "300 pretraining steps more", *cells]
            cells += ["", "", "", ""]
        out.append([name, *cells])
    return markdown(["arm", "what differs", "left to right", "LCR", "threshold .9", "rate",
                     "seconds", "evaluations", "states run"], out)

def tables():
    found = {"rl_verdicts": markdown(
        ["", "claim", "whose", "the number that decides", "ours, seeds 0; 1; 2 [95 %]", "verdict"],
        [(number, *line) for number, part in PARTS for line in part()])}
    for name, script in EXPERIMENTS.items():
        found[name] = "\n\n".join(markdown(*table(load(name), SEEDS)) for table in script.TABLES)
    return found

if __name__ == "__main__":
    if "--write" in sys.argv[1:]:
        PAGE.write_text(fill(PAGE.read_text(encoding="utf-8"), tables()), encoding="utf-8")
        README.write_text(fill(README.read_text(encoding="utf-8"), {"methods": methods_table()}),
                          encoding="utf-8")
    else:
        print("\n\n".join([*tables().values(), methods_table()]))
