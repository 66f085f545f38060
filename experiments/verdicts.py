"""The verdict table and the other tables of experiments/README.md, from the rows in assets/trap.

    python experiments/verdicts.py            print them
    python experiments/verdicts.py --write    put them into experiments/README.md, between markers

tests/test_trap.py fails if the page and the rows differ. The verdict follows from the three seeds'
intervals by a rule that each claim states: it holds if all three are on its side, it does not hold
if all three are on the other, else it is undecided."""
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
from eval_gsm8k import bootstrap, read_csv
from experiments import (block_length, coverage, entropy, forks, pass_at_k, rebuttal, sudoku,
                         temperature)
from experiments.bases import SEEDS
from experiments.rows import (ASSETS, BLOCKS, LCR, LTR, TPP, crossing, lead, mcnemar, pick, solved,
                              spearman, value)
from experiments.tables import fill, markdown

PAGE = Path(__file__).resolve().parent / "README.md"
PAPER, REJECTION, FALLBACK = "2601.15165", "2609.34509", "2609.39859"
TRAP, ORDERED = "2601.15165, fig. 1", "2502.06768"

def load(name):
    return read_csv(ASSETS / f"{name}.csv")

def leads(rows, a, b, k, column="correct", **want):
    """By how much arm a is ahead of arm b, by seed."""
    return [lead(*(pick(rows, arm=arm, seed=seed, **want) for arm in (a, b)), k, column)
            for seed in SEEDS]

def judge(intervals, holds, fails):
    """holds, fails: (low, high) -> bool."""
    if all(holds(low, high) for _, low, high in intervals):
        return "holds"
    return ("does not hold" if all(fails(low, high) for _, low, high in intervals)
            else "undecided")

def above(intervals, bar=0.0):      # the claim: it is more than `bar`
    return judge(intervals, lambda low, high: low > bar, lambda low, high: high < bar)

def within(intervals, bar):         # the claim: it is no more than `bar` from 0
    return judge(intervals, lambda low, high: -bar < low and high < bar,
                 lambda low, high: low > bar or high < -bar)

def shown(intervals, form="{:+.3f} [{:+.2f}, {:+.2f}]"):
    return "; ".join(form.format(*one) for one in intervals)

def by_order(rows, shared):
    """pass@k, blocks and fork: what the paper's first figure says, and what its critics say."""
    one, two, eight, whole = (block_length.arm(LCR, b) for b in (1, 2, 8, None))
    tpp8, egi = block_length.arm(TPP, 8), pass_at_k.OTHERS[2]
    first, last = leads(rows, BLOCKS, LTR, 1), leads(rows, LTR, BLOCKS, 256)
    yield ("one sample: confidence first is slightly ahead", TRAP,
           "LCR in blocks of 8 - left to right, pass@1, above 0", shown(first), above(first))
    small = leads(shared, two, one, 1)
    yield ("the same, with hardly any freedom (not foreseen: seen in the rows)", TRAP,
           "LCR in blocks of 2 - left to right, pass@1, above 0", shown(small), above(small))
    for decoder, gaps in ((eight, last), (whole, leads(rows, LTR, LCR, 256))):
        yield ("many samples: left to right is ahead", TRAP,
               f"left to right - LCR in {'blocks of 8' if decoder is eight else 'one block'}, "
               "pass@256, above 0", shown(gaps), above(gaps))
    random = leads(rows, pass_at_k.RANDOM, LCR, 256)
    yield ("random order, far behind at one sample, overtakes confidence at many",
           f"{PAPER}, table 4", "random - LCR in one block, pass@256, above 0", shown(random),
           above(random))
    for ltr, decoder, source, name in ((LTR, TPP, rows, "one block"),
                                       (one, tpp8, shared, "blocks of 8")):
        gap = leads(source, ltr, decoder, 64)
        yield ("place first, then draw: the gap is gone", REJECTION,
               f"left to right - TPP in {name}, pass@64, within .02 of 0", shown(gap),
               within(gap, 0.02))
    for k in (1, 64):
        gain = leads(rows, egi, LTR, k)
        yield ("one commit at the greatest entropy, then TPP: better than left to right", REJECTION,
               f"exploratory - left to right, pass@{k}, above 0", shown(gain), above(gain))
    for decoder, name in ((TPP, "TPP"), (LCR, "LCR")):
        gap = leads(rows, LTR, decoder, 64, "derived")
        yield (f"in right derivations, too, the gap is gone with {name}" if decoder is TPP else
               "left to right is ahead in right derivations", REJECTION if decoder is TPP else PAPER,
               f"left to right - {name} in one block, derivations@64, "
               + ("within .02 of 0" if decoder is TPP else "above 0"), shown(gap),
               within(gap, 0.02) if decoder is TPP else above(gap))
    gap = leads(rows, LTR, pass_at_k.FORK, 64)
    ratio = [float(pick(rows, arm=LTR, seed=s)["nfe"]) / float(
        pick(rows, arm=pass_at_k.FORK, seed=s)["nfe"]) for s in SEEDS]
    yield ("leftmost only where nothing is sure: left to right's pass@k for half the evaluations",
           FALLBACK, "left to right - fork .9, pass@64, within .02 of 0 (and its NFE, how many "
           "times fewer)", shown(gap) + f" ({', '.join(f'{r:.1f}' for r in ratio)})",
           within(gap, 0.02))

