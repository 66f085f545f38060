"""The second verdict table of experiments/README.md, and the tables under it, from assets/rl; and
README.md's table of methods.

    python experiments/rl_verdicts.py            print them
    python experiments/rl_verdicts.py --write    put them into both pages, between markers

tests/test_readme.py fails if a page and the rows differ. The rule is that of verdicts.py: a claim
holds if the intervals of all three seeds are on its side, does not if all three are on the other,
else it is undecided. The claims were written down when three runs of one base had been seen; a
review mended their sides and measures ("as well" means: not worse by more than the bar) when those
of the first experiment at train.py's rate had been. Intervals are over problems, of one run a
base."""
import functools
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
from eval_gsm8k import bootstrap, read_csv
from experiments import (after, beyond, content, curves, edge, erosion, fast, freedom, frontier,
                         knobs, rl, still, trained)
from experiments.bases import SEEDS
from experiments.rows import ASSETS, LCR, LTR, lead, solved, spearman
from experiments.tables import README, markdown, pick, publish
from experiments.verdicts import (CALLED, FALLBACK, KIND, PAGE, PAPER, REJECTION, above, claim,
                                  span, under, verdict_table, within)
from grpo import ARMS

FOLDER = ASSETS.parent / "rl"
US, SEEN = "us, before the runs", "us (seen in the rows)"
WHOSE = {trained.LONGER: "a reviewer's first question", "rejection": "a reviewer's first question",
         "random": f"{PAPER}, table 5", "one_step": f"{PAPER}, table 2 (d1)",
         "elbo": f"{PAPER}, table 2 (there ESPO)", "confidence": f"{PAPER} (not measured there)",
         "confidence_exact": US, "mismatch": f"{PAPER} (not measured there)",
         "top_probability": REJECTION, "fork": FALLBACK}
THREE = frontier.LTR, frontier.LCR, frontier.THRESHOLD

@functools.cache
def load(name):
    if name == "content":
        return content.with_curves(FOLDER / "content.csv")
    return read_csv(FOLDER / f"{name}.csv")

def share(value, n=400):    # a share of n -> value, and Wilson's interval
    p, z = float(value or 0), 1.96
    middle, half = p + z * z / (2 * n), z * (p * (1 - p) / n + (z / (2 * n)) ** 2) ** 0.5
    return p, (middle - half) / (1 + z * z / n), (middle + half) / (1 + z * z / n)

def apart(a, b, n=400, m=400):      # the difference of two shares, of n and of m, not paired
    a, b = float(a), float(b)
    error = 1.96 * (a * (1 - a) / n + b * (1 - b) / m) ** 0.5
    return a - b, a - b - error, a - b + error

def rates_apart(a, b):      # the difference of two lists' shares of True (Agresti and Caffo, 2000)
    p, q = ((sum(x) + 1) / (len(x) + 2) for x in (a, b))
    return apart(p, q, len(a) + 2, len(b) + 2)

def ranked(x, y, drawn):    # rank correlation; and its interval, by those of x and y drawn again
    with np.errstate(invalid="ignore"):     # all alike: nan
        again = [spearman(*pair) for pair in drawn]
    return spearman(x, y), *np.nanpercentile(again, [2.5, 97.5])

def correlation(pairs):     # of (x, y), which are drawn again
    x, y = np.array(pairs, dtype=float).T
    draws = np.random.default_rng(0).integers(len(x), size=(1000, len(x)))
    return ranked(x, y, ((x[d], y[d]) for d in draws))

def three(seed, model):     # mean of three greedy decoders, of each problem
    return np.mean([frontier.correct(pick(load("frontier"), seed=seed, model=model, decoder=d))
                    for d in THREE], 0)

@functools.cache
def leads(a, b):            # the same, paired
    return [bootstrap(three(seed, a) - three(seed, b)) for seed in SEEDS]

def gains(model, decoder, than=trained.BASE):
    return [bootstrap(frontier.gain(load("frontier"), s, model, decoder, than)) for s in SEEDS]

K1, K4 = [str(frontier.Decoder("top_probability", "k", n)) for n in (1, 4)]
WHEN = {1: "5 steps", -1: "60 steps"}     # by the place of its row among a run's
MEAN = "mean of three greedy decoders (left to right, LCR, threshold .9)"

OTHERS = [name for name in curves.CONTENDERS if name != "justgrpo"]

