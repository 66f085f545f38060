"""Experiment 7: the trap against the fork. Is it the text's uncertainty, or the model's own?

    python experiments/forks.py --figure assets/trap/forks.png

From the committed rows: seconds. Without them: 40 minutes on one core, and the bases.

Bases of tasks with more and more direct answers, from none (no fork at all), each well trained;
and, of two of these tasks, bases whose pretraining was stopped early: there the text is the same,
and the model is less sure of it. The forks are measured in left-to-right samples: their share of
all positions, and the entropy there."""
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from eval_gsm8k import bootstrap
from experiments import bases
from experiments.rows import (FOUR, LTR, Cell, ks_of, lead, panels, plain, run, save, short,
                              signed, solved, value)
from experiments.tables import pick

LEARNED = ["direct-0", "direct-25", "direct-50", "direct-60", "default", "direct-70"]
EARLY = ["early-direct-0", "early"]
MARKERS = {0: "o", 0.25: "v", 0.5: "s", 0.6: "D", 0.65: "^", 0.7: "P"}     # by direct answers

def models(seeds):
    return [(v, seed) for v in [*LEARNED, *EARLY] for seed in bases.VARIANTS[v][2]
            if seed in seeds]

def cells(seeds):
    return [Cell(variant, seed, decoder) for variant, seed in models(seeds) for decoder in FOUR]

def table(rows, seeds):
    """Left to right's pass@k and its lead over the others, by base."""
    out, ks = [], ks_of(rows, (1, 64))
    for variant, seed in models(seeds):
        ltr, *others = (pick(rows, variant=variant, seed=seed, arm=d) for d in FOUR)
        task, steps, _ = bases.VARIANTS[variant]
        out.append([f"{task.direct:g}", steps, seed, f"{value(ltr, 'fork_share'):.3f}",
                    f"{value(ltr, 'entropy_fork'):.3f}", f"{value(ltr, 'entropy_other'):.3f}",
                    *(plain(*bootstrap(solved(ltr, k))) for k in ks),
                    *(signed(*lead(ltr, other, k)) for other in others for k in ks)])
    return ["direct answers", "steps trained", "seed", "forks' share", "entropy at forks",
            "elsewhere", *(f"left to right pass@{k}" for k in ks),
            *(f"lead over {short(d)}, k={k}" for d in FOUR[1:] for k in ks)], out

TABLES = [table]

def draw(rows, seeds, path):
    """The gap against the forks' entropy in all, per text position."""
    ks = ks_of(rows, (1, 64))
    figure, axes = panels(3, n_rows=len(ks), y="left to right's lead in pass@k",
                          x="entropy at forks x their share of the text, nats")
    for row, k in zip(axes, ks):
        for axis, decoder in zip(row, FOUR[1:]):
            for variant, seed in models(seeds):
                ltr, other = (pick(rows, variant=variant, seed=seed, arm=d)
                              for d in (LTR, decoder))
                gap, low, high = lead(ltr, other, k)
                x = value(ltr, "fork_share") * value(ltr, "entropy_fork")
                task, steps, _ = bases.VARIANTS[variant]
                early = variant in EARLY
                axis.errorbar(x, gap, yerr=[[gap - low], [high - gap]], capsize=2, linewidth=0.8,
                              color="tab:red" if early else "black", marker=MARKERS[task.direct],
                              fillstyle="none" if early else "full", markersize=6, linestyle="",
                              label=f"{task.direct:g} direct, {steps} steps")
            axis.axhline(0, color="gray", linewidth=0.6)
            axis.set_title(f"lead over {short(decoder)} at k = {k}", fontsize=9)
    labels = {label: handle for handle, label in zip(*axes[0][0].get_legend_handles_labels())}
    axes[0][0].legend(labels.values(), labels, fontsize=6, loc="upper left")
    save(figure, path)

if __name__ == "__main__":
    run("forks", "The gap against the share of forks.", cells, TABLES, draw)
