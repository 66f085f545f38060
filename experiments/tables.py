"""README.md's tables, from the rows in assets/: of train.py (seed-*), bench.py and scaling.py.

    python experiments/tables.py            print them
    python experiments/tables.py --write    put them into README.md, between its markers

tests/test_readme.py fails if README.md and the rows differ.
"""
import json
import re
import sys
from pathlib import Path

KS = "1", "2", "4", "8", "16", "32"
ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
sys.path.insert(0, str(ROOT))       # the decoders and their names are train.py's
from eval_gsm8k import read_csv  # noqa: E402
from train import GREEDY, TRAP, overtakes  # noqa: E402


def load(folder):
    tables = {name: read_csv(folder / f"{name}.csv") for name in ("results", "measures")}
    return tables | {"summary": json.loads((folder / "summary.json").read_text(encoding="utf-8"))}


def pick(rows, **want):
    """The one row with these values (a Decoder stands for its name)."""
    found = [r for r in rows if all(r[k] == str(v) for k, v in want.items())]
    if len(found) != 1:
        raise ValueError(f"{len(found)} rows with {want}")
    return found[0]


def key(decoder):
    return dict(order=decoder.order, selection=decoder.selection, block_length=str(
        decoder.block_length or ""), temperature=str(decoder.temperature))


def bracketed(value, low, high, sign=""):
    return f"{value:{sign}.3f} [{low:{sign}.2f}, {high:{sign}.2f}]"


def with_interval(row, sign=""):
    return bracketed(*(float(row[c]) for c in ("value", "low", "high")), sign)


def markdown(header, rows):
    return "\n".join("| " + " | ".join(map(str, row)) + " |"
                     for row in [header, ["---"] * len(header), *rows])


def trap_table(seeds, stage):
    """pass@k by order and seed, with distinct completions, bypass and entropy at forks."""
    rows = []
    for seed, t in seeds.items():
        for decoder in TRAP:
            want = key(decoder) | {"stage": stage}
            cells = [with_interval(pick(t["results"], k=k, **want)) for k in ("1", "4", "32")]
            extra = [f"{float(pick(t['measures'], measure=m, **want)['value']):.2f}"
                     for m in ("distinct", "bypass_fork", "entropy_fork", "early_end")]
            rows.append([seed, decoder, *cells, *extra])
    return markdown(["seed", "order", "pass@1", "pass@4", "pass@32", "distinct of 32",
                     "forks bypassed", "entropy at forks", "length first"], rows)


def rl_table(seeds):
    """Greedy accuracy before and after, paired gain, NFE, tokens an evaluation."""
    rows = []
    for decoder in GREEDY:
        for seed, t in seeds.items():
            want = key(decoder)
            pair = [pick(t["results"], stage=s, **want) for s in ("base", "justgrpo")]
            speed = [pick(t["measures"], stage=s, measure="tokens_per_evaluation", **want)
                     for s in ("base", "justgrpo")]
            gain = pick(t["measures"], stage="justgrpo", measure="gain", **want)
            rows.append([decoder, seed,
                         *(f"{float(r['value']):.3f}" for r in pair), with_interval(gain, "+"),
                         " -> ".join(f"{float(r['nfe']):.1f}" for r in pair),
                         " -> ".join(f"{float(r['value']):.2f}" for r in speed)])
    return markdown(["greedy decoder", "seed", "base", "JustGRPO", "gain, paired", "NFE",
                     "tokens per NFE"], rows)


def spread(values, sign=""):
    """The mean over seeds, the smallest and the largest: five numbers say no more."""
    low, high = min(values), max(values)
    return f"{sum(values) / len(values):{sign}.2f} ({low:{sign}.2f} to {high:{sign}.2f})"


def summary_table(seeds):
    """One row an order or decoder, base -> JustGRPO: pass@k at T=0.6, then greedy."""
    def across(table, decoder, **want):
        return [float(pick(t[table], **key(decoder), **want)["value"]) for t in seeds.values()]
    stages = "base", "justgrpo"
    trap = [[d, *(spread(across("results", d, stage=s, k=k)) for s in stages for k in ("1", "32"))]
            for d in TRAP]
    greedy = [[d, *(spread(across("results", d, stage=s)) for s in stages),
               spread(across("measures", d, stage="justgrpo", measure="gain"), "+"),
               *(spread(across("measures", d, stage=s, measure="tokens_per_evaluation"))
                 for s in stages)] for d in GREEDY]
    return (markdown(["order, T=0.6", "base pass@1", "base pass@32", "JustGRPO pass@1",
                      "JustGRPO pass@32"], trap) + "\n\n" +
            markdown(["greedy decoder", "base", "JustGRPO", "gain, paired", "tokens per NFE",
                      "after"], greedy))


def crossing_table(seeds):
    """By how much left to right is ahead of each other order of the base, by k."""
    rows = []
    for decoder in TRAP[1:]:
        for seed, t in seeds.items():
            want = key(decoder) | {"stage": "base"}
            lead = {k: pick(t["measures"], measure=f"lead_of_ltr_at_{k}", **want) for k in KS}
            over = overtakes(lead)
            rows.append([decoder, seed, *(with_interval(row, "+") for row in lead.values()),
                         {None: "never", KS[0]: "from the start"}.get(over, f"k={over}")])
    return markdown(["against", "seed", *(f"k={k}" for k in KS), "left to right overtakes"], rows)