def plain_runs(name):   # of an arm at train.py's rate, by seed
    return [rl.of(load("curves"), curves.contender(name, s)) for s in SEEDS]

def early(name):        # after five steps of these, left to right
    return [float(run[1]["left_to_right"]) for run in plain_runs(name)]

def by_arm():
    for name in [trained.LONGER, *curves.CONTENDERS]:
        arm = name.split(",")[0]
        if arm in ("top_probability", "fork"):
            yield claim(f"rollouts by {name} train as well", WHOSE[arm],
                        f"justgrpo - {name}, {MEAN}", leads("justgrpo", name), "below .02")
        elif arm != "justgrpo":
            yield claim(f"left to right trains better than {name}", WHOSE[arm],
                        f"justgrpo - {name}, {MEAN}", leads("justgrpo", name), "above 0")
    best_other = map(max, zip(*map(early, OTHERS)))
    yield claim("left to right is the fastest (not foreseen: seen in the rows)", "us", "justgrpo - "
                "the best other arm, greedy left to right after 5 steps at 5e-5",
                list(map(apart, early("justgrpo"), best_other)), "above 0")

def by_content():
    for a, b, text, whose in (
            ("confidence_exact", "confidence", "confidence fails for want of its choice of place "
             "(the gradient of that choice is not complete: see place_law)", US),
            ("top_probability", "confidence", "it fails by its rejection of draws", REJECTION),
            ("confidence", "mismatch", "a likelihood that disagrees with the rollouts does harm",
             PAPER)):
        for block in ("", ", blocks of 8"):
            yield claim(text, whose, f"{a} - {b}{block or ', one block'}, {MEAN}",
                        leads(a + block, b + block), "above 0")
    for name in ("confidence", "confidence_exact", "one_step", "elbo", "mismatch"):
        runs = curves.at_best(load("curves"), name, SEEDS)
        yield claim(f"{name}, in one block, never learns to write every step", US,
                    "share of such rollouts after training",
                    [share(run[-1]["all_steps"], 64) for run in runs],
                    "below .05 (interval as of 64 texts)")
    for what, runs_of in (("at 5e-5 (seen in the rows)", plain_runs),
                          ("the harder task (written down before)", harder)):
        found = [correlation([(content.push(run[0]), rl.number(run[1], "all_steps"))
                              for run in runs]) for runs in zip(*map(runs_of, content.FAST))]
        yield claim("the share of rollouts with every step, times by how much they are right more "
                    "often, says how fast an arm learns to write", US, f"{what}: rank correlation "
                    f"over {len(content.FAST)} arms of that product before training with the share "
                    "after 5 steps", found, "above 0")

@functools.cache
def harder(name):       # of content.py's harder task: an arm's runs, by seed
    return [rl.of(load("content"), content.hard(name, s)) for s in SEEDS]

def by_harder_task():
    for block in ("", ", blocks of 8"):
        a, b = (harder(arm + block) for arm in ("confidence_exact", "confidence"))
        yield claim("confidence fails for want of its choice of place", SEEN, "the harder task: "
                    f"confidence_exact - confidence{block or ', one block'}, {MEAN}",
                    paired(a, b, -1), "above 0")
    rivals = [name for name in content.FAST if ARMS[name.split(",")[0]][0] == "confidence"]
    best = [max(runs, key=lambda run: three_of(run[-1]).mean())
            for runs in zip(*map(harder, rivals))]
    yield claim("left to right trains better than whatever rolls out in order of confidence", SEEN,
                f"the harder task: justgrpo - the best of those {len(rivals)} on each base, {MEAN}",
                paired(harder("justgrpo"), best, -1), "above 0")
    by_base = [learned(runs) for runs in zip(*map(harder, content.FAST))]
    counts = "; ".join(" : ".join(f"{sum(x)} of {len(x)}" for x in pair) for pair in by_base)
    yield claim("an arm learns to write every step if some rollouts do so before it starts (written"
                " down after the default task, before the harder one)", US, "the harder task: arms "
                f"that learn it if some of 512 rollouts have every step : if none has ({counts}); "
                "difference of the shares", [rates_apart(*pair) for pair in by_base], "above 0")

def bases_learned(name):    # on the harder task: how many write every step
    return sum(map(content.writes, harder(name)))

