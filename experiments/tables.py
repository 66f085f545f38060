"""The tables of README.md, docs/ and experiments/README.md, and the numbers they cite.

    python experiments/tables.py            print every table
    python experiments/tables.py --write    put each where its markers stand, on any page
    python experiments/tables.py --numbers  print the numbers that prose may cite

A page asks for a table by <!-- NAME --> and, some lines below, <!-- /NAME -->; and for a
check of a number in its prose by a comment behind it, <!-- n:NAME VALUE -->. All come
from the rows in assets/: of train.py (seed-*, gsm8k), bench.py and scaling.py.
tests/test_experiments.py fails if a page and the rows differ.
"""
import argparse
import json
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from eval_gsm8k import Interval, columns_of, overtakes
from experiments.lab import bracketed, matching, pick
from runs import ends_quietly, read_csv, write_whole
from train import GREEDY, TRAP

ASSETS = ROOT / "assets"
KS = 1, 2, 4, 8, 16, 32
STAGES = "base", "justgrpo"

# ----------------------------------------------------------------------------------------
# rows


def load_seeds(assets):
    """{seed: its results, measures and summary}, of the runs in seed-*."""
    seeds = {}
    for folder in sorted(assets.glob("seed-*"), key=lambda f: int(f.name.split("-")[1])):
        summary = (folder / "summary.json").read_text(encoding="utf-8")
        seeds[folder.name.split("-")[1]] = {
            "results": read_csv(folder / "results.csv"),
            "measures": read_csv(folder / "measures.csv"), "summary": json.loads(summary)}
    return seeds


def passed(run, stage, decoder, k=1):
    """The row of results.csv of this decoder."""
    return pick(run["results"], stage=stage, k=k, **columns_of(decoder))


def measure(run, stage, decoder, name):
    """The row of measures.csv of this decoder."""
    return pick(run["measures"], stage=stage, measure=name, **columns_of(decoder))


def over_seeds(seeds, row_of, *args):
    """A number of each seed: the value of the row that `passed` or `measure` finds."""
    return [value(row_of(run, *args)) for run in seeds.values()]


def value(row):
    return float(row["value"])


def measured(seeds, decoders):
    """Those of TRAP or GREEDY that every run has measured, before RL and after it."""
    found = dict(decoders)
    for name, decoder in decoders.items():
        for run in seeds.values():
            rows = matching(run["results"], k=1, **columns_of(decoder))
            if {row["stage"] for row in rows} != set(STAGES):
                found.pop(name, None)
    return found

# ----------------------------------------------------------------------------------------
# cells


def with_interval(row, sign=""):
    return bracketed(Interval.of(row), sign)


def mean(values):
    return sum(values) / len(values)


def spread(values, sign=""):
    """The mean over seeds, the lowest and the highest: five numbers say no more."""
    low, high = min(values), max(values)
    return f"{mean(values):{sign}.2f} ({low:{sign}.2f} to {high:{sign}.2f})"


def markdown(header, rows):
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(str(cell) for cell in line)} |" for line in lines)

# ----------------------------------------------------------------------------------------
# tables of the runs in seed-*; each is a function of the folder assets/


def headline(assets):
    """What README.md shows: six ways of writing, before RL and after it."""
    seeds = load_seeds(assets)
    rows = []
    for text, decoder, k in [
            ("left to right, one sample (pass@1)", TRAP["left_to_right"], 1),
            ("confidence first, one sample", TRAP["confidence"], 1),
            ("left to right, 32 samples (pass@32)", TRAP["left_to_right"], 32),
            ("confidence first, 32 samples", TRAP["confidence"], 32),
            ("likeliest tokens, left to right", GREEDY["left_to_right"], 1),
            ("likeliest tokens, several a step (threshold .9)", GREEDY["threshold"], 1)]:
        cells = [spread(over_seeds(seeds, passed, stage, decoder, k)) for stage in STAGES]
        rows.append([text, *cells])
    return markdown(["", "before RL", "after JustGRPO"], rows)