def by_coverage(rows):
    for variant, title in coverage.VARIANTS.items():
        for column, what in coverage.WHAT.items():
            pairs = [[pick(rows, variant=variant, arm=arm, seed=s) for arm in (LTR, LCR)]
                     for s in SEEDS]
            tests = [mcnemar(*pair, column) for pair in pairs]
            gaps = [lead(*pair, 1024, column) for pair in pairs]
            yield (f"what left to right solves in 1,024 samples, freedom does not; {title}, {what}",
                   f"{PAPER}, fig. 4", "only left to right : only LCR in one block, of 200 "
                   "(exact McNemar p); difference above 0",
                   "; ".join(f"{a} : {b} (p = {p:.1g})" for a, b, p in tests), above(gaps))

def by_block(rows):
    for order in (LCR, TPP):
        found = []
        for seed in SEEDS:
            means = [solved(pick(rows, arm=block_length.arm(order, b), seed=seed), 64)
                     for b in block_length.BLOCK_LENGTHS]
            picks = np.random.default_rng(0).integers(200, size=(1000, 200))
            draws = [spearman(range(6), [m[p].mean() for m in means]) for p in picks]
            found.append((spearman(range(6), [m.mean() for m in means]),
                          *np.nanpercentile(draws, [2.5, 97.5])))
        yield (f"the longer the blocks, the lower pass@k ({order.order})", f"{PAPER}, fig. 5",
               "rank correlation of pass@64 with the block length, 6 lengths, below 0",
               shown(found), judge(found, lambda low, high: high < 0, lambda low, high: low > 0))

def by_temperature(rows):
    for decoder, who in ((LCR, f"{PAPER}, app. B.1"), (TPP, PAPER)):
        for k in (1, 64):
            gaps = [bootstrap(temperature.best(rows, LTR, s, k)[1]
                              - temperature.best(rows, decoder, s, k)[1]) for s in SEEDS]
            yield ("also at each order's own best temperature left to right is ahead", who,
                   f"left to right - {'LCR' if decoder is LCR else 'TPP'} in one block, pass@{k}, "
                   "best T of 5 from the other half of the problems, above 0", shown(gaps),
                   above(gaps))

def by_entropy(rows):
    def share(decoder, name, measure):
        found = [entropy.pick(rows, s, decoder, name, measure) for s in SEEDS]
        return [tuple(float(r[c]) for c in ("value", "low", "high")) for r in found]
    for kind in ("fork: go on", "fork: jump"):
        ltr, lcr = (share(decoder, kind, "entropy") for decoder in (LTR, LCR))
        verdict = ("holds" if all(b[2] < a[1] for a, b in zip(ltr, lcr)) else "does not hold" if
                   all(b[1] > a[2] for a, b in zip(ltr, lcr)) else "undecided")
        yield (f"forks lose their entropy ({kind.split(': ')[1]})", f"{PAPER}, fig. 7",
               "entropy at commit, left to right -> LCR in one block, lower",
               "; ".join(f"{a[0]:.2f} -> {b[0]:.2f}" for a, b in zip(ltr, lcr)), verdict)
    passed = share(LCR, "fork: go on", "bypass")
    yield ("because they are skipped, and filled when their context is there", f"{PAPER}, fig. 6",
           "share of forks that go on with a later token of the text before them, LCR in one "
           "block, above .05", shown(passed, "{:.3f} [{:.2f}, {:.2f}]"), above(passed, 0.05))
    end = share(LCR, "end_first", "share")
    yield ("or because the length was there first (not foreseen: seen in an earlier table)", "us",
           "share of texts whose end was committed before the first fork, LCR in one block, "
           "above .95", shown(end, "{:.3f} [{:.2f}, {:.2f}]"), above(end, 0.95))

def by_parts(rows):
    for k in (1, 64):
        gaps = leads(rows, rebuttal.at_rate("left to right", "LCR"), LCR, k)
        yield ("less diversity is the cause: at equal rates of non-top commits the gap is gone",
               REJECTION, f"left to right at LCR's rate - LCR, pass@{k}, within .02 of 0",
               shown(gaps), within(gaps, 0.02))
        gaps = leads(rows, rebuttal.at_rate("TPP", "LCR"), LCR, k)
        yield ("at equal rates TPP is no better than LCR", "the other side of it",
               f"TPP at LCR's rate - LCR, pass@{k}, within .02 of 0", shown(gaps),
               within(gaps, 0.02))
    for k, column in ((1, "correct"), (64, "correct"), (64, "derived")):
        for path, a, b in (("LCR's draws at left to right's places", LTR, rebuttal.LAW),
                           ("fresh draws at LCR's places", rebuttal.FRESH, LCR)):
            cost, whole = leads(rows, a, b, k, column), leads(rows, LTR, LCR, k, column)
            kind = "pass" if column == "correct" else "derivations"
            yield ("the draws, not the places, make the gap", REJECTION,
                   f"what the draws cost ({path}), {kind}@{k}, more than half of the gap "
                   f"({', '.join(f'{g[0]:.3f}' for g in whole)})", shown(cost),
                   "holds" if all(c[1] > g[0] / 2 for c, g in zip(cost, whole)) else
                   "does not hold" if all(c[2] < g[0] / 2 for c, g in zip(cost, whole)) else
                   "undecided")

