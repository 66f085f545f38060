"""What the experiments share: rows on disk, the statistics, the look of a figure.

A row is one base, one arm (a decoder, or what an experiment makes of one), one temperature. It has
how many of a problem's samples are right, for every problem: pass@k at any k, paired differences
and exact tests are computed from that, here, whenever a figure or a table is drawn."""
import argparse
import math
import sys
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from tqdm import tqdm
from eval_gsm8k import (bootstrap, evaluate, interval, pass_at_k, print_table, read_csv,
                         write_csv)
from experiments.bases import SEEDS, VARIANTS, load
from experiments.tables import bracketed
from sample import Decoder
from train import TRAP

ASSETS = Path(__file__).resolve().parent.parent / "assets" / "trap"
MEASURES = ["non_top_commits", "bypass_fork", "bypass_other", "entropy_fork", "entropy_other",
            "early_end", "malformed", "distinct", "tokens_per_evaluation", "fork_share"]
# tuned: a temperature that the experiment found, in place of `temperature`.
# correct, derived: how many samples of each problem are right, and how many write every step right.
COLUMNS = ["variant", "seed", "base", "arm", "temperature", "n_problems", "n_samples", "tuned",
           "nfe", "n_forward", "seconds", *MEASURES, "correct", "derived"]
KEY = "variant", "seed", "arm", "temperature", "n_samples"
KS = [2 ** i for i in range(11)]
LTR, LCR, BLOCKS, TPP, RANDOM = TRAP        # at temperature 0.6
FOUR, TABLE_KS = [LTR, LCR, BLOCKS, TPP], (1, 8, 64, 256)       # what most experiments look at
NAMES = {"confidence": "LCR", "top_probability": "TPP", "left_to_right": "left to right"}

def short(arm):     # an arm or a decoder, as the figures and tables call it
    arm = str(arm)
    for name, text in NAMES.items():
        arm = arm.replace(name, text)
    return arm

@dataclass
class Cell:
    """One row to measure. how(model, task, problems, decoder, n_samples) -> as evaluate's."""
    variant: str
    seed: int
    decoder: Decoder
    n_samples: int = 256
    arm: str = ""
    how: object = evaluate
    n_problems: int = 200
    def __post_init__(self):
        self.arm = self.arm or str(self.decoder)

