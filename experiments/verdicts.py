"""The verdict table and the other tables of experiments/README.md, from the rows in assets/trap.

    python experiments/verdicts.py            print them
    python experiments/verdicts.py --write    put them into experiments/README.md, between markers

tests/test_readme.py fails if the page and the rows differ. The verdict follows from the three
seeds' intervals by a rule that each claim states: it holds if all three are on its side, it does
not hold if all three are on the other, else it is undecided. What prints as 0.000 is not above
0."""
import functools
import math
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
from eval_gsm8k import bootstrap, read_csv
from experiments import (block_length, coverage, entropy, forks, pass_at_k, rebuttal, sudoku,
                         temperature)
from experiments.bases import SEEDS
from experiments.rows import ASSETS, BLOCKS, LCR, LTR, RANDOM, TPP, mcnemar, solved, spearman
from experiments.tables import markdown, pick, publish

KIND = {"correct": "pass", "derived": "derivations"}
COUNTS = (1, "correct"), (64, "correct"), (64, "derived")
SUREST = sudoku.ARMS[3]      # TPP
LTR1, LCR2, LCR8 = (block_length.arm(LCR, b) for b in (1, 2, 8))
TPP8 = block_length.arm(TPP, 8)
HARD, EARLY, FEW = (dict(variant=name) for name in ("hard", "early-direct-0", "direct-25"))
PUZZLE = dict(temperature=0.6)
EGI = pass_at_k.OTHERS[2]
EQUAL = "within .02 of 0"
PAGE = Path(__file__).resolve().parent / "README.md"
PAPER, REJECTION, FALLBACK = "2601.15165", "2609.34509", "2609.39859"
TRAP, ORDERED = "2601.15165, fig. 1", "2502.06768"

@functools.cache
def load(name):
    return read_csv(ASSETS / f"{name}.csv")

def gap(rows, seed, a, b, k, column="correct", **want):
    """pass@k of arm a less that of arm b, (Q,): of every problem."""
    one, other = (solved(pick(rows, arm=arm, seed=seed, **want), k, column) for arm in (a, b))
    return one - other

def leads(rows, a, b, k, column="correct", **want):
    """By how much arm a is ahead of arm b, by seed: value, low, high of gap()'s mean."""
    return [bootstrap(gap(rows, seed, a, b, k, column, **want)) for seed in SEEDS]

def over_half(rows, part, whole, k, column, **want):
    """How far pair `part` of arms lies apart beyond half of what pair `whole` does -> that by seed
    (value, low, high); and the whole by seed, as a text."""
    parts, wholes = ([gap(rows, seed, *pair, k, column, **want) for seed in SEEDS]
                     for pair in (part, whole))
    return ([bootstrap(x - all_ / 2) for x, all_ in zip(parts, wholes)],
            ", ".join(f"{all_.mean():.3f}" for all_ in wholes))

def judge(intervals, holds, fails):
    """holds, fails: (low, high) -> bool."""
    if all(holds(low, high) for _, low, high in intervals):
        return "holds"
    return ("does not hold" if all(fails(low, high) for _, low, high in intervals)
            else "undecided")

def above(intervals, bar=0.0):      # the claim: it is more than `bar`, and not in the 4th decimal
    return judge(intervals, lambda low, high: low >= bar + 0.0005, lambda low, high: high < bar)

def below(intervals, bar=0.0):
    return judge(intervals, lambda low, high: high <= bar - 0.0005, lambda low, high: low > bar)

def within(intervals, bar):         # the claim: it is no more than `bar` from 0
    return judge(intervals, lambda low, high: -bar < low and high < bar,
                 lambda low, high: low > bar or high < -bar)

def shown(intervals, form="{:+.3f} [{:+.3f}, {:+.3f}]"):
    return "; ".join("none" if math.isnan(one[0]) else form.format(*one) for one in intervals)

SHARE = "{:.3f} [{:.3f}, {:.3f}]"

def claim(text, whose, what, intervals, side, **form):
    """A line of a verdict table. side: as the table says it and as it is judged, "above .05"."""
    rule, bar, *_ = side.split()
    judged = {"above": above, "below": below, "within": within}[rule](intervals, float(bar))
    return text, whose, f"{what}, {side}", shown(intervals, **form), judged