def summary(assets):
    """One row an order or decoder, base and JustGRPO: pass@k at T=0.6, then greedy."""
    seeds = load_seeds(assets)
    sampled = []
    for decoder in measured(seeds, TRAP).values():
        cells = [spread(over_seeds(seeds, passed, stage, decoder, k))
                 for stage in STAGES for k in (1, 32)]
        sampled.append([decoder, *cells])
    greedy = []
    for decoder in measured(seeds, GREEDY).values():
        accuracy = [spread(over_seeds(seeds, passed, stage, decoder)) for stage in STAGES]
        gain = spread(over_seeds(seeds, measure, "justgrpo", decoder, "gain"), "+")
        speed = [over_seeds(seeds, measure, stage, decoder, "tokens_per_evaluation")
                 for stage in STAGES]
        greedy.append([decoder, *accuracy, gain, *map(spread, speed)])
    first = ["order, T=0.6", "base pass@1", "base pass@32", "JustGRPO pass@1",
             "JustGRPO pass@32"]
    second = ["greedy decoder", "base", "JustGRPO", "gain, paired", "tokens per NFE",
              "after"]
    return markdown(first, sampled) + "\n\n" + markdown(second, greedy)


def base(assets):
    """The bases, left to right before and after, and the seconds of a run."""
    rows = []
    for seed, run in load_seeds(assets).items():
        def by_step(name, n_steps, run=run):
            return [value(pick(run["measures"], order="", measure=f"{name}_{step}"))
                    for step in range(n_steps)]

        seconds = run["summary"]["seconds"]
        before, after = [value(passed(run, stage, TRAP["left_to_right"]))
                         for stage in STAGES]
        rows.append([seed, f"{mean(by_step('next_value', 6)):.3f}",
                     ", ".join(f"{p:.2f}" for p in by_step("go_on", 6)),
                     ", ".join(f"{p:.2f}" for p in by_step("answer_in_head", 7)),
                     f"{before:.3f} -> {after:.3f}",
                     f"{sum(seconds.values()):.0f} ({seconds['pretraining']:.0f})"])
    return markdown(["seed", "next value right", "P(go on) at forks 0 to 5",
                     "answer right after 0 to 6 steps", "left to right pass@1, T=0.6",
                     "seconds (pretraining)"], rows)


def trap(assets, stage="base"):
    """pass@k by order and seed, and what happens at forks."""
    seeds = load_seeds(assets)
    names = "distinct", "bypass_fork", "entropy_fork", "early_end"
    rows = []
    for seed, run in seeds.items():
        for decoder in measured(seeds, TRAP).values():
            passes = [with_interval(passed(run, stage, decoder, k)) for k in (1, 4, 32)]
            others = [value(measure(run, stage, decoder, name)) for name in names]
            rows.append([seed, decoder, *passes, *(f"{other:.2f}" for other in others)])
    return markdown(["seed", "order", "pass@1", "pass@4", "pass@32", "distinct of 32",
                     "forks bypassed", "entropy at forks", "length first"], rows)


def after(assets):
    return trap(assets, "justgrpo")


def crossing(assets):
    """By how much left to right is ahead of each other order of the base, by k."""
    seeds = load_seeds(assets)
    rows = []
    for name, decoder in measured(seeds, TRAP).items():
        if name == "left_to_right":
            continue
        for seed, run in seeds.items():
            leads = {k: measure(run, "base", decoder, f"lead_of_ltr_at_{k}") for k in KS}
            first = overtakes({k: Interval.of(row) for k, row in leads.items()})
            over = {None: "never", KS[0]: "from the start"}.get(first, f"k={first}")
            cells = [with_interval(row, "+") for row in leads.values()]
            rows.append([decoder, seed, *cells, over])
    header = ["against", "seed", *(f"k={k}" for k in KS), "left to right overtakes"]
    return markdown(header, rows)


