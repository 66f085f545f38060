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
import statistics
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from eval_gsm8k import Interval, columns_of, matching, overtakes
from experiments.lab import bracketed, pick
from runs import ends_quietly, read_csv, write_whole
from train import AFTER, GREEDY, TRAP, WATCHED

ASSETS = ROOT / "assets"
KS = 1, 2, 4, 8, 16
# The stages of a run, and what pages call them.
STAGES = {"base": "before RL", "justgrpo": "after JustGRPO",
          "confidence": "after RL on free rollouts"}
KINDS = "talkers", "silent"

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


def evaluations(run, stage, decoder):
    """Forward evaluations a text (NFE)."""
    return float(passed(run, stage, decoder)["nfe"])


def measure(run, stage, decoder, name):
    """The row of measures.csv of this decoder."""
    return pick(run["measures"], stage=stage, measure=name, **columns_of(decoder))


def over_seeds(seeds, row_of, *args):
    """A number of each seed: the value of the row that `passed` or `measure` finds."""
    return [value(row_of(run, *args)) for run in seeds.values()]


def value(row):
    return float(row["value"])

# ----------------------------------------------------------------------------------------
# cells


def with_interval(row, sign=""):
    return bracketed(Interval.of(row), sign)


def mean(values):
    return sum(values) / len(values)


# Student's t, by degrees of freedom: 95 % of it lies within.
T95 = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306}


def over_models(values):
    """The mean over seeds, with the interval of what other seeds would give, if they are
    normally distributed: few as they are, that is a rough guess."""
    n, middle = len(values), mean(values)
    if n - 1 not in T95:
        return Interval(middle, float("nan"), float("nan"))
    error = T95[n - 1] * statistics.stdev(values) / n**0.5
    return Interval(middle, middle - error, middle + error)


def spread(values, sign=""):
    """The mean over seeds, the lowest and the highest: five numbers say no more."""
    low, high = min(values), max(values)
    return f"{mean(values):{sign}.2f} ({low:{sign}.2f} to {high:{sign}.2f})"


def markdown(header, rows):
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(str(cell) for cell in line)} |" for line in lines)

# ----------------------------------------------------------------------------------------
# tables of the runs in seed-*; each is a function of the folder assets/


def orders(seeds, stage):
    """The orders that every run has sampled from at this stage, {name: decoder}."""
    names = TRAP if stage == "base" else AFTER
    return measured(seeds, {name: TRAP[name] for name in names}, stage)


def others(seeds):
    """Those of the base that left to right is compared with."""
    return {name: decoder for name, decoder in orders(seeds, "base").items()
            if name != "left_to_right"}


def greedy(seeds):
    """The greedy decoders that every run has measured."""
    return measured(seeds, GREEDY, "base")


def measured(seeds, decoders, stage):
    """A decoder that was added to train.py has no rows before the runs are made anew."""
    return {name: decoder for name, decoder in decoders.items() if all(
        matching(run["results"], stage=stage, k=1, **columns_of(decoder))
        for run in seeds.values())}


def derived(run, stage, decoder, k, kind=""):
    """The row of measures.csv: derived@k, of all problems or of a kind."""
    name = f"derived_{kind}" if kind else "derived"
    return measure(run, stage, decoder, f"{name}_at_{k}")


def headline(assets):
    """What README.md shows: two orders at three stages, right and derived."""
    seeds = load_seeds(assets)
    rows = []
    for stage, text in STAGES.items():
        for name in AFTER:
            cells = [spread(over_seeds(seeds, row_of, stage, TRAP[name], k))
                     for row_of in (passed, derived) for k in (1, 16)]
            rows.append([text, TRAP[name], *cells])
    return markdown(["", "order", "right@1", "right@16", "derived@1", "derived@16"], rows)


def base(assets):
    """What the bases know, and the seconds of a run."""
    rows = []
    for seed, run in load_seeds(assets).items():
        def by_line(name, n_lines, run=run):
            return [value(pick(run["measures"], order="", measure=f"{name}_{line}"))
                    for line in range(n_lines)]

        seconds = run["summary"]["seconds"]
        later = [by_line(f"go_on_{kind}", 6)[1:] for kind in KINDS]
        rows.append([seed, f"{min(by_line('next_value', 6)):.3f}",
                     *(f"{by_line(f'go_on_{kind}', 1)[0]:.2f}" for kind in KINDS),
                     f"{min(map(min, later)):.2f} to {max(map(max, later)):.2f}",
                     ", ".join(f"{p:.2f}" for p in by_line("answer_in_head", 7)),
                     f"{sum(seconds.values()):.0f} ({seconds['pretraining']:.0f})"])
    return markdown(["seed", "next value right, least", "P(first line), talkers",
                     "silent", "P(later lines)", "answer right after 0 to 6 lines",
                     "seconds (pretraining)"], rows)