CALLED = {LTR: "left to right", LTR1: "left to right", LCR: "LCR in one block",
          BLOCKS: "LCR in blocks of 8", LCR2: "LCR in blocks of 2", TPP: "TPP in one block",
          TPP8: "TPP in blocks of 8", RANDOM: "random", EGI: "exploratory",
          pass_at_k.FORK: "fork .9"}

def lead_claim(text, whose, rows, a, b, k, column="correct", side="above 0", **want):
    """The same, about arm a's lead over arm b in pass@k."""
    return claim(text, whose, f"{CALLED[a]} - {CALLED[b]}, {KIND[column]}@{k}",
                 leads(rows, a, b, k, column, **want), side)

def by_order(rows, shared):
    """pass@k, blocks and fork: what the paper's first figure says, and what its critics say."""
    yield lead_claim("one sample: confidence first is slightly ahead", TRAP, rows, BLOCKS, LTR, 1)
    yield lead_claim("the same, with hardly any freedom (not foreseen: seen in the rows)", TRAP,
                     shared, LCR2, LTR1, 1)
    for decoder in (BLOCKS, LCR):
        yield lead_claim("many samples: left to right is ahead", TRAP, rows, LTR, decoder, 256)
    yield lead_claim("random order, far behind at one sample, overtakes confidence at many",
                     f"{PAPER}, table 4", rows, RANDOM, LCR, 256)
    for source, ltr, tpp in ((rows, LTR, TPP), (shared, LTR1, TPP8)):
        yield lead_claim("place first, then draw: the gap is gone", REJECTION, source, ltr, tpp, 64,
                         side=EQUAL)
    for k in (1, 64):
        yield lead_claim("one commit at the greatest entropy, then TPP: better than left to right",
                         REJECTION, rows, EGI, LTR, k)
    yield lead_claim("in right derivations, too, the gap is gone", REJECTION, rows, LTR, TPP, 64,
                     "derived", EQUAL)
    yield lead_claim("left to right is ahead in right derivations", PAPER, rows, LTR, LCR, 64,
                     "derived")
    fork = pass_at_k.FORK
    yield lead_claim("leftmost only where nothing is sure: left to right's pass@k for half the "
                     "evaluations", FALLBACK, rows, LTR, fork, 64,
                     side=f"{EQUAL} (it takes {fewer(LTR, fork)} times fewer)")

def by_coverage(rows):
    for variant, title in coverage.VARIANTS.items():
        for column, what in coverage.WHAT.items():
            tests = [mcnemar(*(pick(rows, variant=variant, arm=arm, seed=s) for arm in (LTR, LCR)),
                             column) for s in SEEDS]
            gaps = leads(rows, LTR, LCR, 1024, column, variant=variant)
            yield (f"what left to right solves in 1,024 samples, freedom does not; {title}, {what}",
                   f"{PAPER}, fig. 4", "only left to right : only LCR in one block, of 200 "
                   "(exact McNemar p); difference above 0",
                   "; ".join(f"{a} : {b} (p = {p:.1g})" for a, b, p in tests), above(gaps))

def by_block(rows):
    picks = np.random.default_rng(0).integers(200, size=(1000, 200))
    for order in (LCR, TPP):
        found = []
        for seed in SEEDS:
            means = [solved(pick(rows, arm=block_length.arm(order, b), seed=seed), 64)
                     for b in block_length.BLOCK_LENGTHS]
            draws = [spearman(range(6), [m[p].mean() for m in means]) for p in picks]
            found.append((spearman(range(6), [m.mean() for m in means]),
                          *np.nanpercentile(draws, [2.5, 97.5])))
        yield claim(f"the longer the blocks, the lower pass@k ({order.order})", f"{PAPER}, fig. 5",
                    "rank correlation of pass@64 with the block length, 6 lengths", found,
                    "below 0")

def by_temperature(rows):
    for decoder, whose in ((LCR, f"{PAPER}, app. B.1"), (TPP, PAPER)):
        for k in (1, 64):
            ltr, other = ([temperature.best(rows, d, s, k)[1] for s in SEEDS]
                          for d in (LTR, decoder))
            yield claim("also at each order's own best temperature left to right is ahead", whose,
                        f"left to right - {CALLED[decoder]}, pass@{k}, best T of 5 from the other "
                        "half of the problems", [bootstrap(a - b) for a, b in zip(ltr, other)],
                        "above 0")