def on_every_base():
    return [name for name in content.FAST if bases_learned(name) == len(SEEDS)]

def learned(runs):  # of one base: which that had some rollouts with every step; that had none
    return [[content.writes(run) for run in runs if (rl.number(run[0], "all_steps") > 0) == some]
            for some in (True, False)]

def by_block():
    def falls(rate_of):     # rank correlation of length and accuracy, the accuracies drawn again
        for seed in SEEDS:
            runs = (freedom.of_length(length, seed, rate_of(length)) for length in lengths)
            p = np.array([curves.mean(rl.of(load("freedom"), run)[-1]) for run in runs])
            draws = np.random.default_rng(0).binomial(400, p, size=(1000, len(p)))
            yield ranked(lengths, p, ((lengths, draw) for draw in draws))
    lengths = freedom.BLOCK_LENGTHS
    for what, rate_of in (
            ("at the best rates", lambda length: curves.best(load("freedom"), length, SEEDS,
                                                             freedom.of_length)),
            ("at 1.5e-5 (seen in the rows)", lambda length: curves.RATES[0])):
        yield claim("the longer the blocks of the rollouts, the less RL learns", PAPER, "rank "
                    f"correlation of the block length and the accuracy ({MEAN}), 6 lengths, {what}",
                    list(falls(rate_of)), "below 0")

def by_frontier():
    parallel = ("threshold .9", frontier.THRESHOLD), ("entropy bound .1", frontier.BOUND)
    for name, decoder in (*parallel, ("k = 4", K4)):
        yield claim("nothing is lost: parallel decoding is better after JustGRPO",
                    f"{PAPER}, fig. 8", f"justgrpo - base, {name}", gains("justgrpo", decoder),
                    "above 0")
    four, one = ([frontier.gain(load("frontier"), s, "justgrpo", k) for s in SEEDS]
                 for k in (K4, K1))
    yield claim("the more tokens a step, the more is gained", f"{PAPER}, fig. 8",
                "gain at k = 4 - gain at k = 1", [bootstrap(a - b) for a, b in zip(four, one)],
                "above 0")
    for name, decoder in parallel:
        yield claim("rollouts in the decoder's own order keep it better", US,
                    f"top_probability - justgrpo, {name}",
                    gains("top_probability", decoder, "justgrpo"), "above 0")

def by_still():
    def of(model):
        return [pick(load("still"), seed=s, model=model) for s in SEEDS]
    for column, what, side in (
            ("random_order", "accuracy in random order", "above 0"),
            ("infill_right", "share of gaps that are more likely right than not", "above -0.02")):
        yield claim("it is still a diffusion model", PAPER, f"{what}, justgrpo - base",
                    [apart(a[column], b[column]) for a, b in zip(of("justgrpo"), of("base"))], side)
    for name, what in (("nll_change", "texts with every step"),
                       ("mix_change", "texts as in pretraining")):
        yield claim(f"and models {what} as well as before", PAPER,
                    "masked NLL at rate .5, nats a token, justgrpo - base",
                    [[float(r[f"{name}_{end}"]) for end in ("value", "low", "high")]
                     for r in of("justgrpo")], "below .05")

def by_k():
    def change(model, decoder, k, column="correct"):
        return [lead(*(pick(load("after"), seed=s, model=m, decoder=decoder)
                       for m in (model, trained.BASE)), k, column) for s in SEEDS]
    for decoder in (LTR, LCR):
        yield claim("JustGRPO raises pass@1", PAPER, f"justgrpo - base, {CALLED[decoder]}, pass@1",
                    change("justgrpo", decoder, 1), "above 0")
        for column, kind in KIND.items():
            yield claim("and does not pay with many samples", "the debate on RL (Yue et al. 2025)",
                        f"justgrpo - base, {CALLED[decoder]}, {kind}@256",
                        change("justgrpo", decoder, 256, column), "above -.02")
    yield claim("training in order of confidence pays with them", "the debate on RL",
                "confidence - base, left to right, derivations@256",
                change("confidence", LTR, 256, "derived"), "below 0")

def final(rate, way, column, at=-1):    # of erosion.py's runs, by seed
    return [rl.number(rl.of(load("erosion"), erosion.one(rate, way, s))[at], column)
            for s in SEEDS]