def trap(assets):
    """Right answers by seed and order, and what happens at forks."""
    names = "distinct", "bypass_fork", "entropy_fork_write", "entropy_fork_blank"
    seeds, rows = load_seeds(assets), []
    for seed, run in seeds.items():
        for decoder in orders(seeds, "base").values():
            passes = [with_interval(passed(run, "base", decoder, k)) for k in (1, 4, 16)]
            others = [value(measure(run, "base", decoder, name)) for name in names]
            rows.append([seed, decoder, *passes, *(f"{other:.2f}" for other in others)])
    return markdown(["seed", "order", "right@1", "right@4", "right@16", "distinct of 16",
                     "forks bypassed", "entropy where written", "where blank"], rows)


def derivations(assets):
    """Derivations by seed and order, by kind, and what is predicted of them."""
    seeds, rows = load_seeds(assets), []
    for seed, run in seeds.items():
        for name, decoder in orders(seeds, "base").items():
            cells = [with_interval(derived(run, "base", decoder, k)) for k in (1, 4, 16)]
            kinds = [with_interval(derived(run, "base", decoder, 16, kind))
                     for kind in KINDS]
            rows.append([seed, decoder, *cells, *kinds])
            if name == "left_to_right":
                cells = [measure(run, "base", decoder, f"derived_predicted_at_{k}")
                         for k in (1, 4, 16)]
                rows.append([seed, "the same, predicted",
                             *(f"{value(row):.3f}" for row in cells), "", ""])
    return markdown(["seed", "order", "derived@1", "derived@4", "derived@16",
                     "@16 of talkers", "@16 of the silent"], rows)


def crossing(assets, what="lead_of_ltr"):
    """By how much left to right is ahead of each other order of the base, by k."""
    seeds = load_seeds(assets)
    rows = []
    for decoder in others(seeds).values():
        for seed, run in seeds.items():
            found = {k: measure(run, "base", decoder, f"{what}_at_{k}") for k in KS}
            first = overtakes({k: Interval.of(row) for k, row in found.items()})
            over = {None: "never", KS[0]: "from the start"}.get(first, f"k={first}")
            cells = [with_interval(row, "+") for row in found.values()]
            rows.append([decoder, seed, *cells, over])
        means = [over_models(over_seeds(seeds, measure, "base", decoder, f"{what}_at_{k}"))
                 for k in KS]
        rows.append([decoder, "all", *(bracketed(interval, "+") for interval in means), ""])
    header = ["against", "seed", *(f"k={k}" for k in KS), "left to right overtakes"]
    return markdown(header, rows)


def crossing_derived(assets):
    return crossing(assets, "lead_of_ltr_derived")


def after(assets):
    """Right and derived once more, after either training."""
    seeds, rows = load_seeds(assets), []
    for seed, run in seeds.items():
        for stage in list(STAGES)[1:]:
            for decoder in orders(seeds, stage).values():
                cells = [with_interval(row_of(run, stage, decoder, k))
                         for row_of in (passed, derived) for k in (1, 16)]
                silent = with_interval(derived(run, stage, decoder, 16, "silent"))
                rows.append([seed, STAGES[stage], decoder, *cells, silent])
    return markdown(["seed", "", "order", "right@1", "right@16", "derived@1",
                     "derived@16", "@16 of the silent"], rows)


def rl(assets):
    """Greedy accuracy before RL and after either training, paired gains, NFE."""
    seeds = load_seeds(assets)
    rows = []
    for decoder in greedy(seeds).values():
        for seed, run in seeds.items():
            cells = [f"{value(passed(run, 'base', decoder)):.3f}"]
            for stage in list(STAGES)[1:]:
                gain = with_interval(measure(run, stage, decoder, "gain"), "+")
                cells += [f"{value(passed(run, stage, decoder)):.3f}", gain]
            nfe = [f"{evaluations(run, stage, decoder):.1f}" for stage in STAGES]
            rows.append([decoder, seed, *cells, ", ".join(nfe)])
    return markdown(["greedy decoder", "seed", "base", "JustGRPO", "gain, paired",
                     "free rollouts", "gain, paired", "NFE"], rows)

# ----------------------------------------------------------------------------------------
# tables of times