def by_entropy(rows):
    def share(name, measure="share", decoder=LCR):
        return [entropy.found(rows, s, decoder, name, measure) for s in SEEDS]
    for kind in ("fork: go on", "fork: jump"):
        ltr, lcr = (share(kind, "entropy", decoder) for decoder in (LTR, LCR))
        # The ratio; its interval, from the far ends of the two, is on the safe side.
        left = [(b[0] / a[0], b[1] / a[2], b[2] / a[1]) for a, b in zip(ltr, lcr)]
        nats = ", ".join(f"{a[0]:.2f}" for a in ltr)
        yield claim(f"forks lose their entropy ({kind.split(': ')[1]})", f"{PAPER}, fig. 7",
                    "entropy at commit, LCR in one block / left to right", left,
                    f"below 1 (left to right: {nats} nats)", form=SHARE)
    yield claim("because they are skipped, and filled when their context is there",
                f"{PAPER}, fig. 6", "share of forks that go on with a later token of the text "
                "before them, LCR in one block", share("fork: go on", "bypass"), "above .05",
                form=SHARE)
    yield claim("or because the length was there first (not foreseen: seen in an earlier table)",
                "us", "share of texts whose end was committed before the first fork, LCR in one "
                "block", share("end_first"), "above .95", form=SHARE)
    yield claim("that is, its padding: not all steps fit any more (measured after a review)", "us",
                "share of texts that this was so of before the first fork, LCR in one block",
                share("no_room"), "above .5", form=SHARE)

def by_parts(rows):
    for k in (1, 64):
        for name, text, whose in (
                ("left to right", "less diversity is the cause: at equal rates of non-top commits "
                 "the gap is gone", REJECTION),
                ("TPP", "at equal rates TPP is no better than LCR", "the other side of it")):
            yield claim(text, whose, f"{name} at LCR's rate - LCR, pass@{k}",
                        leads(rows, rebuttal.at_rate(name, "LCR"), LCR, k), EQUAL)
    for k, column in COUNTS:
        for name in ("LCR", "TPP"):
            yield claim("more diversity is the cure: with left to right's rate the gap is gone",
                        REJECTION,
                        f"left to right - {name} at left to right's rate, {KIND[column]}@{k}",
                        leads(rows, LTR, rebuttal.at_rate(name, "left to right"), k, column), EQUAL)
    for k, column in COUNTS:
        for path, a, b in (("LCR's draws at left to right's places", LTR, rebuttal.LAW),
                           ("fresh draws at LCR's places", rebuttal.FRESH, LCR)):
            over, whole = over_half(rows, (a, b), (LTR, LCR), k, column)
            yield claim("the draws, not the places, make the gap", REJECTION, "what the draws cost "
                        f"({path}) less half of the gap ({whole}), {KIND[column]}@{k}", over,
                        "above 0")

def by_fork(rows):
    for k in (1, 64):
        for decoder in (LCR, TPP):
            for variant, what in (("direct-0", "well trained"),
                                  ("early-direct-0", "stopped early")):
                yield lead_claim(f"without forks there is no gap ({what})",
                                 f"{PAPER} (its reverse)", rows, LTR, decoder, k, side=EQUAL,
                                 variant=variant)
    yield lead_claim("one sample: confidence first is slightly ahead (no forks, stopped early)",
                     TRAP, rows, LCR, LTR, 1, **EARLY)
    for decoder in (BLOCKS, LCR):
        yield lead_claim("one sample: confidence first is slightly ahead (.25 direct answers)",
                         TRAP, rows, decoder, LTR, 1, **FEW)
        for k, column in ((8, "correct"), *COUNTS[1:]):
            yield lead_claim("many samples: left to right is ahead (.25 direct answers)", TRAP,
                             rows, LTR, decoder, k, column, **FEW)
    for column in KIND:
        yield lead_claim("many samples: left to right is ahead (forks, stopped early)", TRAP, rows,
                         LTR, LCR, 64, column, variant="early")
    for variant, what in (("early-direct-0", "no forks, stopped early"),
                          ("default", "forks, well trained")):
        for column, kind in KIND.items():
            over, whole = over_half(rows, (TPP, LCR), (LTR, LCR), 64, column, variant=variant)
            yield claim(f"place first, then draw: most of LCR's gap is gone ({what})", REJECTION,
                        f"TPP - LCR less half of the gap ({whole}), in one block, {kind}@64", over,
                        "above 0")
    for k in (1, 64):
        for decoder in (LCR, TPP):
            more = [bootstrap(gap(rows, seed, LTR, decoder, k, variant="direct-70")
                              - gap(rows, seed, LTR, decoder, k, variant="direct-0"))
                    for seed in SEEDS]
            yield claim("the gap comes with the forks", PAPER, f"lead over {CALLED[decoder]} with "
                        f".7 direct answers - with none, pass@{k}", more, "above 0")