def by_erosion():
    def fallen(rate, way, column):      # from the best of the watched steps to the last
        best = [max(float(r[column]) for r in rl.of(load("erosion"), erosion.one(rate, way, s)))
                for s in SEEDS]
        return [apart(a, b) for a, b in zip(best, final(rate, way, column))]
    for rate in ("5e-5", "4e-4"):
        for column in erosion.PARALLEL:
            yield claim("parallel decoding erodes", US, f"{column}, best of 6 watched - last, "
                        f"constant rate {rate}", fallen(rate, "constant", column), "above .05")
        yield claim("while left to right stays", US, "the same of left to right",
                    fallen(rate, "constant", "left_to_right"), "below .05")
    pairs = (("a falling rate keeps it", ("4e-4", "falling"), ("2e-4", "constant"),
              ", of the same sum of rates"),
             ("it is Adam, which makes full steps of vanishing gradients",
              ("4e-4", "constant, eps 1e-4"), ("4e-4", "constant"), ", though it moves less, too"),
             ("a small KL term keeps it", ("4e-4", "constant, KL .03"), ("4e-4", "constant"), ""))
    for column in erosion.PARALLEL:
        for text, a, b, remark in pairs:
            yield claim(text, US, f"{column}, {' '.join(a)} - {' '.join(b)}{remark}",
                        [apart(x, y) for x, y in zip(final(*a, column), final(*b, column))],
                        "above 0")
    first, last = (final("4e-4", "constant", "far_hash", at) for at in (0, -1))
    yield claim("RL pushes #### down where no rollout asks for it", US, "P(####) far out on an "
                "empty canvas, before - after, constant rate 4e-4",
                list(map(apart, first, last)), "above 0")

def by_edge():
    for luck, how in ((0, US), (edge.LUCK, "us, mended when rows had been seen")):
        found = []
        for seed in SEEDS:
            mine = [r for r in load("edge") if int(r["seed"]) == seed]
            wrote, agree = (np.mean(x) for x in zip(*(
                (edge.wrote(r), edge.wrote(r) == (edge.pays(r, luck) > 0)) for r in mine)))
            constant = max(wrote, 1 - wrote)        # who always says the commoner one
            found.append(tuple(x - constant for x in share(agree, len(mine))))
        yield claim("a product and a comparison say which bases learn to write", how,
                    "share of 12 bases where write > jump" + ", luck counted," * bool(luck) + " and"
                    " what RL learned agree - the same of whoever always says the commoner", found,
                    "above 0")

def three_of(row):      # mean of three greedy decoders, of each problem
    return rl.from_bits(row["bits"]).reshape(3, -1).mean(0)

def paired(runs, others, at):       # the rows of two lists of runs
    return [bootstrap(three_of(a[at]) - three_of(b[at])) for a, b in zip(runs, others)]

def by_fast():
    def of(kind):
        return [rl.of(load("fast"), fast.of_kind(kind, s)) for s in SEEDS]
    for at, when in WHEN.items():
        yield claim("the quarter with the highest entropy trains as well as all",
                    f"{PAPER}, fig. 9", f"all - top quarter, after {when}, {MEAN}",
                    paired(of("all"), of("top quarter by entropy"), at), "below .05")
        yield claim("and better than a random quarter", PAPER,
                    f"top - random, after {when}, {MEAN}",
                    paired(of("top quarter by entropy"), of("a random quarter"), at), "above 0")

def by_story():
    def of(model, name):
        return [pick(load("beyond"), seed=s, model=model, set=name, decoder="left to right")
                for s in SEEDS]
    for name in ("7 operations", "8 operations", "rare operands"):
        yield claim("what RL taught reaches beyond the task", US,
                    f"justgrpo - base, {name}, greedy left to right",
                    [bootstrap(frontier.correct(a) - frontier.correct(b))
                     for a, b in zip(of("justgrpo", name), of("base", name))], "above 0")
        yield claim("it writes as many steps as the story has", US, f"share of texts, {name}",
                    [share(r["every_step"]) for r in of("justgrpo", name)], "above .5")

PLAIN, *OTHER_SETTINGS = knobs.SETTINGS

@functools.cache
def of_knob(setting):       # rows of knobs.py's runs, by seed
    return [rl.of(load("knobs"), knobs.run_of(setting, s)) for s in SEEDS]

def knob(setting, column):  # at the end
    return [rl.number(run[-1], column) for run in of_knob(setting)]

