"""pass@k by order, of right answers and of derivations, and how far left to right leads.

    python experiments/pass_at_k.py --quick                         a look, in seconds
    python experiments/pass_at_k.py --figure assets/pass_at_k/orders.png

The model for an experiment: name the cells, collect their rows, print a table, draw.
"""
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from eval_gsm8k import matching, print_table, proportion
from experiments import lab
from runs import ends_quietly
from sample import ORDERS, Decoder

# Every order of sample.py, and the paper's also in blocks.
DECODERS = [Decoder(order, temperature=0.6) for order in ORDERS]
DECODERS += [Decoder("confidence", block_length=size, temperature=0.6) for size in (8, 4)]
N_SAMPLES = 256


def table(rows):
    """Header and lines: at one sample a problem, at sixteen and at all of them."""
    last = int(rows[0]["n_samples"])
    ks = [k for k in (1, 16, last) if k <= last]
    lines = []
    for row in rows:
        line = [row["seed"], lab.decoder_of(row)]
        for column in ("right", "derived"):
            line += [lab.bracketed(proportion(lab.solved(row, k, column))) for k in ks]
        first = lab.pick(rows, seed=row["seed"], order="left_to_right")
        if row is not first:
            line += [lab.bracketed(lab.lead(first, row, k), "+") for k in (1, last)]
            only, other, _ = lab.mcnemar(first, row, "derived")
            line.append(f"{only}; {other}")
        lines.append(line)
    header = [f"{column}@{k}" for column in ("right", "derived") for k in ks]
    return ["base", "order", *header, "lead, right@1", f"lead, right@{last}",
            "derived by left to right only; by this order only"], lines


def draw(rows, path):
    """A column a base: right answers above, derivations below."""
    seeds = sorted({row["seed"] for row in rows})
    figure, axes = lab.panels(len(seeds), 2)
    for column, above in zip(("right", "derived"), axes):
        for axis, seed in zip(above, seeds):
            for style, row in enumerate(matching(rows, seed=seed)):
                lab.curve(axis, row, style, column)
            axis.set(title=f"base {seed}")
        above[0].set(ylabel=f"{column}@k")
    axes[1, -1].legend(fontsize=6)
    lab.save(figure, path)


@ends_quietly
def main(argv=None):
    args = lab.parse_flags("pass_at_k", "pass@k by order.", argv, seeds=(0, 1, 2))
    cells = [lab.Cell("worksheet", seed, decoder, n_samples=N_SAMPLES)
             for seed in args.seeds for decoder in DECODERS]
    rows = lab.collect(args, cells)
    print_table(*table(rows))
    if args.figure:
        draw(rows, args.figure)


if __name__ == "__main__":
    main()