def by_puzzle(rows):
    def wins(arm, k, t):
        return [sudoku.by_grid(gap(rows, seed, arm, LTR, k, temperature=t)) for seed in SEEDS]
    for arm, name in ((SUREST, "TPP"), (sudoku.ARMS[4], "margin")):
        for t, what in ((0.0, "greedy"), (0.6, "pass@1, T=.6")):
            yield claim("where the easy cells come first, freedom wins: 4x4 Sudoku", ORDERED,
                        f"{name} - left to right, {what}", wins(arm, 1, t), "above 0")
    yield claim("and does so at many samples", "us", "TPP - left to right, pass@64",
                wins(SUREST, 64, 0.6), "above 0")

def all_verdicts():
    parts = [(by_order, "pass_at_k", "block_length"), (by_coverage, "coverage"),
             (by_block, "block_length"), (by_temperature, "temperature"), (by_entropy, "entropy"),
             (by_parts, "rebuttal"), (by_fork, "forks"), (by_puzzle, "sudoku")]
    return [(number, *line) for number, (part, *names) in enumerate(parts, 1)
            for line in part(*map(load, names))]

def span(values, form="{:.2f}"):    # "0.41 to 0.54": from the least to the greatest seed
    low, high = form.format(min(values)), form.format(max(values))
    return low if low == high else f"{low} to {high}"

def means(name, arm, k, column="correct", **want):      # pass@k by seed
    rows = load(name)
    return [solved(pick(rows, arm=arm, seed=seed, **want), k, column).mean() for seed in SEEDS]

def differences(name, a, b, *args, **want):     # arm a's less arm b's, by seed
    return [x - y for x, y in zip(*(means(name, arm, *args, **want) for arm in (a, b)))]

def level(*args, **want):
    return span(means(*args, **want))

def ahead(*args, form="{:.2f}", **want):
    return span(differences(*args, **want), form)

def part(name, a, b, *args, whole=(LTR, LCR), **want):  # the same, as a share of the whole gap
    return span([x / y for x, y in zip(*(differences(name, *pair, *args, **want)
                                         for pair in ((a, b), whole)))])

def in_texts(arm, name, measure="share"):
    return span([entropy.found(load("entropy"), seed, arm, name, measure)[0] for seed in SEEDS])

def fewer(a, b):        # evaluations of arm a, over those of arm b
    rows = load("pass_at_k")
    return span([float(pick(rows, arm=a, seed=seed)["nfe"]) / float(
        pick(rows, arm=b, seed=seed)["nfe"]) for seed in SEEDS], "{:.1f}")

def few_direct():       # .25 direct answers: ahead at one sample, behind at 8
    block = ", ".join(f"{x:+.2f}" for x in differences("forks", LCR, LTR, 1, **FEW))
    return ahead("forks", BLOCKS, LTR, 1, **FEW), block, ahead("forks", LTR, LCR, 8, **FEW)

def headlines():
    """The phrases with numbers in README.md's prose; tests/test_readme.py looks for them there."""
    steps = [level("coverage", arm, 1024, "derived", **HARD) for arm in (LTR, LCR, TPP)]
    low = rebuttal.at_rate("left to right", "LCR")
    return [
        "ahead by {} at one sample (by {} in one block, and behind by {} at 8)".format(
            *few_direct()),
        f"right in {level('pass_at_k', LTR, 1)} of its samples, confidence in "
        f"{level('pass_at_k', LCR, 1)}",
        f"{level('pass_at_k', LTR, 64)} of the problems against {level('pass_at_k', LCR, 64)}",
        f"for {steps[0]} of the problems, confidence for {steps[1]}, `top_probability` for "
        f"{steps[2]}",
        f"in {in_texts(LCR, 'no_room')} of the texts",
        f"{in_texts(LTR, 'fork: jump', 'entropy')} nats from left to right, "
        f"{in_texts(LCR, 'fork: jump', 'entropy')} in order of confidence",
        f"ahead by {ahead('forks', LCR, LTR, 1, **EARLY)} at one sample and behind by "
        f"{ahead('forks', LTR, LCR, 64, **EARLY)} at 64",
        f"back {part('forks', TPP, LCR, 64, variant='default')} of the gap at 64 samples "
        f"({part('block_length', TPP8, LCR8, 64, whole=(LTR1, LCR8))} in blocks of 8)",
        f"leaves {part('rebuttal', low, LCR, 64)} of it",
        f"{level('sudoku', SUREST, 1, **PUZZLE)} against {level('sudoku', LTR, 1, **PUZZLE)}"]