RESCUED = [name for name in knobs.OTHERS if any(
    what in name for what in ("none masked", "4 updates", "from .2"))]

def beside_plain(setting, at):
    return paired(of_knob(setting), of_knob(PLAIN), at)

def by_knob():
    for setting in OTHER_SETTINGS:
        for at, when in WHEN.items():
            yield claim(f"{setting}: no different", US,
                        f"less the plain setting, after {when}, {MEAN}", beside_plain(setting, at),
                        "within .05 of 0")

PARTS = [(1, by_arm), (2, by_content), (2, by_harder_task), (3, by_block), (4, by_frontier),
         (4, by_still), (5, by_k), (6, by_erosion), (6, by_edge), (7, by_fast),
         (8, by_story), (9, by_knob)]

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
            rows, arm = load("curves"), name.split(",")[0]
            mine = curves.at_best(rows, name, SEEDS)
            cells = [ARMS[arm][3], *cells, curves.lr(curves.best(rows, name, SEEDS)),
                     curves.trained_well(rows, name, SEEDS), *(
                f"{curves.along(mine, c, name)[-1]:,.0f}"
                for c in ("seconds", "evaluations", "states"))]
        else:
            cells = ["" if name == trained.BASE else "1,600 pretraining steps, not 1,300", *cells]
            cells += [""] * 5
        out.append([name, *cells])
    return markdown(["arm", "what differs", "left to right", "LCR", "threshold .9", "rate",
                     "runs that train", "seconds", "evaluations", "states run"], out)

def contents_table():
    """README.md's: what rollouts contain before training, and how many write every step later."""
    out = []
    for order, name in content.ORDERS.items():
        mine = plain_runs(name)
        cells = ["; ".join(content.counted(one[0], share, right) for one in mine)
                 for share, right in (("all_steps", "right_all"), ("no_steps", "right_none"))]
        out.append([order, *cells, *(rl.each((one[at]["all_steps"] for one in mine), "{:.2f}")
                                     for at in (1, -1))])
    return markdown(["rollouts", "with every step, of 512 (right)", "with none (right)",
                     "every step after 5 RL steps", "after 60"], out)

def tables():
    scripts = (curves, content, freedom, frontier, still, after, erosion, edge, fast, beyond, knobs)
    lines = ((number, *line) for number, part in PARTS for line in part())
    return {"rl_verdicts": verdict_table(lines), **under(scripts, load)}

def readme_tables():
    return {"methods": methods_table(), "contents": contents_table()}

def by_seed(found):     # "+0.59, +0.48, +0.45"
    return ", ".join("0.00" if abs(value) < 0.005 else f"{value:+.2f}" for value, *_ in found)

def in_runs(names):     # "4 to 8"
    return span([curves.n_trained(load("curves"), n, SEEDS)[0] for n in names], "{}")

def close():    # the arms that end within .03 of justgrpo on each base, or ahead
    return [name for name in OTHERS if max(x for x, *_ in leads("justgrpo", name)) < 0.03]

def after_k(model, decoder, k, column="correct"):
    return span([at_k(model, decoder, k, column, s) for s in SEEDS])

def at_k(model, decoder, k, column, seed):
    return solved(pick(load("after"), seed=seed, model=model, decoder=decoder), k, column).mean()

def fewer(model, seed):     # of the problems, in order of confidence, within 256 samples
    base, after = (at_k(m, LCR, 256, "correct", seed) for m in (trained.BASE, model))
    return f"{base - after:.2f}"

def evaluations(name):      # thousands, of a run at the best rate
    runs = curves.at_best(load("curves"), name, SEEDS)
    return span([float(run[-1]["evaluations"]) / 1000 for run in runs], "{:.0f}")

def within_budget(nfe, model):      # the best decoder's accuracy
    return span([frontier.correct(frontier.best_within(load("frontier"), s, model, nfe)).mean()
                 for s in SEEDS])

def exact_gains(rate):      # confidence_exact - confidence, in one block, both at this rate
    ends = [curves.last(load("curves"), arm, rate, SEEDS)
            for arm in ("confidence_exact", "confidence")]
    return by_seed((curves.mean(a) - curves.mean(b),) for a, b in zip(*ends))