def rl(assets):
    """Greedy accuracy before and after, paired gain, NFE, tokens an evaluation."""
    seeds = load_seeds(assets)
    rows = []
    for decoder in measured(seeds, GREEDY).values():
        for seed, run in seeds.items():
            old, new = [passed(run, stage, decoder) for stage in STAGES]
            speed = [value(measure(run, stage, decoder, "tokens_per_evaluation"))
                     for stage in STAGES]
            rows.append([decoder, seed, f"{value(old):.3f}", f"{value(new):.3f}",
                         with_interval(measure(run, "justgrpo", decoder, "gain"), "+"),
                         f"{float(old['nfe']):.1f} -> {float(new['nfe']):.1f}",
                         f"{speed[0]:.2f} -> {speed[1]:.2f}"])
    return markdown(["greedy decoder", "seed", "base", "JustGRPO", "gain, paired", "NFE",
                     "tokens per NFE"], rows)

# ----------------------------------------------------------------------------------------
# tables of times


def ratios(path, first):
    """Of bench.py's rows; first: the header of what was timed."""
    rows = [[row["what"], row["baseline"], row["contender"],
             f"{row['ratio_median']} ({row['ratio_min']} to {row['ratio_max']})"]
            for row in read_csv(path)]
    header = [first, "baseline", "contender", "ratio, median (least to most)"]
    return markdown(header, rows)


def bench(assets):
    return ratios(assets / "bench.csv", "the same work")


def products(assets):
    return ratios(assets / "products.csv", "other work")


def ideas(assets):
    return ratios(assets / "ideas.csv", "each idea alone")


def profile(assets):
    """Milliseconds by part, before the ideas of docs/speed.md and after."""
    old, new = [read_csv(assets / name) for name in ("profile-before.csv", "profile.csv")]
    rows = []
    for row in new:
        before = pick(old, step=row["step"], part=row["part"])
        rows.append([row["step"], row["part"], before["ms"], before["share"], row["ms"],
                     row["share"]])
    return markdown(["step", "part", "before: ms", "share", "after: ms", "share"], rows)


def whole(assets):
    """Runs of train.py, one after the other, measured from outside."""
    rows = []
    for row in read_csv(assets / "whole.csv"):
        seconds = f"{float(row['seconds']):,.0f} ({float(row['pretraining']):,.0f})"
        rows.append([row["version"], row["seed"], seconds, row["peak_mb"]])
    return markdown(["all of `python train.py`", "seed", "seconds (pretraining)",
                     "memory, MB"], rows)


def sharing(assets):
    """Evaluations run for pass@n of 16 problems, by order: rows of scaling.py."""
    published, orders = {}, {}
    for row in read_csv(assets / "scaling.csv"):
        what, _, order = row["what"].partition(", ")
        if what == "pass@n":
            n = int(row["x"])
            published[n] = f"{int(row['published_states']):,}"
            cell = f"{int(row['states']):,} ({float(row['seconds']):.2g} s)"
            orders.setdefault(order, {})[n] = cell
    rows = [["published sampler", *published.values()]]
    for order, cells in orders.items():
        rows.append([order, *(cells.get(n, "") for n in published)])
    header = ["evaluations of 16 problems x n", *(f"n={n}" for n in published)]
    return markdown(header, rows)


def pass_at_k(assets):
    from experiments.pass_at_k import table
    return markdown(*table(read_csv(assets / "pass_at_k" / "toy.csv")))


TABLES = {table.__name__: table for table in [
    headline, summary, base, trap, crossing, rl, after, bench, products, ideas, profile,
    whole, sharing, pass_at_k]}

# ----------------------------------------------------------------------------------------
# numbers


def numbers(assets):
    """{name: text} of what the prose may cite."""
    found = {**numbers_of_seeds(assets), **numbers_of_gsm8k(assets),
             **numbers_of_bench(assets)}
    return {"_".join(re.findall(r"\w+", name)): text for name, text in found.items()}