def page_headlines():
    """Those in experiments/README.md's."""
    fork = pass_at_k.FORK
    low, *high = (rebuttal.at_rate(*pair) for pair in (
        ("left to right", "LCR"), ("LCR", "left to right"), ("TPP", "left to right")))
    def draws(*pair):       # what they cost, at the three counts
        return [part("rebuttal", *pair, *count) for count in COUNTS]
    one, many, derived = draws(rebuttal.FRESH, LCR)
    return [
        "by {} in blocks of 8 and by {} in one block; more samples add little, and in one block "
        "left to right is ahead by {} at 8".format(*few_direct()),
        f"right by {ahead('block_length', LCR2, LTR1, 1)} at one sample",
        f"ahead by {ahead('pass_at_k', EGI, LTR, 1)} at one sample and behind by "
        f"{ahead('pass_at_k', LTR, EGI, 64, form='{:.3f}')} at 64, for {fewer(EGI, LTR)} times",
        f"ahead by {ahead('forks', LCR, LTR, 1, **EARLY)} at one sample and behind by "
        f"{ahead('forks', LTR, LCR, 64, **EARLY)} at 64",
        f"back {part('forks', TPP, LCR, 64, **EARLY)} of that gap",
        f"back {part('forks', TPP, LCR, 64, variant='default')} of it at 64 samples (in blocks of "
        f"8, {part('block_length', TPP8, LCR8, 64, whole=(LTR1, LCR8))} of a smaller gap)",
        f"{part('forks', TPP, LCR, 64, 'derived', **EARLY)} without forks, "
        f"{part('forks', TPP, LCR, 64, 'derived', variant='default')} with them",
        f"leaves {part('rebuttal', low, LCR, 64)} of the gap",
        *(f"{ahead('rebuttal', LTR, arm, 64)} behind in answers and "
          f"{ahead('rebuttal', LTR, arm, 64, 'derived')} in derivations" for arm in high),
        f"cost {one} of the gap at one sample, {many} at 64, and {derived} of that in derivations",
        "places, {}, {} and {};".format(*draws(LTR, rebuttal.LAW)),
        f"in {in_texts(LCR, 'leftmost')} of LCR's commits",
        "replayed, {}, {} and {}.".format(*draws(rebuttal.REPLAY, LCR)),
        f"in {in_texts(LCR, 'no_room')} of the texts",
        f"takes {fewer(LTR, fork)} times fewer evaluations, and is behind by "
        f"{ahead('pass_at_k', LTR, fork, 64)} at 64 samples, {ahead('pass_at_k', LTR, fork, 1)} at "
        "one",
        f"{level('sudoku', SUREST, 1, **PUZZLE)} against {level('sudoku', LTR, 1, **PUZZLE)} "
        f"with one sample, and {level('sudoku', LTR, 256, **PUZZLE)} with 256"]

def verdict_table(lines):
    return markdown(["", "claim", "whose", "the number that decides", "ours, seeds 0; 1; 2 [95 %]",
                     "verdict"], lines)

def under(scripts, load):       # an experiment's name -> its tables
    named = {script.__name__.split(".")[-1]: script for script in scripts}
    return {name: "\n\n".join(markdown(*table(load(name), SEEDS)) for table in script.TABLES)
            for name, script in named.items()}

def tables():
    """name -> markdown, as it stands in experiments/README.md between <!-- NAME --> markers."""
    scripts = pass_at_k, coverage, block_length, temperature, entropy, rebuttal, forks, sudoku
    return {"verdicts": verdict_table(all_verdicts()), **under(scripts, load)}

if __name__ == "__main__":
    publish({PAGE: tables()}, [*headlines(), *page_headlines()])
