"""pass@k by order, of right answers and of derivations, and how far left to right leads.

    python experiments/pass_at_k.py --quick                         a look, in seconds
    python experiments/pass_at_k.py --figure assets/pass_at_k/toy.png

The model for an experiment: name the cells, collect their rows, print a table, draw.
"""
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from eval_gsm8k import print_table, proportion
from experiments import lab
from runs import ends_quietly
from train import TRAP


def table(rows):
    """Header and lines: at one sample a problem, and at all of them."""
    ends = [1, int(rows[0]["n_samples"])]
    lines = []
    for row in rows:
        line = [row["seed"], lab.decoder_of(row)]
        for column in ("right", "derived"):
            line += [lab.bracketed(proportion(lab.solved(row, k, column))) for k in ends]
        first = lab.pick(rows, seed=row["seed"], order="left_to_right")
        if row is not first:
            line += [lab.bracketed(lab.lead(first, row, k), "+") for k in ends]
        lines.append(line)
    kinds = "pass", "derived", "left to right leads, pass"
    return ["base", "order", *(f"{kind}@{k}" for kind in kinds for k in ends)], lines


def draw(rows, path):
    seeds = sorted({row["seed"] for row in rows})
    figure, axes = lab.panels(len(seeds))
    for axis, seed in zip(axes, seeds):
        for style, row in enumerate(lab.matching(rows, seed=seed)):
            lab.curve(axis, row, style)
        axis.set(ylabel="pass@k", title=f"base {seed}")
    axes[0].legend(fontsize=7)
    lab.save(figure, path)


@ends_quietly
def main(argv=None):
    args = lab.parse_flags("pass_at_k", "pass@k by order.", argv)
    cells = [lab.Cell("toy", seed, decoder)
             for seed in args.seeds for decoder in TRAP.values()]
    rows = lab.collect(args, cells)
    print_table(*table(rows))
    if args.figure:
        draw(rows, args.figure)


if __name__ == "__main__":
    main()