def parse_flags(name, description, argv=None, folder="trap", **more):
    """The flags of every experiment; argv: the command line's, unless given; more: flag = (default,
    help). --quick has its own file, so that its rows stay apart."""
    parser = argparse.ArgumentParser(description=description, usage=argparse.SUPPRESS,
                                     formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    add = parser.add_argument
    add("--csv", default=f"assets/{folder}/{name}.csv",
        help="rows; what is there is not measured anew")
    add("--figure", help="draw the rows to this file (needs matplotlib)")
    add("--bases", default="out/bases", help="folder of the base models; those missing are made")
    add("--seeds", nargs="+", type=int, default=list(SEEDS), help="of the bases")
    add("--quick", action="store_true", help="one small base, 16 problems: a look, not a result")
    for flag, (default, text) in more.items():
        add(f"--{flag}", default=default, help=text)
    args = parser.parse_args(argv)
    if args.quick:
        args.seeds = args.seeds[:1]
        if args.csv == parser.get_default("csv"):
            args.csv = f"out/quick-{name}.csv"
    sys.excepthook = in_one_line
    try:
        Path(args.csv).parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        parser.error(str(error))
    return args

def in_one_line(kind, error, trace):    # a full disk, Ctrl-C
    if not issubclass(kind, (OSError, KeyboardInterrupt)):
        return sys.__excepthook__(kind, error, trace)
    print(f"\nstopped ({kind.__name__} {error}): what is measured is kept, start again to go on",
          file=sys.stderr)

def key(row):
    return tuple(str(row[name]) for name in KEY)

def refuse_other(weights, rows, path):      # rows of one base, but of other weights
    for row in rows:
        if row["base"] != weights:
            sys.exit(f"{path} has rows of seed {row['seed']} with other weights ({row['base']}, "
                     f"not {weights}): start another file with --csv")

def collect(args, cells):
    """-> rows, as read from the CSV, of all that is asked; what is not there is measured, and
    written as soon as it is. Ends the program in one line where the rows and the bases differ."""
    rows, wanted = read_csv(args.csv) if Path(args.csv).exists() else [], []
    for cell in (bar := tqdm(cells, desc="rows")):
        n_samples = min(cell.n_samples, 16) if args.quick else cell.n_samples
        row = {"variant": cell.variant, "seed": cell.seed, "arm": cell.arm,
               "temperature": cell.decoder.temperature, "n_samples": n_samples}
        wanted.append(key(row))
        if key(row) in map(key, rows):
            continue
        bar.set_postfix_str(f"{cell.variant}-{cell.seed}, {cell.arm}")
        model, task, weights = load(args.bases, cell.variant, cell.seed, args.quick)
        refuse_other(weights, [r for r in rows if key(r)[:2] == key(row)[:2]], args.csv)
        row |= {"base": weights, "n_problems": 16 if args.quick else cell.n_problems}
        problems = task.held_out("test", row["n_problems"])
        result = cell.how(model, task, problems, cell.decoder, n_samples)
        rows.append(row | numbers(task, problems, result))
        write_csv(args.csv, COLUMNS, rows)
    return [r for r in read_csv(args.csv) if key(r) in wanted]

def run(name, description, cells, tables, draw, collect=collect):
    """An experiment: measure what is missing, print its tables, draw its figure if asked to."""
    args = parse_flags(name, description)
    report(args, collect(args, cells(args.seeds)), tables, draw)

def report(args, rows, tables, draw):
    for table in tables:
        print_table(*table(rows, args.seeds))
    if args.figure:
        draw(rows, args.seeds, args.figure)

def numbers(task, problems, result):
    """evaluate's result -> the columns of a row. A measure is "value low high"."""
    row = {"nfe": round(result["nfe"], 3), "n_forward": result["n_forward"],
           "tuned": result.get("tuned", ""),
           "seconds": round(result["seconds"], 1),
           "correct": joined(result["correct"].sum(1).astype(int))}
    measures = dict(result["measures"])
    if task.n_steps:
        forks, others = (measures[f"bypass_{where}"][1] for where in ("fork", "other"))
        measures["fork_share"] = forks, forks + others      # of the positions of the text
        row["derived"] = joined(sum(text == task.solution(p, task.n_steps) for text in texts)
                                for texts, p in zip(result["texts"], problems))
    return row | {name: joined(f"{v:.4g}" for v in interval(*pair).values())
                  for name, pair in measures.items() if name in MEASURES}

def joined(values):
    return " ".join(map(str, values))

@lru_cache(None)
def solved_within(counts, n, k):    # counts: how many of a problem's n samples are right, as a text
    counts = np.array(counts.split(), dtype=int)
    return pass_at_k((np.arange(n) < counts[:, None]).astype(int), k)

def solved(row, k, column="correct"):       # -> pass@k of each problem, (Q,)
    return solved_within(row[column], int(row["n_samples"]), k)

def ks_of(rows, ks=KS):     # those of ks that there are samples enough for
    return [k for k in ks if k <= int(rows[0]["n_samples"])]

def value(row, name):       # of a measure
    return float(row[name].split()[0])

def rate(row):
    """Non-top commits a position of the canvas, at one commit a step. (A share of the commits would
    not compare: left to right commits no padding, and padding is nearly always the top.)"""
    length = VARIANTS[row["variant"]][0].completion_length
    return value(row, "non_top_commits") * float(row["nfe"]) / length

def lead(a, b, k, column="correct"):
    """By how much a's pass@k is above b's, paired by problem -> value, low, high."""
    return bootstrap(solved(a, k, column) - solved(b, k, column))

def crossing(a, b, ks):
    """-> the first k of ks at which a's pass@k is above b's, with its 95 % interval over resampled
    problems; inf: at none of them."""
    d = np.stack([solved(a, k) - solved(b, k) for k in ks])                        # (K, Q)
    draws = np.random.default_rng(0).integers(d.shape[1], size=(2000, d.shape[1]))
    means = np.column_stack([d.mean(1), d[:, draws].mean(2)])                      # (K, 2001)
    ahead = means >= 0.0005         # less than that is printed +0.000
    first = np.where(ahead.any(0), np.array(ks)[ahead.argmax(0)], math.inf)
    return first[0], *np.percentile(first[1:], [2.5, 97.5], method="inverted_cdf")

def mcnemar(a, b, column="correct"):
    """Problems that only a solves within its samples, that only b does, and the exact two-sided
    p-value: the chance of a split as uneven of so many coins."""
    x, y = (np.array(row[column].split(), dtype=int) > 0 for row in (a, b))
    only_a, only_b = int((x & ~y).sum()), int((y & ~x).sum())
    n = only_a + only_b
    tail = sum(math.comb(n, i) for i in range(min(only_a, only_b) + 1)) / 2 ** n
    return only_a, only_b, min(1.0, 2 * tail)

def holm(p_values):     # Holm's correction for several tests -> as many p-values
    order, out, largest = np.argsort(p_values), np.empty(len(p_values)), 0.0
    for i, at in enumerate(order):
        largest = out[at] = max(largest, min(1.0, (len(p_values) - i) * p_values[at]))
    return out.tolist()

def spearman(x, y):     # rank correlation; ties share their mean rank
    x, y = ([np.mean([sum(w < v for w in values), sum(w <= v for w in values) - 1])
             for v in values] for values in (x, y))
    return float(np.corrcoef(x, y)[0, 1])

def signed(*interval):
    return bracketed(*interval, sign="+")

def plain(*interval):
    return "none" if math.isnan(interval[0]) else bracketed(*interval)

# Dashes and markers tell the lines apart where there is no colour.
STYLES = [dict(color=c, linestyle=s, marker=m) for c, s, m in zip(
    ["black", "tab:red", "tab:orange", "tab:blue", "tab:green", "tab:purple", "gray",
     "tab:brown", "tab:cyan", "tab:pink", "tab:olive", "navy", "teal"],
    ["-", "--", (0, (5, 1)), "-.", ":", (0, (3, 1, 1, 1, 1, 1)), (0, (1, 3)), (0, (6, 3)), "--",
     "-", ":", "-.", (0, (5, 1))],
    ["o", "s", "D", "^", "v", "P", "x", "*", "+", "<", ">", "p", "1"])]

def line(axis, x, values, label, style):
    """values: (value, low, high) for each x; the interval is shaded."""
    value, low, high = np.array(values).T
    axis.plot(x, value, label=label, markersize=4, linewidth=1.3, **STYLES[style])
    axis.fill_between(x, low, high, color=STYLES[style]["color"], alpha=0.12, linewidth=0)

def curve(axis, row, label, style, column="correct", mean=bootstrap):
    """pass@k of a row for every k that it has samples enough for."""
    ks = ks_of([row])
    line(axis, ks, [mean(solved(row, k, column)) for k in ks], label, style)
    axis.set_xscale("log", base=2)

def panels(n, width=4.2, height=3.6, n_rows=None, sharey="row", x="", y="", fontsize=None):
    """-> figure, axes: (n,) or (n_rows, n). x: label below the last row; y: left of each row, one
    for all of them or a list."""
    from matplotlib import pyplot
    figure, axes = pyplot.subplots(n_rows or 1, n, figsize=(width * n, height * (n_rows or 1)),
                                   squeeze=False, sharey=sharey)
    for axis in axes[-1]:
        axis.set_xlabel(x, fontsize=fontsize)
    for axis, label in zip(axes[:, 0], np.broadcast_to(y, len(axes))):
        axis.set_ylabel(label, fontsize=fontsize)
    return figure, axes if n_rows else axes[0]

def save(figure, path, tight=True):
    """As a PNG of 64 colours: a third of the size."""
    from PIL import Image       # matplotlib brings it
    if tight:
        figure.tight_layout()
    figure.savefig(path, dpi=90, bbox_inches=None if tight else "tight")
    image = Image.open(path).convert("RGB").quantize(64, dither=Image.Dither.NONE)
    image.save(path, optimize=True)
    print(f"drawn: {path}")
