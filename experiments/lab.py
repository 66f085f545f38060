"""What every experiment needs: bases, rows on disk, statistics, the look of a figure.

    args = lab.parse_flags("pass_at_k", "pass@k by order.", argv)
    cells = [lab.Cell("worksheet", seed, decoder) for seed in args.seeds for decoder in ...]
    rows = lab.collect(args, cells)

A *base* is a pretrained model. A *cell* is one thing to measure, and a *row* what came
out: how many of each problem's samples are right, so that pass@k for any k, paired leads
and exact tests can be computed from the rows alone, at any time. pass_at_k.py is the
model of an experiment.

Legend: Q problems, n samples of each.
"""
import argparse
import contextlib
import functools
import hashlib
import importlib.util
import io
import math
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

import train
from data import Worksheet
from eval_gsm8k import (Interval, bootstrap, columns_of, evaluate, interval_of, matching,
                        pass_at_k, proportion)
from runs import lock, read_csv, unlock, write_csv, write_whole
from sample import Decoder, load_checkpoint

# Of the evaluation, what is kept beside the counts: "value low high" each.
MEASURES = ["tokens_per_evaluation", "non_top_commits", "distinct", "bypass_fork",
            "bypass_other", "entropy_fork", "entropy_fork_write", "entropy_fork_blank",
            "entropy_other", "early_end", "malformed"]
KEY = ["base", "seed", "order", "selection", "block_length", "temperature", "n_problems",
       "n_samples"]
# right: of each problem's samples, how many have its answer; derived: how many are its
# one worked solution, which nobody guesses.
COLUMNS = [*KEY, "weights", "nfe", "n_forward", "seconds", *MEASURES, "right", "derived"]
KEPT = "what is measured is kept, start again to go on"

# ----------------------------------------------------------------------------------------
# flags