def numbers_of_seeds(assets):
    """Means over seeds; *_spread is the highest seed less the lowest."""
    seeds = load_seeds(assets)
    found = {}

    def add(name, values, form=".2f"):
        found[name] = f"{mean(values):{form}}"
        found[f"{name}_spread"] = f"{max(values) - min(values):{form.strip('+')}}"

    for stage in STAGES:
        for name, decoder in measured(seeds, TRAP).items():
            for k in (1, 32):
                values = over_seeds(seeds, passed, stage, decoder, k)
                add(f"pass{k}_{name}_{stage}", values)
        for name, decoder in measured(seeds, GREEDY).items():
            add(f"greedy_{name}_{stage}", over_seeds(seeds, passed, stage, decoder))
    for name, decoder in measured(seeds, GREEDY).items():
        gains = over_seeds(seeds, measure, "justgrpo", decoder, "gain")
        add(f"gain_{name}", gains, "+.2f")
    seconds = [run["summary"]["seconds"] for run in seeds.values()]
    add("seconds", [sum(acts.values()) for acts in seconds], ".0f")
    add("seconds_pretraining", [acts["pretraining"] for acts in seconds], ".0f")
    return found


def numbers_of_gsm8k(assets):
    right = pick(read_csv(assets / "gsm8k" / "test400.csv"), stage="justgrpo", k=1)
    accuracy = Interval.of(right)
    [common] = read_csv(assets / "gsm8k" / "majority.csv")
    majority = int(common["right"]) / int(common["n_problems"])
    return {"gsm8k_right": f"{accuracy.value * int(right['n_problems']):.0f}",
            "gsm8k_problems": right["n_problems"],
            "gsm8k_accuracy": f"{100 * accuracy.value:.2f} %",
            "gsm8k_accuracy_high": f"{100 * accuracy.high:.2f} %",
            "gsm8k_majority": f"{100 * majority:.1f} %"}


def numbers_of_bench(assets):
    """The ratios, and bench_again: how far the medians of a second run are from these."""
    found, changes = {}, []
    again = read_csv(assets / "bench-again.csv")
    for row in read_csv(assets / "bench.csv"):
        ratio = float(row["ratio_median"])
        found[f"ratio {row['what']}"] = f"{ratio:.0f}"
        second = float(pick(again, what=row["what"])["ratio_median"])
        changes.append(abs(ratio / second - 1))
    found["bench_again"] = f"{100 * max(changes):.0f} %"
    return found

# ----------------------------------------------------------------------------------------
# pages

MARKER = re.compile(r"<!-- (\w+) -->\n.*?<!-- /\1 -->", re.S)
CITED = re.compile(r"<!-- n:(\S+) (.*?) -->")


def pages(root=ROOT):
    found = [root / "README.md", *sorted((root / "docs").glob("*.md")),
             root / "experiments" / "README.md"]
    return [page for page in found if page.exists()]


def fill(text, assets=ASSETS):
    """A page's text with each of its tables made anew.

    Raises ValueError for a table that is unknown, or whose second marker is missing.
    """
    closed = {found[1] for found in MARKER.finditer(text)}
    for name in re.findall(r"<!-- (\w+) -->", text):
        if name not in TABLES:
            raise ValueError(f"no table is called {name}; known: {', '.join(TABLES)}")
        if name not in closed:
            raise ValueError(f"<!-- {name} --> has no <!-- /{name} --> behind it")

    def fresh(found):
        name = found[1]
        return f"<!-- {name} -->\n\n{TABLES[name](assets)}\n\n<!-- /{name} -->"

    return MARKER.sub(fresh, text)


@ends_quietly
def main(argv=None, root=ROOT):
    parser = argparse.ArgumentParser(description="The tables of README.md and docs/.")
    add = parser.add_argument
    add("--write", action="store_true", help="put them into the pages")
    add("--numbers", action="store_true", help="print the numbers that prose may cite")
    args = parser.parse_args(argv)
    if args.numbers:
        for name, text in numbers(root / "assets").items():
            print(f"{name:70} {text}")
        return
    for page in pages(root):
        text = page.read_text(encoding="utf-8")
        try:
            filled = fill(text, root / "assets")
        except (ImportError, OSError, ValueError) as error:
            parser.exit(1, f"{page.relative_to(root)}: {error}\n")
        if args.write and filled != text:
            write_whole(page, filled.encode())
            print(f"{page.relative_to(root)} is written anew")
        if not args.write:
            for found in MARKER.finditer(filled):
                print(f"{found[0]}\n")


if __name__ == "__main__":
    main()