def by_fork(rows):
    def gap(variant, decoder, k):
        return leads(rows, LTR, decoder, k, variant=variant)
    for k in (1, 64):
        for decoder, name in ((LCR, "LCR"), (TPP, "TPP")):
            for variant, what in (("direct-0", "no forks, well trained"),
                                  ("early-direct-0", "no forks, stopped early")):
                found = gap(variant, decoder, k)
                yield (f"without forks there is no gap ({what})", f"{PAPER} (its reverse)",
                       f"left to right - {name} in one block, pass@{k}, within .02 of 0",
                       shown(found), within(found, 0.02))
    for decoder, name in ((LCR, "LCR"), (TPP, "TPP")):
        gaps = np.array([[g[0] for g in gap(v, decoder, 1)] for v in ("direct-0", "direct-70")])
        found = [bootstrap(
            (solved(pick(rows, variant="direct-70", seed=s, arm=LTR), 64)
             - solved(pick(rows, variant="direct-70", seed=s, arm=decoder), 64))
            - (solved(pick(rows, variant="direct-0", seed=s, arm=LTR), 64)
               - solved(pick(rows, variant="direct-0", seed=s, arm=decoder), 64))) for s in SEEDS]
        yield (f"the gap comes with the forks ({name})", PAPER,
               f"gap with .7 direct answers - gap with none, pass@64, above 0 (at k=1 the means are "
               f"{gaps[1].mean():.2f} and {gaps[0].mean():.2f})", shown(found), above(found))

def by_puzzle(rows):
    for arm, name in ((sudoku.ARMS[3], "TPP"), (sudoku.ARMS[4], "margin")):
        for t, what in ((0.0, "greedy"), (0.6, "pass@1, T=.6")):
            want = dict(temperature=t)
            found = [lead(*(pick(rows, arm=a, seed=s, **want) for a in (arm, LTR)), 1)
                     for s in SEEDS]
            yield ("where the easy cells come first, freedom wins: 4x4 Sudoku", ORDERED,
                   f"{name} - left to right, {what}, above 0", shown(found), above(found))
    found = [lead(*(pick(rows, arm=a, seed=s, temperature=0.6)
                    for a in (sudoku.ARMS[3], LTR)), 64) for s in SEEDS]
    yield ("and does so at many samples", "us", "TPP - left to right, pass@64, above 0",
           shown(found), above(found))

MISSING = "temperature", "forks"      # their rows are not complete yet

def all_verdicts():
    shared = load("block_length")
    found = {"pass_at_k": lambda: by_order(load("pass_at_k"), shared),
             "coverage": lambda: by_coverage(load("coverage")),
             "block_length": lambda: by_block(shared),
             "temperature": lambda: by_temperature(load("temperature")),
             "entropy": lambda: by_entropy(load("entropy")),
             "rebuttal": lambda: by_parts(load("rebuttal")),
             "forks": lambda: by_fork(load("forks")), "sudoku": lambda: by_puzzle(load("sudoku"))}
    return [line for name, lines in found.items() if name not in MISSING for line in lines()]

def tables():
    """name -> markdown, as it stands in experiments/README.md between <!-- NAME --> markers."""
    found = {"verdicts": markdown(
        ["claim", "whose", "the number that decides", "ours, seeds 0; 1; 2 [95 %]", "verdict"],
        all_verdicts())}
    for script in (pass_at_k, coverage, block_length, temperature, rebuttal, forks, sudoku):
        name = script.__name__.split(".")[-1]
        if name in MISSING:
            continue
        rows = load(name)
        parts = [script.table(rows, SEEDS)] if script is not rebuttal else [
            rebuttal.rate_table(rows, SEEDS), rebuttal.parts_table(rows, SEEDS)]
        found[name] = "\n\n".join(markdown(*part) for part in parts)
    found["entropy"] = "\n\n".join(markdown(*part) for part in
                                   entropy.tables(load("entropy"), SEEDS))
    return found

if __name__ == "__main__":
    if "--write" in sys.argv[1:]:
        PAGE.write_text(fill(PAGE.read_text(encoding="utf-8"), tables()), encoding="utf-8")
    else:
        print("\n\n".join(tables().values()))
