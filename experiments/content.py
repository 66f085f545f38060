"""RL experiment 2: where the arms go, and why. What do their rollouts contain?

    python experiments/content.py --figure assets/rl/content.png

From the committed rows, curves.py's and its own: seconds. Without them: two hours on one core.

The hypothesis: a policy gradient makes likelier what is right more often than the rest, so an arm
learns to write steps if its rollouts contain some texts with every step, and if these are right
more often: `push` is the product, share x (right - reward), before training. The tables have what
rollouts contain before training, and who writes every step after it. To see whether an arm that
writes none lacks exploration, LCR's rollouts in one block get higher temperatures; whether it is a
matter of the bases, all arms but `random`, which is slow, start from three of a harder task
(coverage.py's: 8 operations, .8 of the texts jump), at the rate that curves.py chose."""
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from eval_gsm8k import read_csv
from experiments import curves, rl, trained
from experiments.curves import CONTENDERS, IN_BLOCKS, contender, joined, style
from experiments.rl import Run, each, number
from experiments.rows import STYLES, panels, report, save
from grpo import ARMS

# One arm for each way to roll out.
ORDERS = {"left to right": "justgrpo", "LCR, one block": "confidence",
          "LCR, blocks of 8": "confidence, blocks of 8", "TPP, one block": "top_probability",
          "TPP, blocks of 8": "top_probability, blocks of 8",
          "TPP with fork selection": "fork", "random": "random"}
HOT = {f"{arm} at T {t}": (arm, f"--rollout-temperature {t}")
       for arm in ("confidence", "confidence_exact") for t in (1.5, 2.0)}
FAST = [name for name in CONTENDERS if name != "random"]

def hot(name, seed):
    arm, options = HOT[name]
    return Run(arm, seed, options, watched=rl.ENDS)

def hard(name, seed, quick=False):
    arm, block = CONTENDERS[name]
    return Run(arm, seed, joined("" if quick else trained.rate(name), block), "hard", rl.ENDS)

def runs(seeds, quick=False):
    return [*(hot(name, seed) for name in HOT for seed in seeds),
            *(hard(name, seed, quick) for seed in seeds for name in FAST)]

def writes(run):    # rows of a run: in the end most rollouts have every step
    return number(run[-1], "all_steps") > 0.5

def push(row):      # share of rollouts with every step x by how much they are right more often
    return number(row, "all_steps") * (number(row, "right_all") - number(row, "reward"))

def counted(row, share, right, of=""):      # texts of a kind, and the share of them that is right
    return f"{number(row, share) * float(row['n_rollouts']):.0f}{of}" + (
        f" ({float(row[right]):.2f})" if row[right] else "")

def base_table(rows, seeds):
    """What rollouts at T=1 contain before training: texts, and the share of them that is right."""
    out = []
    for order, name in ORDERS.items():
        for seed in seeds:
            row = rl.of(rows, contender(name, seed))[0]
            n = int(float(row["n_rollouts"]))
            out.append([order, seed, *(counted(row, share, right, f" of {n}") for share, right in (
                ("all_steps", "right_all"), ("some_steps", "right_some"),
                ("no_steps", "right_none"))), f"{float(row['reward']):.3f}",
                f"{float(row['signal']):.2f}", f"{push(row):.3f}"])
    return ["rollouts", "base", "every step (right)", "some", "none", "reward", "signal", "push"
            ], out

def end_table(rows, seeds):
    """After training, at each arm's best rate."""
    out = []
    for name in CONTENDERS:
        mine = curves.at_best(rows, name, seeds)
        out.append([name, *(each((one[-1][c] for one in mine), "{:.2f}") for c in (
            "all_steps", "right_all", "no_steps", "right_none", "reward", "signal", "length",
            "entropy_fork"))])
    return ["arm", "every step", "right", "none", "right", "reward", "signal", "length",
            "entropy at forks"], out

def hard_table(rows, seeds):
    """Three bases of the harder task, at the rates that curves.py chose on the default one. The
    share of an arm's own rollouts that write every step, before training and after; on how many
    bases it is above .5; greedy accuracies after."""
    out = []
    for name in FAST:
        mine = [rl.of(rows, hard(name, seed)) for seed in seeds]
        out.append([name, each((one[0]["all_steps"] for one in mine), "{:.3f}"),
                    each((one[-1]["all_steps"] for one in mine), "{:.2f}"),
                    sum(map(writes, mine)),
                    *(each((one[-1][d] for one in mine), "{:.2f}") for d in curves.DECODERS)])
    return ["arm", "every step before, by base", "after", f"bases of {len(seeds)} above .5",
            *curves.DECODERS], out

def hot_table(rows, seeds):
    out = []
    for name in HOT:
        mine = [rl.of(rows, hot(name, seed)) for seed in seeds]
        out.append([name, *(each((one[at][c] for one in mine), "{:.2f}")
                            for c in ("all_steps", "right_all", "no_steps", "right_none")
                            for at in (0, -1)),
                    *(each(one[-1][d] for one in mine) for d in curves.DECODERS)])
    return ["rollouts", *(f"{c} {when}" for c in ("every step", "right", "none", "right")
                          for when in ("before", "after")), *curves.DECODERS], out

TABLES = [base_table, end_table, hard_table, hot_table]

SHOWN = {"length": "tokens written", "no_steps": "share of answer-only texts",
         "entropy_fork": "entropy at forks, nats", "reward": "reward"}

def draw(rows, seeds, path):
    """train.py's learning rate. Left, rollouts in one block; right, in blocks of 8."""
    sides = [[*ARMS], ["justgrpo", "rejection", *IN_BLOCKS]]
    figure, axes = panels(2 * len(seeds), n_rows=len(SHOWN), width=2.7, height=2.3, x="step",
                          y=list(SHOWN.values()), fontsize=8)
    for line, column in zip(axes, SHOWN):
        for i, axis in enumerate(line):
            seed = seeds[i % len(seeds)]
            for name in sides[i // len(seeds)]:
                one = rl.of(rows, contender(name, seed))
                axis.plot([int(r["step"]) for r in one], [number(r, column) for r in one],
                          label=name, markersize=3, linewidth=1, **STYLES[style(name)])
            axis.set_title(f"base {seed}" + ", blocks of 8" * (i >= len(seeds)), fontsize=8)
    figure.tight_layout()
    for axis in (axes[-1][0], axes[-1][len(seeds)]):
        axis.legend(fontsize=7, ncol=5, loc="upper left", bbox_to_anchor=(0, -0.25))
    save(figure, path, tight=False)

def with_curves(path):      # its own rows, and those of curves.py beside them
    path = Path(path)
    return read_csv(path) + read_csv(path.with_name(path.name.replace("content", "curves")))

def main():
    args = rl.parse_flags("content", "What the arms' rollouts contain.")
    rl.collect(args, runs(args.seeds, args.quick))
    rows = with_curves(args.csv)
    report(args, rows, [base_table, end_table] if args.quick else TABLES, draw)

if __name__ == "__main__":
    main()
