"""Draws FOLDER/progress.png from the rows of a run of train.py, which calls this.

    python experiments/progress.py out
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
    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    draw_trap(left, read_csv(f"{folder}/results.csv"))
    draw_training(right, read_csv(f"{folder}/log.csv"), watched)
    for axis in (left, right):
        if axis.lines:
            axis.legend()
    figure.savefig(f"{folder}/progress.png", dpi=120)


def draw_trap(axis, results):
    """pass@k of the base, a curve an order."""
    curves = {}
    for row in results:
        if row["stage"] == "base" and float(row["temperature"]) > 0:
            name = row["order"]
            if row["block_length"]:
                name += f", blocks of {row['block_length']}"
            curves.setdefault(name, []).append(row)
    for (name, rows), style in zip(curves.items(), cycle(STYLES)):
        k = numbers(rows, "k")
        axis.semilogx(k, numbers(rows, "value"), style, label=name, base=2)
        axis.fill_between(k, numbers(rows, "low"), numbers(rows, "high"), alpha=0.15)
    axis.set(xlabel="k", ylabel="pass@k at T=0.6",
             title="The base, by order (95 % intervals)")


def draw_training(axis, log, watched):
    """Greedy accuracy during RL, on validation problems, a curve a decoder."""
    for name, style in zip(watched, cycle(STYLES)):
        rows = [row for row in log if row["stage"] != "base" and row.get(name)]
        if rows:
            axis.plot(numbers(rows, "step"), numbers(rows, name), style, label=name)
    axis.set(xlabel="RL step", ylabel="greedy accuracy", title="Trained by justgrpo")


def numbers(rows, column):
    return [float(row[column] or "nan") for row in rows]    # (a bound may be unknown)


if __name__ == "__main__":
    draw(sys.argv[1])