def ratios(path, first):
    """Of bench.py's rows; first: the header of what was timed."""
    rows = []
    for row in read_csv(path):
        ratio = "-"     # where there was nothing to time
        if row["ratio_median"]:
            ratio = f"{row['ratio_median']} ({row['ratio_min']} to {row['ratio_max']})"
        rows.append([row["what"], row["baseline"], row["contender"], ratio])
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
        rows.append([row["version"], row["commit"], row["seed"], seconds, row["peak_mb"]])
    return markdown(["all of `python train.py`", "commit", "seed",
                     "seconds (pretraining)", "memory, MB"], rows)


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
    return markdown(*table(read_csv(assets / "pass_at_k" / "rows.csv")))


def arms(assets):
    """Greedy accuracy after each rival's training, on one base: its results.csv."""
    from experiments.arms import ARMS
    run = {"results": read_csv(assets / "arms.csv")}
    rows = []
    for arm in ("base", *ARMS):
        text = ARMS[arm].text if arm in ARMS else "before RL"
        cells = [bracketed(Interval.of(passed(run, arm, GREEDY[name]))) for name in WATCHED]
        rows.append([f"`{arm}`", text, *cells])
    return markdown(["arm", "what it is", *(str(GREEDY[name]) for name in WATCHED)], rows)


def llada(assets):
    """experiments/llada_bench.py: a column for each device and dtype."""
    rows = read_csv(assets / "llada.csv")
    columns = list(dict.fromkeys((row["device"], row["dtype"]) for row in rows))
    table = []
    for what, unit in dict.fromkeys((row["what"], row["unit"]) for row in rows):
        cells = [quantity(value(pick(rows, what=what, device=device, dtype=dtype)), unit)
                 for device, dtype in columns]
        table.append([what, *cells])
    return markdown(["", *(f"{dtype}, {device}" for device, dtype in columns)], table)


def quantity(number, unit):
    if unit == "bytes":
        return f"{number / 1e9:.2f} GB"
    return f"{number:,.0f}" if number >= 1000 else f"{number:.2f} {unit}".strip()


TABLES = {table.__name__: table for table in [
    headline, base, trap, derivations, crossing, crossing_derived, rl, after, bench,
    products, ideas, profile, whole, sharing, pass_at_k, arms, llada]}

# ----------------------------------------------------------------------------------------
# numbers


def numbers(assets):
    """{name: text} of what the prose may cite."""
    found = {**numbers_of_seeds(assets), **numbers_of_gsm8k(assets),
             **numbers_of_bench(assets)}
    return {"_".join(re.findall(r"\w+", name)): text for name, text in found.items()}


def numbers_of_seeds(assets):
    """Means over seeds; *_spread is the highest seed less the lowest, *_least and *_most
    are these."""
    seeds = load_seeds(assets)
    found = {}

    def add(name, values, form=".2f"):
        plain_form = form.strip("+")
        found[name] = f"{mean(values):{form}}"
        found[f"{name}_least"] = f"{min(values):{form}}"
        found[f"{name}_most"] = f"{max(values):{form}}"
        found[f"{name}_spread"] = f"{max(values) - min(values):{plain_form}}"

    for stage in STAGES:
        for name, decoder in orders(seeds, stage).items():
            for k in (1, 16):
                add(f"right{k}_{name}_{stage}",
                    over_seeds(seeds, passed, stage, decoder, k))
                add(f"derived{k}_{name}_{stage}",
                    over_seeds(seeds, derived, stage, decoder, k))
        for name, decoder in greedy(seeds).items():
            add(f"greedy_{name}_{stage}", over_seeds(seeds, passed, stage, decoder))
            add(f"nfe_{name}_{stage}",
                [evaluations(run, stage, decoder) for run in seeds.values()], ".1f")
            if stage != "base":
                gains = over_seeds(seeds, measure, stage, decoder, "gain")
                add(f"gain_{name}_{stage}", gains, "+.2f")
    for name, decoder in others(seeds).items():
        for row in (f"lead_of_ltr{what}_at_{k}" for what in ("", "_derived") for k in KS):
            add(f"{row}_{name}", over_seeds(seeds, measure, "base", decoder, row), "+.3f")
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
    """The ratios, and bench_again: how far the medians of a second run are from these,
    at most, and at most in the rows about RL."""
    found, changes = {}, {}
    again = read_csv(assets / "bench-again.csv")
    for row in read_csv(assets / "bench.csv"):
        what, ratio = row["what"], float(row["ratio_median"])
        found[f"ratio {what}"] = f"{ratio:.0f}"
        second = float(pick(again, what=what)["ratio_median"])
        changes[what] = abs(second / ratio - 1)
    about_rl = [change for what, change in changes.items() if "RL" in what]
    found["bench_again"] = f"{100 * max(changes.values()):.0f} %"
    found["bench_again_rl"] = f"{100 * max(about_rl):.0f} %"
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
