"""Draws the figures of a run of train.py, which calls this, from its rows.

    python experiments/progress.py out

trap.png: act 3, pass@k of the base by order, of right answers and of derivations.
progress.png: acts 4 and 5, greedy accuracy during RL by decoder.
"""
import sys
from itertools import cycle
from pathlib import Path

from matplotlib.figure import Figure

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from runs import read_csv

STYLES = "-o", "--s", "-.^", ":d", ":x"     # to be told apart in black and white


def draw(folder, watched=("left_to_right", "confidence", "threshold")):
    """watched: the columns of log.csv that are accuracies."""
    draw_trap(folder, read_csv(f"{folder}/results.csv"), read_csv(f"{folder}/measures.csv"))
    draw_training(folder, read_csv(f"{folder}/log.csv"), watched)


def draw_trap(folder, results, measures):
    figure, (left, right) = panels()
    sampled = [row for row in results if is_sampled(row)]
    curves(left, sampled)
    left.set(ylabel="pass@k", title="the base: right answers, T=0.6")
    curves(right, by_k(measures, "derived_at_"))
    predicted = by_k(measures, "derived_predicted_at_")
    if predicted:
        right.semilogx(numbers(predicted, "k"), numbers(predicted, "value"), "k+", base=2,
                       markersize=11, label="left_to_right, predicted")
    right.set(title="derivations: every line written, all right")
    save(figure, (left, right), f"{folder}/trap.png")


def by_k(measures, name):
    """The rows of NAME1, NAME2, NAME4, ..., with that number as their k."""
    return [{**row, "k": row["measure"].removeprefix(name)} for row in measures
            if is_sampled(row) and row["measure"].startswith(name)]


def is_sampled(row):
    return row["stage"] == "base" and float(row["temperature"] or 0) > 0


def curves(axis, rows):
    """A curve an order, with its interval."""
    by_order = {}
    for row in rows:
        name = row["order"]
        if row["block_length"]:
            name += f", blocks of {row['block_length']}"
        by_order.setdefault(name, []).append(row)
    for (name, mine), style in zip(by_order.items(), cycle(STYLES)):
        k = numbers(mine, "k")
        axis.semilogx(k, numbers(mine, "value"), style, label=name, base=2)
        axis.fill_between(k, numbers(mine, "low"), numbers(mine, "high"), alpha=0.15)
    axis.set(xlabel="k, samples a problem")


def draw_training(folder, log, watched):
    """A panel an arm, in it a curve a decoder, on validation problems."""
    figure, axes = panels()
    arms = dict.fromkeys(row["stage"] for row in log if row["stage"] != "base")
    titles = {"justgrpo": "rollouts left to right (JustGRPO)",
              "confidence": "rollouts by confidence, the freedom back"}
    for axis, arm in zip(axes, arms):
        for name, style in zip(watched, cycle(STYLES)):
            rows = [row for row in log if row["stage"] == arm and row.get(name)]
            axis.plot(numbers(rows, "step"), numbers(rows, name), style, label=name)
        axis.set(xlabel="RL step", title=titles.get(arm, arm))
    axes[0].set(ylabel="greedy accuracy, by decoder")
    save(figure, axes, f"{folder}/progress.png")


def panels():
    figure = Figure(figsize=(10, 4), layout="constrained")
    return figure, figure.subplots(1, 2, sharey=True)


def save(figure, axes, path):
    for axis in axes:
        if axis.lines:
            axis.legend()
    figure.savefig(path, dpi=120)


def numbers(rows, column):
    return [float(row[column] or "nan") for row in rows]    # (a bound may be unknown)


if __name__ == "__main__":
    draw(sys.argv[1])