def parse_flags(name, description, argv=None, seeds=(0,)):
    """The flags of every experiment; its rows are in assets/NAME/rows.csv.

    --quick has a file of its own, so that its rows are not mistaken for results.
    """
    parser = argparse.ArgumentParser(
        description=description, allow_abbrev=False,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    add = parser.add_argument
    add("--csv", default=f"assets/{name}/rows.csv",
        help="rows; what is there is not measured again")
    add("--figure", help="draw the rows to this file (needs matplotlib)")
    add("--bases", default="out/bases", help="folder of the bases; a missing one is made")
    add("--seeds", nargs="+", type=int, default=list(seeds), help="of the bases")
    add("--quick", action="store_true", help="a small base, few samples: a look, no more")
    args = parser.parse_args(argv)
    if args.quick:
        args.seeds = args.seeds[:1]
        if args.csv == parser.get_default("csv"):
            args.csv = f"out/quick/{name}.csv"
    if args.figure and importlib.util.find_spec("matplotlib") is None:
        parser.error("--figure: pip install -r experiments/requirements.txt")
    try:
        for path in filter(None, [args.csv, args.figure]):
            Path(path).parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        parser.error(str(error))
    return args

# ----------------------------------------------------------------------------------------
# bases

# name: task, pretraining steps
BASES = {"worksheet": (Worksheet(), 1400)}


@contextlib.contextmanager
def locked(folder):
    """Wait until no other process is in here with the same folder."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    holder = lock(folder, wait=True)
    try:
        yield
    finally:
        unlock(holder)


def base_path(folder, name, seed, quick=False):
    """The checkpoint of a base; made now if it is missing, which takes minutes."""
    task, steps = BASES[name]
    size = ["--steps", str(steps)]
    out = Path(folder, f"{name}-{seed}")
    if quick:
        size = ["--quick"]
        out = Path(folder, f"{name}-{seed}-quick")
    path = out / "base.pt"
    with locked(out / "lock"):      # not out itself: train.py locks that
        if path.exists():
            return path
        print(f"{path} is missing: it is made now")
        flags = [*size, "--stage", "pretrain", "--device", "cpu", "--seed", str(seed),
                 "--out", str(out), "--resume"]
        try:
            train.main(flags, task=task)
        except SystemExit as stop:
            if not path.exists():       # train.py has said why
                print(KEPT, file=sys.stderr)
                raise
            print(stop.code)    # its steps are not learned: an experiment may want that
    if not path.exists():       # train.py had nothing left to do
        sys.exit(f"{path} is gone, but its run is finished: remove {out}")
    return path


@functools.lru_cache(1)
def load_base(folder, name, seed, quick=False):
    """A base's model and task, and a fingerprint of its weights."""
    path, task = base_path(folder, name, seed, quick), BASES[name][0]
    try:
        model, description, _ = load_checkpoint(path)
    except ValueError as error:
        sys.exit(str(error))
    if description != task.describe():
        sys.exit(f"{path} is of another task: remove its folder")
    weights = [weight.numpy().tobytes() for weight in model.state_dict().values()]
    return model, task, hashlib.sha256(b"".join(weights)).hexdigest()[:8]

# ----------------------------------------------------------------------------------------
# rows


@dataclass
class Cell:
    """One row to measure."""
    base: str                   # of BASES
    seed: int                   # of the base
    decoder: Decoder
    n_problems: int = 200
    n_samples: int = 32

    def key(self):
        """As the columns KEY of its row."""
        return {"base": self.base, "seed": self.seed, **columns_of(self.decoder),
                "n_problems": self.n_problems, "n_samples": self.n_samples}


def decoder_of(row):
    """The way back from eval_gsm8k.columns_of."""
    select, value = row["selection"].split("=")
    block_length = int(row["block_length"]) if row["block_length"] else None
    return Decoder(row["order"], select, float(value), block_length,
                   float(row["temperature"]))


def pick(rows, **wanted):
    """The one row with these values. Raises ValueError unless there is exactly one."""
    found = matching(rows, **wanted)
    if len(found) != 1:
        raise ValueError(f"{len(found)} rows with {wanted}, where one is needed")
    return found[0]


def collect(args, cells):
    """The rows of all cells; each that args.csv lacks is measured, and written at once.

    Several scripts may share a file. Ends the program in one line after Ctrl-C, on a full
    disk, and where rows and bases do not belong together.
    """
    if args.quick:
        cells = [replace(cell, n_problems=16, n_samples=min(8, cell.n_samples))
                 for cell in cells]
    try:
        for cell in tqdm(cells, desc="rows"):
            if not matching(read_rows(args.csv), **cell.key()):
                add_row(args.csv, measure(args, cell))
        rows = read_rows(args.csv)
        return [pick(rows, **cell.key()) for cell in cells]
    except KeyboardInterrupt:
        sys.exit(f"\nstopped: {KEPT}")
    except OSError as error:
        sys.exit(f"\nstopped ({error}): {KEPT}")


def read_rows(path):
    """Those that are there. Ends the program if they are of some other table."""
    try:
        return read_csv(path, COLUMNS) if Path(path).exists() else []
    except ValueError as error:
        sys.exit(f"{error}, or take another --csv")


def add_row(path, row):
    """Read, add, write, with no other script in between."""
    with locked(Path(path).parent):
        rows = read_rows(path)
        if not matching(rows, **{name: row[name] for name in KEY}):
            write_csv(path, COLUMNS, [*rows, row])


def measure(args, cell):
    """Sample, judge, count: a cell's row."""
    model, task, weights = load_base(args.bases, cell.base, cell.seed, args.quick)
    for row in matching(read_rows(args.csv), base=cell.base, seed=cell.seed):
        if row["weights"] != weights:
            sys.exit(f"{args.csv} has rows of {cell.base}-{cell.seed} with other weights "
                     f"({row['weights']}, not {weights}): start another file with --csv")
    problems = task.held_out("test", cell.n_problems)
    found = evaluate(model, task, problems, cell.decoder, cell.n_samples,
                     name=f"{cell.base}-{cell.seed}, {cell.decoder}")
    row = {**cell.key(), "weights": weights, "nfe": round(found.nfe, 3),
           "n_forward": found.n_forward, "seconds": round(found.seconds, 1),
           "right": joined(found.correct.sum(1).astype(int))}
    if task.n_lines:
        row["derived"] = joined(found.derived.sum(1).astype(int))
    for name, sides in found.measures.items():
        if name in MEASURES:
            row[name] = joined(f"{number:.5g}" for number in interval_of(name, *sides))
    return row


def joined(values):
    return " ".join(str(value) for value in values)


def measured(row, name):
    """A measure of a row -> Interval."""
    return Interval(*map(float, row[name].split()))

# ----------------------------------------------------------------------------------------
# statistics; column: "right" or "derived"


def counts(row, column="right"):
    """(Q,) how many of each problem's samples."""
    return np.array([int(count) for count in row[column].split()])


def solved(row, k, column="right"):
    """pass@k of each problem, (Q,)."""
    n_samples = int(row["n_samples"])
    correct = np.arange(n_samples) < counts(row, column)[:, None]               # (Q, n)
    return pass_at_k(correct, k)


def lead(ahead, behind, k, column="right"):
    """By how much a row's pass@k is above another's, paired by problem -> Interval."""
    return bootstrap(solved(ahead, k, column) - solved(behind, k, column))


def mcnemar(one, other, column="right"):
    """How many problems only one row has solved in its samples, how many only the other,
    and the exact two-sided p: the chance that as many coins fall as unevenly, or more."""
    first, second = counts(one, column) > 0, counts(other, column) > 0
    only_one = int((first & ~second).sum())
    only_other = int((second & ~first).sum())
    n = only_one + only_other
    tail = sum(math.comb(n, heads) for heads in range(min(only_one, only_other) + 1))
    return only_one, only_other, min(1.0, 2 * tail / 2**n)


def holm(p_values):
    """Holm's correction of p-values for being several: the least times their number, the
    next times one less, and so on, none below the one before."""
    corrected = [0.0] * len(p_values)
    largest = 0.0
    for rank, place in enumerate(np.argsort(p_values, kind="stable")):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[place]))
        corrected[place] = largest
    return corrected