def headlines():
    """The phrases with numbers in README.md's prose; tests/test_readme.py looks for them there."""
    keep_up = [name for name in OTHERS if min(early(name)) > min(early("justgrpo")) - 0.01]
    behind = [name for name in OTHERS if above(leads("justgrpo", name)) == "holds"]
    blocks, rows = "fork, blocks of 8", load("edge")
    did_not = [r for r in rows if not edge.wrote(r)]
    exact = [exact_gains(rate) for rate in curves.RATES]
    derived = [at_k(model, LTR, 1, "derived", 1) for model in ("rejection", "justgrpo")]
    return [
        f"300 more steps of pretraining (by {by_seed(leads('justgrpo', trained.LONGER))}) and than "
        f"rollouts in random order (by {by_seed(leads('justgrpo', 'random'))})",
        f"in {in_runs(['justgrpo'])} of its nine runs, the others in one block in "
        f"{in_runs(n for n in OTHERS if n not in curves.IN_BLOCKS)}, in blocks of 8 in "
        f"{in_runs(curves.IN_BLOCKS)}",
        f"it solves {span(early('justgrpo'))} of the problems left to right, and of the "
        f"{len(OTHERS)} others {' and '.join(keep_up).replace(', ', ' in ')} alone keeps up on "
        "every base",
        f"{by_seed(gains('justgrpo', frontier.THRESHOLD))} at threshold .9, "
        f"{by_seed(gains('justgrpo', frontier.BOUND))} at entropy bound .1",
        f"the base has {within_budget(3, trained.BASE)} against {within_budget(3, 'justgrpo')}",
        f"it finds for {after_k('base', LCR, 256, 'derived')} of the problems, JustGRPO for "
        f"{after_k('justgrpo', LCR, 256, 'derived')}",
        "{}, and no other on more than {} of 3".format(
            "; ".join(on_every_base()),
            max(n for n in map(bases_learned, content.FAST) if n < 3)),
        "from left to right they then solve {:.2f}, {:.2f} and {:.2f}".format(*(
            knob(name, "left_to_right")[0] for name in RESCUED)),
        f"two are behind JustGRPO on every base, {' and '.join(behind)} in one block",
        f"{len(close())} of the {len(OTHERS)} others end within .03 of it on every base, or ahead",
        f"{evaluations(blocks)} thousand evaluations against {evaluations('justgrpo')} thousand",
        f"(JustGRPO less it: {by_seed(leads('justgrpo', 'rejection'))}). But it has "
        f"{in_runs(['rejection'])} of 9 runs; on base 1 only {derived[0]:.2f} of its "
        f"samples from left to right are derivations (JustGRPO's: {derived[1]:.2f}); and on the "
        f"harder task it learns on {bases_learned('rejection')} base of 3",
        f"{sum(bases_learned(n) == 0 for n in content.FAST)} of {len(content.FAST)} arms learn on "
        "no base",
        f"one block {exact[0]} on the three bases at 1.5e-5, {exact[1]} at 5e-5, and {exact[2]} at "
        "1.5e-4",
        f"at its best rate, {by_seed(leads('confidence_exact', 'confidence'))}",
        f"of {len(rows)} bases of all strengths, {len(did_not)} that half know",
        f"{by_seed(gains('justgrpo', K4))} at four tokens a step, "
        f"{by_seed(gains('justgrpo', K1))} at one"]