def base_table(seeds):
    """The bases, left to right before and after, and the seconds of a run."""
    rows = []
    for seed, t in seeds.items():
        def values(measure, n):
            found = [pick(t["measures"], stage="base", measure=f"{measure}_{s}", order="")
                     for s in range(n)]
            return [float(r["value"]) for r in found]
        ltr = [float(pick(t["results"], stage=s, k="1", **key(TRAP[0]))["value"])
               for s in ("base", "justgrpo")]
        seconds = t["summary"]["seconds"]
        rows.append([seed, f"{sum(values('next_value', 6)) / 6:.3f}",
                     ", ".join(f"{v:.2f}" for v in values("go_on", 6)),
                     ", ".join(f"{v:.2f}" for v in values("answer_in_head", 7)),
                     f"{ltr[0]:.3f} -> {ltr[1]:.3f}",
                     f"{sum(seconds.values()):.0f} ({seconds['pretraining']:.0f})"])
    return markdown(["seed", "next value right", "P(go on) at forks 0 to 5",
                     "answer right after 0 to 6 steps", "left to right pass@1, T=0.6",
                     "seconds (pretraining)"], rows)


def bench_table(first, rows):
    """What experiments/bench.py measured."""
    return markdown([first, "baseline", "contender", "ratio, median (least to most)"], [
        [r["what"], r["baseline"], r["contender"],
         f"{r['ratio_median']} ({r['ratio_min']} to {r['ratio_max']})"]
        for r in rows])


def whole_table():
    """Runs of train.py, one after the other: seconds and memory, measured from outside."""
    return markdown(["all of `python train.py`", "seed", "seconds (pretraining)", "memory, MB"], [
        [r["version"], r["seed"], f"{float(r['seconds']):,.0f} ({float(r['pretraining']):,.0f})",
         r["peak_mb"]] for r in read_csv(ROOT / "assets" / "whole.csv")])


def sharing_table():
    """Evaluations run for pass@n of 16 problems, by order, from experiments/scaling.py's rows."""
    rows = [r for r in read_csv(ROOT / "assets" / "scaling.csv") if r["what"].startswith("pass@n")]
    ns = sorted({int(r["x"]) for r in rows})
    published = {int(r["x"]): int(r["published_states"]) for r in rows}
    cells = {(r["what"].split(", ")[1], int(r["x"])):
             f"{int(r['states']):,} ({float(r['seconds']):.2g} s)" for r in rows}
    orders = dict.fromkeys(order for order, _ in cells)
    return markdown(["evaluations of 16 problems x n", *(f"n={n}" for n in ns)], [
        ["published sampler", *(f"{published[n]:,}" for n in ns)],
        *([order, *(cells.get((order, n), "") for n in ns)] for order in orders)])


def profile_table():
    """Milliseconds by part, before the work of bench.py's rows and after."""
    before, after = (read_csv(ROOT / "assets" / f"profile{name}.csv") for name in ("-before", ""))
    return markdown(["step", "part", "before: ms", "share", "after: ms", "share"], [
        [a["step"], a["part"], b["ms"], b["share"], a["ms"], a["share"]]
        for b, a in zip(before, after)])


def all_tables():
    folders = sorted((ROOT / "assets").glob("seed-*"), key=lambda f: int(f.name.split("-")[1]))
    seeds = {f.name.split("-")[1]: load(f) for f in folders}
    *same_work, products = read_csv(ROOT / "assets" / "bench.csv")     # the last is of other work
    return {"summary": summary_table(seeds), "base": base_table(seeds),
            "trap": trap_table(seeds, "base"), "crossing": crossing_table(seeds),
            "rl": rl_table(seeds), "after": trap_table(seeds, "justgrpo"),
            "bench": bench_table("the same work", same_work), "profile": profile_table(),
            "products": bench_table("other work", [products]), "whole": whole_table(),
            "sharing": sharing_table(),
            "ideas": bench_table("each idea alone", read_csv(ROOT / "assets" / "ideas.csv"))}


def fill(text, tables):
    """A page's text with these tables between their <!-- NAME --> and <!-- /NAME --> made anew."""
    for key, table in tables.items():
        text = re.sub(rf"(<!-- {key} -->\n).*?(<!-- /{key} -->)",
                      lambda m: m.group(1) + "\n" + table + "\n\n" + m.group(2), text, flags=re.S)
    return text


def publish(tables_of, phrases=()):
    """Put tables into their pages with --write, tables_of: page -> its tables; else print them, and
    the phrases that are to stand in the prose."""
    if "--write" in sys.argv[1:]:
        for page, tables in tables_of.items():
            page.write_text(fill(page.read_text(encoding="utf-8"), tables), encoding="utf-8")
    else:
        print("\n\n".join([*(t for tables in tables_of.values() for t in tables.values()),
                           *phrases]))


if __name__ == "__main__":
    publish({README: all_tables()})
