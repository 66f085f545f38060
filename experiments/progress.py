"""Draws the figures of a run of train.py, which calls this, from its rows.

    python experiments/progress.py out

trap.png: act 3, pass@k of the base by order, of right answers and of derivations.
progress.png: acts 4 and 5, greedy accuracy during RL by decoder.
"""
import io
import sys
from itertools import cycle
from pathlib import Path

from matplotlib.figure import Figure

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from runs import read_csv, write_whole

STYLES = "-o", "--s", "-.^", ":d", ":x"     # to be told apart in black and white


def draw(folder, watched=("left_to_right", "confidence", "threshold")):
    """watched: the columns of log.csv that are accuracies."""
    draw_trap(folder, read_csv(f"{folder}/results.csv"), read_csv(f"{folder}/measures.csv"))
    draw_training(folder, read_csv(f"{folder}/log.csv"), watched)


def draw_trap(folder, results, measures):
    right, derived = [row for row in results if is_sampled(row)], by_k(measures, "derived_at_")
    if not right:       # act 3 was not run
        return
    figure, axes = panels(2 if derived else 1)
    curves(axes[0], right)
    size = f"{right[0]['n_problems']} problems"
    axes[0].set(ylabel=f"share of {size}", title="right@k of the base, T=0.6")
    if derived:
        curves(axes[1], derived)
        predicted = by_k(measures, "derived_predicted_at_")
        axes[1].semilogx(numbers(predicted, "k"), numbers(predicted, "value"), "k+", base=2,
                         markersize=11, label="left_to_right, predicted")
        axes[1].set(title="derived@k: every line written, all right")
    for axis in axes:
        ks = sorted({k for line in axis.lines for k in line.get_xdata()})
        axis.set_xticks(ks, [f"{k:.0f}" for k in ks])
    save(figure, axes, f"{folder}/trap.png")


def by_k(measures, name):
    """The rows of NAME1, NAME2, NAME4, ..., with that number as their k."""
    return [{**row, "k": row["measure"].removeprefix(name)} for row in measures
            if is_sampled(row) and row["measure"].startswith(name)]


def is_sampled(row):
    return row["stage"] == "base" and float(row["temperature"] or 0) > 0


def curves(axis, rows):
    """A curve an order; the first two with their 95 % interval, or all would be mud."""
    by_order = {}
    for row in rows:
        name = row["order"]
        if row["block_length"]:
            name += f", blocks of {row['block_length']}"
        by_order.setdefault(name, []).append(row)
    for place, (name, mine) in enumerate(by_order.items()):
        k, style = numbers(mine, "k"), STYLES[place % len(STYLES)]
        axis.semilogx(k, numbers(mine, "value"), style, label=name, base=2)
        if place < 2:
            axis.fill_between(k, numbers(mine, "low"), numbers(mine, "high"), alpha=0.15)
    axis.set(xlabel="k, samples a problem (bands: 95 % intervals)")


def draw_training(folder, log, watched):
    """A panel an arm, in it a curve a decoder, on validation problems."""
    arms = list(dict.fromkeys(row["stage"] for row in log if row["stage"] != "base"))
    if not arms:        # acts 4 and 5 were not run
        return
    figure, axes = panels(len(arms))
    titles = {"justgrpo": "rollouts left to right (JustGRPO)",
              "confidence": "rollouts by confidence, the freedom back"}
    for axis, arm in zip(axes, arms):
        for name, style in zip(watched, cycle(STYLES)):
            rows = [row for row in log if row["stage"] == arm and row.get(name)]
            axis.plot(numbers(rows, "step"), numbers(rows, name), style, label=name)
        axis.set(xlabel="RL step", title=titles.get(arm, arm))
    axes[0].set(ylabel="greedy accuracy on validation problems")
    save(figure, axes, f"{folder}/progress.png")


def panels(n):
    figure = Figure(figsize=(5 * n, 4), layout="constrained")
    return figure, figure.subplots(1, n, sharey=True, squeeze=False)[0]


def save(figure, axes, path):
    for axis in axes:
        if axis.lines:
            axis.legend()
    drawn = io.BytesIO()
    figure.savefig(drawn, dpi=120, format="png")
    write_whole(path, drawn.getvalue())


def numbers(rows, column):
    return [float(row[column] or "nan") for row in rows]    # (a bound may be unknown)


if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1].startswith("-"):
        sys.exit("python experiments/progress.py FOLDER")
    try:
        draw(sys.argv[1])
    except (OSError, ValueError) as error:
        sys.exit(f"progress.py: error: {error}")