def page_headlines():
    """Those in experiments/README.md's."""
    lengths = [str(curves.n_trained(load("freedom"), length, SEEDS, freedom.of_length)[0])
               for length in freedom.BLOCK_LENGTHS]
    lcr = plain_runs("confidence")[0][0]
    changes = [float(pick(load("still"), seed=s, model="justgrpo")["mix_change_value"])
               for s in SEEDS]
    def solve(models, *names):
        return span([frontier.correct(r).mean() for r in load("beyond") if r["set"] in names
                     and r["model"] in models and r["decoder"] == "left to right"])
    def ends(column, *rates):
        return span([x for rate in rates for way in ("falling", "constant")
                     for x in final(rate, way, column)])
    def eroded(rate, column, form="{:.2f}"):
        return ", ".join(form.format(x) for x in final(rate, "constant", column))
    far = [final("4e-4", "constant", "far_hash", at) for at in (0, -1)]
    bases = load("edge")
    wrong = [sum(edge.wrote(r) != (edge.pays(r, luck) > 0) for r in bases)
             for luck in (0, edge.LUCK)]
    (_, wrote, _), (_, *others) = edge.check(bases, edge.LUCK)
    seldom = [r for r in bases if r["direct"] == "80" and int(r["steps"]) >= 700]
    four = [name for name in knobs.SETTINGS if name.startswith("4 updates")]
    fork, elbo = [name for name in knobs.OTHERS if "fork" in name], RESCUED[-1]
    def more_states(*names):
        plain = knob(PLAIN, "states")
        return span([x / y for n in names for x, y in zip(knob(n, "states"), plain)], "{:.1f}")
    some, none = learned([run for name in content.FAST for run in harder(name)])
    eight = [bases_learned(f"{arm}, blocks of 8") for arm in ("confidence", "confidence_exact",
                                                              "one_step", "mismatch", "elbo")]
    return [
        f"{sum(some)} of {len(some)} did that had some, {sum(none)} of {len(none)} that had none",
        f"write every step on all three bases: {'; '.join(on_every_base())}.",
        "confidence learns on {} of 3 bases, and with the probability of its choice of position on "
        "{} (see the verdicts); one_step and mismatch on {} each, elbo on {}.".format(
            *eight[:3], eight[-1]),
        f"{bases_learned('rejection')} of 3 after 60 steps",
        f"Of the nine runs {', '.join(lengths[:-1])} and {lengths[-1]} end with .9 or more",
        f"{float(lcr['signal']):.2f} of the groups had a signal, and "
        f"{rl.number(lcr, 'all_steps') * float(lcr['n_rollouts']):.0f} of 512 rollouts every step",
        f"derived {after_k('base', LCR, 256, 'derived')} of the problems before justgrpo and "
        f"{after_k('justgrpo', LCR, 256, 'derived')} after it",
        f"cost {span(changes)} nats a token more",
        f"justgrpo solves {solve(['justgrpo'], 'rare operands')} from left to right, and the base "
        f"{solve(['base'], 'rare operands')}",
        f"all models solve {solve(trained.MODELS, '7 operations', '8 operations')} from left to "
        "right",
        f"Tuned, {len(close())} of the {len(OTHERS)} others end within .03 of justgrpo on every "
        "base, or ahead",
        f"within 256 samples solve {fewer('confidence_exact', 0)} and "
        f"{fewer('elbo, blocks of 8', 0)} of the problems less than the base",
        f"and solves {fewer('random', 2)} less",
        f"{ends('left_to_right', *erosion.RATES)} after 60 steps at every rate",
        f"threshold .9 ends at {eroded('5e-5', 'threshold')} with a constant 5e-5, and at "
        f"{eroded('4e-4', 'threshold')} with 4e-4",
        f"from {span(far[0])} before to {span(far[-1])} after",
        f"{eroded('5e-5', 'nfe_threshold', '{:.1f}')} at 5e-5 and "
        f"{eroded('4e-4', 'nfe_threshold', '{:.1f}')} at 4e-4",
        f"it is wrong about {wrong[0]} of {len(bases)} bases",
        f"it is wrong about {wrong[1]} of {len(bases)}",
        f"all {wrote} bases where writing pays then wrote; of the other {sum(others)}, all within "
        f".02 of zero, {others[1]} did not",
        "{} of its rollouts had every step before RL, and {} after it".format(*(
            span([rl.number(r, f"all_steps_{when}") for r in seldom])
            for when in ("before", "after"))),
        f"all {len([n for n in OTHER_SETTINGS if within(beside_plain(n, -1), 0.05) == 'holds'])} "
        "other settings are within .05 of the plain one",
        f"from {span([knob(n, 'entropy_bound')[0] for n in knobs.SETTINGS])} there",
        f"by {span([beside_plain(n, 1)[0][0] for n in four])} on base 0 after five steps, for "
        f"three times the evaluations and {more_states(*four)} times the states",
        f"have {more_states('rollouts at T 1.3')} times the states",
        f"(left to right {knob(elbo, 'left_to_right')[0]:.2f}, LCR "
        f"{knob(elbo, 'confidence')[0]:.2f})",
        f"in {span(knob(fork[1], 'all_steps'))} of its rollouts, not "
        f"{span(knob(fork[0], 'all_steps'))}"]

if __name__ == "__main__":
    publish({PAGE: tables(), README: readme_tables()}, [*headlines(), *page_headlines()])