def bracketed(interval, sign=""):
    """An Interval in a table."""
    return f"{interval.value:{sign}.3f} [{interval.bounds(f'{sign}.2f', ', ')}]"

# ----------------------------------------------------------------------------------------
# figures; matplotlib is imported only here

# Dashes and markers tell lines apart where there is no colour.
STYLES = [
    {"color": "black", "linestyle": "-", "marker": "o"},
    {"color": "tab:red", "linestyle": "--", "marker": "s"},
    {"color": "tab:orange", "linestyle": (0, (5, 1)), "marker": "D"},
    {"color": "tab:blue", "linestyle": "-.", "marker": "^"},
    {"color": "tab:green", "linestyle": ":", "marker": "v"},
    {"color": "tab:purple", "linestyle": (0, (3, 1, 1, 1, 1, 1)), "marker": "P"},
    {"color": "gray", "linestyle": (0, (1, 3)), "marker": "x"},
    {"color": "tab:brown", "linestyle": (0, (6, 3)), "marker": "*"},
    {"color": "tab:pink", "linestyle": (0, (2, 1)), "marker": "<"},
]


def panels(n_columns, n_rows=1, width=4.2, height=3.6):
    """A figure, and its axes (n_rows, n_columns); those of a row have one scale."""
    from matplotlib.figure import Figure
    figure = Figure(figsize=(width * n_columns, height * n_rows), layout="constrained")
    return figure, figure.subplots(n_rows, n_columns, sharey="row", squeeze=False)


def line(axis, x, intervals, label, style):
    """A line through the Intervals at x, in one of STYLES (a number); they are shaded."""
    value, low, high = zip(*intervals)
    style = STYLES[style % len(STYLES)]
    axis.plot(x, value, label=label, markersize=4, linewidth=1.3, **style)
    axis.fill_between(x, low, high, color=style["color"], alpha=0.12, linewidth=0)


def curve(axis, row, style, column="right"):
    """A row's pass@k for k = 1, 2, 4, ..., as far as its samples reach."""
    ks = [2**i for i in range(int(row["n_samples"]).bit_length())]
    passes = [proportion(solved(row, k, column)) for k in ks]
    line(axis, ks, passes, str(decoder_of(row)), style)
    axis.semilogx()
    axis.set_xticks(ks, ks)
    axis.set_xlabel("k")


def save(figure, path):
    """As a PNG of 64 colours: a third of the size."""
    from PIL import Image       # comes with matplotlib
    drawn, small = io.BytesIO(), io.BytesIO()
    figure.savefig(drawn, dpi=90, format="png")
    image = Image.open(drawn).convert("RGB").quantize(64, dither=Image.Dither.NONE)
    image.save(small, format="png", optimize=True)
    try:
        write_whole(path, small.getvalue())
    except OSError as error:
        sys.exit(f"no figure ({error}): {KEPT}")
    print(f"drawn: {path}")
