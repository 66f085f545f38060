"""Facts about the command lines: what they leave, what they promise, how they refuse.

    python -m pytest tests/test_scripts.py
    python -m pytest tests/test_scripts.py -m slow      the other rivals

Most runs are in this process, main(argv) with its streams caught; the network is 16 wide.
"""
import argparse
import contextlib
import hashlib
import http.client
import io
import itertools
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import urllib.error
from pathlib import Path

import pytest
import torch

import eval_gsm8k
import sample
import train
from data import Worksheet
from experiments import arms
from runs import load, save
from runs import read_csv as read
from sample import Decoder, load_checkpoint
from tests.coin import Coin, log_without_times

torch.set_num_threads(1)
ROOT = Path(__file__).resolve().parents[1]
TRAIN, SAMPLE, EVAL, ARMS = "train.py", "sample.py", "eval_gsm8k.py", "experiments/arms.py"
MAINS = {TRAIN: train.main, SAMPLE: sample.main, EVAL: eval_gsm8k.main, ARMS: arms.main}
TINY_RL = ("--quick --device cpu --problems 24 --trap-problems 2 --samples 2 --grpo-steps 2 "
           "--prompts 4 --rollouts 4 --grpo-lr 0.03").split()
TINY = [*TINY_RL, *"--steps 6 --batch 4 --width 16 --layers 1".split()]
FEW = "--problems 4 --trap-problems 1".split()      # after these, where little is measured
CHECKPOINTS = ["base.pt", "justgrpo.pt", "confidence.pt"]
TABLES = ["results.csv", "measures.csv"]
TEXTS = ["texts.jsonl", "texts-confidence.jsonl"]
PICTURES = ["trap.png", "progress.png"]
FILES = {*CHECKPOINTS, *TABLES, *TEXTS, "log.csv", "summary.json", "state.pt"}


def run(main, *argv, **kwargs):
    """Call a program's main: its exit status, what it wrote to stdout, what to stderr."""
    out, err, status = io.StringIO(), io.StringIO(), 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main([str(word) for word in argv], **kwargs)
        except SystemExit as stop:
            status = stop.code
    return status, out.getvalue(), err.getvalue()


def done(main, *argv, **kwargs):
    """What a run that succeeds writes to stdout; it draws no picture, which takes a second."""
    with no_matplotlib():
        status, out, err = run(main, *argv, **kwargs)
    assert status == 0, err
    return out


def refused(main, *argv, about="", **kwargs):
    """The one way to refuse: status 2, one line on stderr that names the trouble.

    about: a text, or several, that the line holds. Returns stdout and stderr.
    """
    status, out, err = run(main, *argv, **kwargs)
    assert status == 2, (argv, out, err)
    assert err.count("\n") == 1 and err.endswith("\n") and "error: " in err, err
    assert "Traceback" not in out + err
    words = [about] if isinstance(about, str) else about
    for text in words:
        assert text in err, (text, err)
    return out, err


def script(name, *argv, **environment):
    """The real thing, in a process of its own."""
    command = [sys.executable, ROOT / name, *argv]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "99", **environment}
    return subprocess.run([str(word) for word in command], capture_output=True, text=True,
                          timeout=120, cwd=ROOT, env=environment)


@contextlib.contextmanager
def no_matplotlib():
    loaded = [name for name in sys.modules if name.split(".")[0] == "matplotlib"]
    with pytest.MonkeyPatch.context() as patch:
        for name in ["matplotlib", *loaded]:
            patch.setitem(sys.modules, name, None)
        yield


def contents(folder):
    """All that is below the folder, files with their bytes: to see that nothing was touched."""
    return {str(path): path.read_bytes() if path.is_file() else None
            for path in sorted(Path(folder).rglob("*"))}


def weights(path):
    return load_checkpoint(path)[0].state_dict()


def are_equal(one, other):
    return all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture(scope="module")
def story(tmp_path_factory):
    """All five acts, in one go: the folder, and what was printed."""
    folder = tmp_path_factory.mktemp("story") / "new" / "out"
    return folder, done(train.main, *TINY, "--out", folder, task=Coin())


@pytest.fixture
def checkpoint(story):
    return story[0] / "justgrpo.pt"


@pytest.fixture
def copy(story, tmp_path):
    """The story's folder, to go on in."""
    return shutil.copytree(story[0], tmp_path / "copy")


# ----------------------------------------------------------------------------- what a run leaves

def test_five_acts_leave_the_promised_files_and_say_what_to_do_next(story):
    folder, out = story
    assert {path.name for path in folder.iterdir()} == FILES
    assert re.findall(r"^== Act (\d)", out, re.M) == ["1", "2", "3", "4", "5"]
    assert "numbers mean little" in out                 # --quick says so
    assert "matplotlib is not installed" in out         # and why there is no picture
    [command] = re.findall("^Next: python sample.py (.*)", out, re.M)
    assert "step   0" in done(sample.main, *shlex.split(command))


def expected_results(ks, n_greedy="24", n_trap="2"):
    """The rows of results.csv, less their numbers, of every decoder of train.TRAP and GREEDY."""
    found = []
    for stage in STAGES:
        names = train.TRAP if stage == "base" else train.AFTER
        found += [(stage, *label(train.TRAP[name]), str(k), n_trap, str(max(ks)))
                  for name in names for k in ks]
        found += [(stage, *label(decoder), "1", n_greedy, "1")
                  for decoder in train.GREEDY.values()]
    return sorted(found)


STAGES = ["base", "justgrpo", "confidence"]
LABEL = ["order", "selection", "block_length", "temperature"]


def label(decoder):
    """How a decoder stands in a row."""
    block_length = str(decoder.block_length or "")
    return decoder.order, decoder.selection, block_length, str(decoder.temperature)


def cells(rows, *columns):
    return [tuple(row[column] for column in columns) for row in rows]


def values(rows, **wanted):
    """{label: value} of the rows that agree with what is wanted."""
    return {cell: float(row["value"]) for cell, row in zip(cells(rows, *LABEL), rows)
            if wanted.items() <= row.items()}


def test_results_has_a_row_for_every_decoder_before_and_after(story):
    rows = read(story[0] / "results.csv")
    assert list(rows[0]) == ("stage,order,selection,block_length,temperature,k,value,low,high,"
                             "nfe,n_problems,n_samples,seed").split(",")
    assert sorted(cells(rows, "stage", *LABEL, "k", "n_problems", "n_samples")
                  ) == expected_results(ks=[1, 2])
    for row in rows:
        low, value, high = (float(row[name] or row["value"]) for name in ("low", "value", "high"))
        assert 0 <= low <= value <= high <= 1
        assert row["seed"] == "0" and float(row["nfe"]) >= 1


def test_gains_and_leads_are_the_differences_of_the_results(story):
    results, measures = (read(story[0] / name) for name in TABLES)
    assert list(measures[0]) == ("stage,order,selection,block_length,temperature,measure,value,"
                                 "low,high,seed").split(",")
    before = values(results, stage="base", temperature="0.0")
    for stage in ("justgrpo", "confidence"):
        after = values(results, stage=stage, temperature="0.0")
        assert before != after and any(before.values())
        gain = {name: after[name] - before[name] for name in before}
        assert values(measures, stage=stage, measure="gain"
                      ) == pytest.approx(gain, abs=2e-5)        # five digits each
    for stage in STAGES:
        at_two = values(results, stage=stage, temperature="0.6", k="2")
        derived = values(measures, stage=stage, measure="derived_at_2")
        first, *others = map(label, train.TRAP.values() if stage == "base" else
                             [train.TRAP[name] for name in train.AFTER])
        assert set(at_two) == set(derived) == {first, *others}
        for name, passed in (("lead_of_ltr", at_two), ("lead_of_ltr_derived", derived)):
            lead = {other: passed[first] - passed[other] for other in others}
            assert values(measures, stage=stage, measure=f"{name}_at_2"
                          ) == pytest.approx(lead, abs=2e-5)
    assert {row["measure"] for row in measures} >= {
        "distinct", "bypass_fork", "entropy_fork", "entropy_fork_write", "entropy_fork_blank",
        "tokens_per_evaluation", "masked_nll", "majority_answer", "next_value_0",
        "next_value_silent_5", "go_on_talkers_5", "true_go_on_silent_0", "answer_in_head_6", "derived_talkers_at_2"}
    # What the closed form predicts is one look at the base, left to right.
    predicted = [row for row in measures if row["measure"].startswith("derived_predicted_at_")]
    assert cells(predicted, "stage", "order", "measure") == [
        ("base", "left_to_right", f"derived_predicted_at_{k}") for k in (1, 2)]


def test_the_log_has_a_row_for_every_step_that_matters(story):
    log = read(story[0] / "log.csv")
    assert list(log[0]) == ("stage step loss reward signal entropy length seconds left_to_right "
                            "confidence threshold").split()
    assert cells(log, "stage", "step") == [
        ("base", "6"), *((arm, step) for arm in ("justgrpo", "confidence") for step in "012")]
    for before, *steps in (log[1:4], log[4:]):
        assert before["loss"] == before["reward"] == ""
        assert all(0 <= float(row[name]) <= 1 for row in steps for name in ("reward", "signal"))
        assert any(float(row["signal"]) for row in steps)
    watched = cells([row for row in log if all(row[name] for name in train.WATCHED)],
                    "stage", "step")
    # Before the first step, after the last; and both arms begin from the same base.
    assert watched == [(arm, step) for arm in ("justgrpo", "confidence") for step in "02"]
    assert cells([log[1]], *train.WATCHED) == cells([log[4]], *train.WATCHED)


def test_the_summary_says_how_to_do_it_again(story):
    summary = json.loads((story[0] / "summary.json").read_text())
    settings = summary["settings"]
    assert (settings["seed"], settings["width"], settings["threads"]) == (0, 16, 1)
    assert settings["torch"].startswith(torch.__version__)
    assert list(summary["seconds"]) == ["pretraining", "trap", "justgrpo", "freedom"]
    assert summary["machine"] and summary["python"] == sys.version


@pytest.mark.parametrize("shape", [(16, 16), (24, 8), (8, 24)])
def test_muon_stays_in_float32_where_train_lifts_it(shape):
    """It fails when another version of torch asks for bfloat16 in another way."""
    torch.manual_seed(0)
    matrix = torch.nn.Parameter(torch.randn(shape))
    before, matrix.grad = matrix.detach().clone(), torch.randn(shape)
    muon = torch.optim.Muon([matrix], lr=0.1, momentum=0.95, weight_decay=0.01)
    train.step_in_float32(muon)
    tall = shape[0] > shape[1]
    x = matrix.grad.double()    # in the first step, momentum is the gradient times a number
    x = (x.T if tall else x) / x.norm()
    for _ in range(5):
        gram = x @ x.T
        x = 3.4445 * x + (-4.775 * gram + 2.0315 * gram @ gram) @ x
    x = x.T if tall else x
    expected = before * (1 - 0.1 * 0.01) - 0.1 * max(1, shape[0] / shape[1]) ** 0.5 * x
    assert (matrix - expected).norm() < 1e-5 * (expected - before).norm()


class Never(Coin):
    def judge(self, text, answer):
        return False


@pytest.mark.parametrize("main, flags, name", [
    (train.main, ["--stage", "grpo"], "justgrpo"),
    pytest.param(train.main, ["--stage", "freedom"], "confidence", marks=pytest.mark.slow),
    pytest.param(arms.main, ["rejection"], "rejection", marks=pytest.mark.slow),
    pytest.param(arms.main, ["elbo"], "elbo", marks=pytest.mark.slow)])
def test_without_a_right_rollout_nothing_moves(main, flags, name, copy):
    base = weights(copy / "base.pt")
    for stage in ("justgrpo", "confidence"):
        assert not are_equal(base, weights(copy / f"{stage}.pt"))   # where there was signal
    tiny = TINY if main is train.main else TINY_RL
    done(main, *flags, *tiny, *FEW, "--out", copy, task=Never())
    assert are_equal(base, weights(copy / f"{name}.pt"))


@pytest.mark.slow
def test_stages_one_at_a_time_give_what_one_run_gives(story, tmp_path):
    for stage in ("pretrain", "trap", "grpo", "freedom"):
        done(train.main, *TINY, "--out", tmp_path, "--stage", stage, task=Coin())
    for name in [*CHECKPOINTS, *TABLES, *TEXTS]:
        assert (tmp_path / name).read_bytes() == (story[0] / name).read_bytes(), name
    assert log_without_times(tmp_path) == log_without_times(story[0])
    summaries = [json.loads((folder / "summary.json").read_text())
                 for folder in (tmp_path, story[0])]
    assert list(summaries[0]["seconds"]) == list(summaries[1]["seconds"])


def test_texts_are_kept_of_the_base_and_of_the_arm_with_the_verdicts_of_the_results(story):
    for name, arm in zip(TEXTS, ("justgrpo", "confidence")):
        lines = [json.loads(line) for line in (story[0] / name).read_text().splitlines()]
        assert {line["stage"] for line in lines} == {"base", arm}
        for stage in ("base", arm):
            right = values(read(story[0] / "results.csv"), stage=stage, temperature="0.0")
            for decoder in train.GREEDY.values():
                mine = [line["right"] for line in lines
                        if (line["stage"], line["decoder"]) == (stage, str(decoder))]
                assert len(mine) == 24
                assert sum(mine) / 24 == pytest.approx(right[label(decoder)], abs=1e-5)


def once(rows, *columns):
    """The rows, less their numbers: none stands there twice."""
    found = cells(rows, *columns)
    assert len(set(found)) == len(found)
    return set(found)


@pytest.mark.slow
def test_the_freedom_first_and_then_from_left_to_right_leaves_each_row_once(story, tmp_path):
    key = {"results.csv": [*LABEL, "k"], "measures.csv": [*LABEL, "measure"], "log.csv": ["step"]}
    done(train.main, *TINY, *FEW, "--out", tmp_path, "--stage", "pretrain", task=Coin())
    out = done(train.main, *TINY, *FEW, "--out", tmp_path, "--stage", "freedom", task=Coin())
    [line] = [line for line in out.split("greedy accuracy")[-1].splitlines()
              if str(train.GREEDY["two a step"]) in line]
    base, after_left_to_right, after_confidence = line.split()[-3:]
    assert [base, after_left_to_right] == ["-", "-"]        # act 4's, and not there yet
    found = values(read(tmp_path / TABLES[0]), stage="confidence")
    assert after_confidence == f"{found[label(train.GREEDY['two a step'])]:.3f}"
    before = {name: read(tmp_path / name) for name in key}
    for name, rows in before.items():
        assert once(rows, "stage", *key[name]) == once(
            [row for row in read(story[0] / name) if row["stage"] != "justgrpo" and not (
                row["stage"] == "base" and row.get("temperature"))], "stage", *key[name])
    assert not (tmp_path / "justgrpo.pt").exists()
    kept = (tmp_path / "confidence.pt").read_bytes()
    assert kept == (story[0] / "confidence.pt").read_bytes()

    done(train.main, *TINY, *FEW, "--out", tmp_path, "--stage", "grpo", task=Coin())
    for name in key:
        after = read(tmp_path / name)
        once(after, "stage", *key[name])
        assert all(row in after for row in before[name])    # also where they are base's
        assert {row["stage"] for row in after} == set(STAGES)
    assert (tmp_path / "confidence.pt").read_bytes() == kept
    assert (tmp_path / "justgrpo.pt").read_bytes() == (story[0] / "justgrpo.pt").read_bytes()


def test_a_stage_done_again_replaces_its_rows_and_a_new_base_moves_the_old_run_away(story, copy):
    done(train.main, *TINY, "--out", copy, "--stage", "trap", task=Coin())
    for name in TABLES:
        assert sorted(map(str, read(copy / name))) == sorted(map(str, read(story[0] / name)))
    done(arms.main, "fork", *TINY_RL, *FEW, "--out", copy, task=Coin())
    (copy / "fork-notes.txt").write_text("mine")
    before = contents(copy)
    for number in (1, 2):
        out = done(train.main, *TINY, "--out", copy, "--stage", "pretrain", task=Coin())
        moved = copy.with_name(f"copy.{number}")
        assert f"it is now {moved}\n" in out
        assert {name: Path(moved, Path(name).name).read_bytes() for name in before} == before
        assert (copy / "base.pt").read_bytes() == (story[0] / "base.pt").read_bytes()
        assert {path.name for path in copy.iterdir()} == {"base.pt", *TABLES, "log.csv", "summary.json",
                                                            "state.pt"}
        assert read(copy / "results.csv") == []
        before = contents(copy)


def test_the_same_seed_gives_the_same_bytes_in_another_process_and_another_seed_others(
        story, tmp_path):
    there, other = tmp_path / "there", tmp_path / "other"
    process = script("train.py", *TINY, "--stage", "pretrain", "--out", there)
    assert process.returncode == 0, process.stderr
    assert "Traceback" not in process.stderr
    assert (there / "base.pt").read_bytes() == (story[0] / "base.pt").read_bytes()
    base = [row for row in log_without_times(story[0]) if row["stage"] == "base"]
    assert log_without_times(there) == base
    done(train.main, *TINY, "--stage", "pretrain", "--out", other, "--seed", "1")
    assert (other / "base.pt").read_bytes() != (there / "base.pt").read_bytes()


def test_a_base_that_has_not_learned_its_lines_stops_the_story_unless_quick(tmp_path):
    flags = [flag for flag in TINY if flag != "--quick"]
    line, out, err = run(train.main, *flags, "--out", tmp_path)     # sys.exit's line: status 1
    assert "Act 2" in out and "Act 3" not in out and "Traceback" not in err
    assert re.fullmatch(r"train\.py: error: .*%.*--steps", line)


def test_the_pictures_are_drawn_where_matplotlib_is_installed(copy):
    pytest.importorskip("matplotlib")
    status, _, err = run(train.main, *TINY, *FEW, "--out", copy, "--stage", "trap", task=Coin())
    assert status == 0, err
    for name in PICTURES:
        assert (copy / name).read_bytes()[:4] == b"\x89PNG"
    assert {path.name for path in copy.iterdir()} == FILES | set(PICTURES)


def test_the_figures_of_a_run_are_two_panels_each_and_say_what_is_drawn(copy, monkeypatch):
    pytest.importorskip("matplotlib")
    from experiments import progress
    drawn = {}
    real = progress.save
    monkeypatch.setattr(progress, "save", lambda figure, axes, path: (
        drawn.update({Path(path).name: figure}), real(figure, axes, path)))
    progress.draw(copy)
    assert all((copy / name).read_bytes()[:4] == b"\x89PNG" for name in PICTURES)
    lines = {name: [{line.get_label(): (line.get_xdata().tolist(), line.get_ydata().tolist())
                     for line in axis.lines} for axis in figure.axes]
             for name, figure in drawn.items()}
    right, derived = lines["trap.png"]
    orders = {"left_to_right", "confidence", "confidence, blocks of 8", "confidence, blocks of 4",
              "top_probability"}
    assert set(right) == orders and set(derived) == orders | {"left_to_right, predicted"}
    for panel, table, name in ((right, "results.csv", None), (derived, "measures.csv", "derived")):
        rows = [row for row in read(copy / table) if row["stage"] == "base"
                and (row["order"], row["block_length"], row["temperature"]) == (
                    "confidence", "4", "0.6")
                and (name is None or row["measure"] in ("derived_at_1", "derived_at_2"))]
        assert panel["confidence, blocks of 4"] == (
            [1, 2], [float(row["value"]) for row in rows])
    # A panel an arm, in it a curve a decoder, before the first step and after the last.
    for panel, arm in zip(lines["progress.png"], ("justgrpo", "confidence"), strict=True):
        rows = [row for row in read(copy / "log.csv") if row["stage"] == arm and row["threshold"]]
        assert set(panel) == set(train.WATCHED)
        assert panel["threshold"] == ([0, 2], [float(row["threshold"]) for row in rows])


def test_a_figure_without_rows_is_not_drawn(copy):
    pytest.importorskip("matplotlib")
    from experiments import progress
    for kept, drawn in (({"base", "confidence"}, PICTURES), ({"base"}, ["trap.png"]), ((), [])):
        for name in (*TABLES, "log.csv"):
            header, *rows = (copy / name).read_text().splitlines()
            rows = [row for row in rows if row.split(",")[0] in kept]
            (copy / name).write_text("\n".join([header, *rows]) + "\n")
        for name in PICTURES:
            (copy / name).unlink(missing_ok=True)
        progress.draw(copy)
        assert {name for name in PICTURES if (copy / name).exists()} == set(drawn)
        assert all((copy / name).read_bytes()[:4] == b"\x89PNG" for name in drawn)


def test_a_decoder_added_to_the_lists_is_measured_and_one_sample_is_enough(tmp_path, monkeypatch):
    # Of one sample `distinct` is not measured, and nothing may ask for it.
    monkeypatch.setitem(train.TRAP, "margin", Decoder("margin", temperature=0.6))
    monkeypatch.setitem(train.GREEDY, "three a step", Decoder("entropy", "k", 3))
    out = done(train.main, *TINY, *FEW, "--samples", 1, "--out", tmp_path, task=Coin())
    assert out.count("margin, one block") == 5      # in three tables of act 3, with two leads
    assert out.count("entropy, one block, k=3") == 3        # of acts 4 and 5, and of both
    rows = read(tmp_path / "results.csv")
    assert sorted(cells(rows, "stage", *LABEL, "k", "n_problems", "n_samples")
                  ) == expected_results([1], "4", "1")
    assert len(values(read(tmp_path / "measures.csv"), stage="justgrpo", measure="gain")
               ) == len(train.GREEDY)


# ------------------------------------------------------------------------------------ the rivals

FAST = {"lcr_exact": "--rollout-block-length 8 --rollout-temperature 0.7"}
SLOW = {"one_step": "--updates-per-batch 2 --clip-low 0.01 --clip-high 0.01",
        "elbo": "--positions top_entropy", "mismatch": "--positions random",
        "random": "--advantage none --loss-norm sequence --updates-per-batch 3",
        "lcr": "--rollout-block-length 8 --grpo-schedule constant"}


def each_rival():
    return [pytest.param(name, (FAST | SLOW).get(name, "").split(), id=name,
                         marks=[] if name in FAST else pytest.mark.slow) for name in arms.ARMS]


class Stopping(Coin):
    """Ctrl-C at the n-th verdict."""

    def __init__(self, n):
        super().__init__()
        self.n_left = n

    def judge(self, text, answer):
        self.n_left -= 1
        if self.n_left == 0:
            os.kill(os.getpid(), signal.SIGINT)
        return super().judge(text, answer)


# Seven evaluations of 4 problems, 4 more for each of three validations, then 16 rollouts a step.
IN_FIRST_GRPO_STEP = (7 + 3) * 4 + 8


def go_on(main, out):
    """Do what the last line of a stopped run says."""
    flags = re.search("stopped; go on with .*?: (.*)", out.splitlines()[-1]).group(1)
    return done(main, *shlex.split(flags), task=Coin())


@pytest.mark.parametrize("name, flags", each_rival())
def test_a_rival_trains_in_the_same_loop_beside_the_others_and_goes_on_after_a_stop(
        name, flags, story, copy, tmp_path):
    before = contents(copy)
    flags = [name, *flags, *TINY_RL, *FEW, "--out"]
    assert f"{name}.pt" in done(arms.main, *flags, copy, task=Coin())
    left = {path.name for path in copy.iterdir()} - FILES
    assert left == {f"{name}.pt", f"{name}-log.csv", f"{name}-results.csv",
                    f"{name}-measures.csv", f"{name}-texts.jsonl", f"{name}-summary.json",
                    f"{name}-state.pt"}
    assert before.items() <= contents(copy).items()         # nobody else's file was touched
    assert not are_equal(weights(copy / "base.pt"), weights(copy / f"{name}.pt"))
    rows, others = (read(folder / file) for folder, file in (
        (copy, f"{name}-results.csv"), (story[0], "results.csv")))
    assert sum(row["stage"] == name for row in rows) == sum(
        row["stage"] == "justgrpo" for row in others)
    first, *steps = read(copy / f"{name}-log.csv")
    assert (first["stage"], first["step"]) == (name, "0")
    assert any(float(row["signal"]) for row in steps)
    if "--updates-per-batch" in flags:
        assert any(0 < float(row["clipped"]) < 1 for row in steps)
    else:
        assert all(row["clipped"] == "" for row in steps)

    again = shutil.copytree(story[0], tmp_path / "again")
    status, out, _ = run(arms.main, *flags, again, task=Stopping(IN_FIRST_GRPO_STEP))
    assert status == 128 + signal.SIGINT and not (again / f"{name}.pt").exists()
    go_on(arms.main, out)
    for file in [f"{name}.pt"] + [f"{name}-{table}" for table in TABLES]:
        assert (again / file).read_bytes() == (copy / file).read_bytes(), file
    assert log_without_times(again, f"{name}-log.csv") == log_without_times(
        copy, f"{name}-log.csv")


def test_a_stopped_story_says_how_to_go_on_and_its_files_are_whole(story, tmp_path):
    folder = tmp_path / "it's an öut"
    task = Stopping(5)      # in act 3, of whose five decoders the second is at work
    status, out, err = run(train.main, *TINY, "--out", folder, task=task)
    assert status == 130 and "Traceback" not in err
    assert {path.name for path in folder.iterdir()} == {"base.pt", *TABLES, "log.csv", "state.pt"}
    assert (folder / "base.pt").read_bytes() == (story[0] / "base.pt").read_bytes()
    go_on(train.main, out)
    for name in [*CHECKPOINTS, *TABLES, *TEXTS]:
        assert (folder / name).read_bytes() == (story[0] / name).read_bytes(), name
    assert log_without_times(folder) == log_without_times(story[0])


# ------------------------------------------------------------------------------- sample and eval

@pytest.mark.parametrize("flags", ["", "--order confidence --block-length 8",
                                   "--order top_probability --select k=4"])
def test_watch_shows_as_many_steps_as_evaluations_and_ends_on_the_text(flags, checkpoint):
    out = done(sample.main, "--checkpoint", checkpoint, "--watch", *flags.split())
    lines = out.splitlines()
    steps = [line.split()[2:] for line in lines if line.startswith("step")]
    assert len(steps) == int(re.search(r"(\d+) forward evaluations", out).group(1))
    masks = [step.count("__") for step in steps]
    assert masks == sorted(set(masks), reverse=True)        # fewer with each step
    text, rank = (next(line.split()[1:] for line in lines if line.startswith(name))
                  for name in ("text", "rank"))
    assert len(text) == len(rank) == 22
    committed = [i for i in range(22) if rank[i] != "-"]
    assert [steps[-1][i] for i in committed] == [text[i] for i in committed]
    assert {int(rank[i]) for i in committed} == set(range(len(steps)))
    assert re.search(r"tokens each, log-prob -\d.*; (right|wrong)", lines[-1])
    assert "\033" not in out        # this is no terminal


def test_sample_shows_the_problem_that_was_asked_for_and_a_seed_repeats_its_texts(checkpoint):
    flags = ["--checkpoint", checkpoint, "--index", 5, "--samples", 3, "--temperature", 1]
    one, other, again = (done(sample.main, *flags, "--seed", seed) for seed in (1, 2, 1))
    assert Worksheet().problem("test", 5)["question"] in one
    assert one.count("forward evaluations") == 3
    assert one == again != other


def test_a_prompt_with_words_that_the_vocabulary_lacks_works(checkpoint):
    question = "Zoë has 3 €. Sum?"
    out = done(sample.main, "--checkpoint", checkpoint, "--prompt", question)
    assert question in out
    assert "right" not in out and "wrong" not in out    # nobody knows the answer


def test_a_block_as_long_as_the_completion_and_a_prompt_of_twice_the_length_fit(checkpoint):
    flags = ["--checkpoint", checkpoint, "--order", "confidence", "--block-length", 22]
    done(sample.main, *flags, "--prompt", "x" * 34)
    done(eval_gsm8k.main, *flags, "--limit", 2)


def test_evaluation_prints_and_writes_the_same_rows_and_repeats_them(checkpoint, tmp_path):
    flags = ["--checkpoint", checkpoint, "--limit", 3, "--samples", 4, "--temperature", 0.6,
             "--k", "1,2,4", "--order", "confidence", "--block-length", 8, "--seed", 5]
    out, _ = (done(eval_gsm8k.main, *flags, "--csv", tmp_path / name) for name in ("a", "b"))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert {path.name for path in tmp_path.iterdir()} == {"a", "b"}
    rows = read(tmp_path / "a")
    assert list(rows[0]) == eval_gsm8k.RESULT_COLUMNS
    assert cells(rows, "stage", *LABEL, "k", "n_problems", "n_samples", "seed") == [
        ("justgrpo", "confidence", "k=1", "8", "0.6", k, "3", "4", "5") for k in "124"]
    for row in rows:
        assert re.search(rf"pass@{row['k']} +{float(row['value']):.3f}", out)
    assert re.search(r"\d forward evaluations .* s\n", out) and "tokens_per_evaluation" in out


@pytest.mark.parametrize("stage", ["base", "justgrpo"])
def test_an_evaluation_spends_what_training_wrote_of_the_same_decoder(stage, story, tmp_path):
    # A checkpoint keeps all that evaluation needs. (The reward is Coin's in one place and exact
    # match in the other, so it is the evaluations spent that must agree.)
    done(eval_gsm8k.main, "--checkpoint", story[0] / f"{stage}.pt", "--limit", 24,
         "--order", "confidence", "--csv", tmp_path / "rows.csv")
    [row] = cells(read(tmp_path / "rows.csv"), "stage", *LABEL, "nfe", "n_problems")
    assert row in cells(read(story[0] / "results.csv"), "stage", *LABEL, "nfe", "n_problems")


def test_the_toys_model_answers_questions_from_a_file(checkpoint, tmp_path):
    questions = [Worksheet().problem("test", index)["question"] for index in range(3)]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(as_row(question) for question in questions), encoding="utf-8")
    out = done(eval_gsm8k.main, "--checkpoint", checkpoint, "--data", path)
    assert "3 problems" in out          # --limit is 400, but there are 3
    out = done(sample.main, "--checkpoint", checkpoint, "--data", path, "--index", 2)
    assert questions[2] in out


def as_row(question, answer="#### 5"):
    """A line of a file in GSM8K's format."""
    return json.dumps({"question": question, "answer": answer}) + "\n"


def gsm8k_files(folder, n=80):
    """A training file of n rows, a test file of 6, and in both one more that is too long."""
    def row(name, number):
        twice = 2 * number
        return as_row(f"{name} buys {number} eggs and then {number} more. How many eggs?",
                      f"{name} buys {number} + {number} = <<{number}+{number}={twice}>>{twice} "
                      f"eggs.\n#### {twice}")
    paths = [folder / "train.jsonl", folder / "test.jsonl"]
    for path, name, size, long in zip(paths, ("Zoë", "Otto"), (n, 6), "78"):
        rows = [row(name, number) for number in range(size)]
        path.write_text("".join(rows) + as_row(long * 60), encoding="utf-8")
    return paths


# ------------------------------------------------------------------- bad input: status 2, one line

@pytest.fixture(scope="module")
def desk(story, tmp_path_factory):
    """A folder to work in, for refused runs only: a story's files, and good and bad ones."""
    folder = shutil.copytree(story[0], tmp_path_factory.mktemp("desk") / "desk")
    gsm8k_files(folder)
    train_rows = (folder / "train.jsonl").read_text(encoding="utf-8").splitlines(True)
    files = {"few.jsonl": "".join(train_rows[:3]), "leak.jsonl": train_rows[3],
             "long.jsonl": as_row("x" * 90), "empty.jsonl": "", "no-json.jsonl": "{\n",
             "no-number.jsonl": as_row("a?") + as_row("b?", "five"),
             "a-file": "somebody's\n", "rows.csv": "earlier\n"}
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")
    return folder


# What each program is given before the flags of a row of the table; a later flag counts.
GIVEN = {SAMPLE: "--checkpoint justgrpo.pt", EVAL: "--checkpoint justgrpo.pt --csv rows.csv",
         TRAIN: "--out new " + " ".join(TINY), ARMS: "--out . " + " ".join(TINY_RL)}
ELBO = f"{ARMS} elbo"
READERS, TRAINERS = [SAMPLE, EVAL], [TRAIN, ELBO]
EVERY = READERS + TRAINERS
BAD_ROWS = [("missing.jsonl", "missing.jsonl"), ("empty.jsonl", "empty"),
            ("no-json.jsonl", "line 1"), ("no-number.jsonl", "line 2")]
WHOLE = "--grpo-steps --prompts --rollouts --problems --trap-problems --samples".split()
OF_TRAIN = "--steps --batch --width --layers".split()
NO_COUNT, NO_SIZE = ["0", "-1", "x", "1.5"], ["0", "-1", "x", "nan", "inf"]

REFUSED = [     # commands, their flags, words of the message
    # what is decoded, and how (tests/test_sample.py has every decoder that means nothing)
    (READERS, "--order sideways", "'sideways'", "left_to_right", "confidence", "exploratory"),
    (READERS, "--select best", "'best'", "threshold", "entropy_bound"),
    (READERS, "--select k=two", "'two'"),
    (READERS, "--select k=0", "k=0"),
    (READERS, "--order random --select threshold", "threshold", "random", "top_probability"),
    (READERS, "--order confidence --temperature 1 --select fork", "fork", "confidence"),
    (READERS, "--block-length x", "argument --block-length"),
    (READERS, "--block-length -3", "block length is -3"),
    (READERS, "--block-length 23", "--block-length is at most 22"),
    (READERS, "--temperature nan", "temperature is nan"),
    (READERS, "--samples 0", "argument --samples"),
    (READERS, "--samples -2", "argument --samples"),
    *[(READERS, f"--data {name}", name, words) for name, words in BAD_ROWS],
    ([SAMPLE], f"--prompt {'x' * 35}", "35 tokens where 34 fit"),
    ([EVAL], "--data long.jsonl", "at most 17 tokens"),
    ([EVAL], "--k 4 --samples 2", "--k 4", "--samples"),
    ([EVAL], "--k 2", "--k 2"),         # of one sample, the default
    ([EVAL], "--k 0", "--k 0"),
    ([EVAL], "--k 1,,2 --samples 4", "--k 1,,2"),
    ([EVAL], "--k ''", "--k"),
    ([EVAL], "--k 1;2 --samples 4", "--k 1;2"),
    ([EVAL], "--k 1.5 --samples 4", "--k 1.5"),
    ([EVAL], "--limit 0", "argument --limit"),
    ([EVAL], "--limit -1", "argument --limit"),
    # what is trained, and how
    ([TRAIN], "--data train.jsonl", "--test"),
    ([TRAIN], "--test test.jsonl", "--data"),
    *[([TRAIN], pair.format(name), name, words) for name, words in BAD_ROWS
      for pair in ("--data {} --test test.jsonl", "--data train.jsonl --test {}")],
    ([TRAIN], "--data train.jsonl --test leak.jsonl", "1 questions", "leak.jsonl",
     "train.jsonl"),
    ([TRAIN], "--data few.jsonl --test test.jsonl", "few.jsonl has 3 rows"),
    (TRAINERS, "--out ''", "argument --out", "is empty"),
    ([TRAIN], "--stage sleep", "'sleep'", "pretrain", "grpo", "freedom"),
    ([TRAIN], "--dtype int8", "'int8'", "bfloat16"),
    ([TRAIN], "--width 12", "--width 12", "multiple of 8"),
    ([TRAIN], "--stag trap", "unrecognized arguments: --stag"),     # it is --stage today
    ([TRAIN], "--arm confidence", "unrecognized arguments: --arm"),     # arms.py has the rivals
    ([TRAIN], "--rollouts 1", "--rollouts 1", "siblings"),
    ([TRAIN], "--stage trap --out . --seed 3", "base.pt", "--seed 0"),
    ([TRAIN], "--stage grpo --out . --data train.jsonl --test test.jsonl",
     "base.pt is of another task"),
    *[([TRAIN], f"{flag} {value}", f"argument {flag}") for flag in OF_TRAIN
      for value in NO_COUNT],
    *[([TRAIN], f"--lr {value}", "argument --lr") for value in NO_SIZE],
    *[(TRAINERS, f"{flag} {value}", f"argument {flag}") for flag in WHOLE for value in NO_COUNT],
    *[(TRAINERS, f"--grpo-lr {value}", "argument --grpo-lr") for value in NO_SIZE],
    # the rivals
    ([ARMS], "", "ARM"),
    ([ARMS], "ppo", "'ppo'", "left_to_right", "rejection"),
    ([ARMS], "confidence", "'confidence'", "lcr_exact"),        # it is act 5's name today
    ([ARMS], "lcr --seed 3", "base.pt", "--seed 0"),
    ([ARMS], "lcr --rollouts 1", "--rollouts 1", "siblings"),
    ([ARMS], "lcr --rollout-block-length 0", "--rollout-block-length", "from 1 to 22"),
    ([ARMS], "lcr --rollout-block-length 23", "--rollout-block-length", "from 1 to 22"),
    ([ARMS], "left_to_right --rollout-block-length 8", "--rollout-block-length", "left to right"),
    ([ARMS], "rejection --rollout-block-length 8", "--rollout-block-length", "left to right"),
    ([ELBO], "--fraction 0.5", "--fraction", "--positions"),
    ([ELBO], "--positions random --fraction 1.5", "--fraction is at most 1"),
    ([ELBO], "--clip-low 0.1", "--clip-low", "ratio 1", "--updates-per-batch"),
    ([ELBO], "--clip-high 0.3", "--clip-high", "ratio 1"),
    *[([ARMS], f"rejection {flags}", flags.split()[0], "arm rejection") for flags in (
        "--advantage none", "--loss-norm constant", "--updates-per-batch 2",
        "--positions random", "--fraction 0.5", "--clip-high 0.3")],
    *[([ELBO], f"--updates-per-batch {value}", "argument --updates-per-batch")
      for value in NO_COUNT],
    *[([ELBO], f"{flag} {value}", f"argument {flag}")
      for flag in ("--adam-eps", "--rollout-temperature", "--fraction", "--clip-low", "--clip-high")
      for value in NO_SIZE],
    # the same everywhere
    (EVERY, "--device abacus", "abacus"),
    (EVERY, "--device cuda:99", "cuda:99"),     # where there is no cuda at all, and where there is
    (EVERY, "--no-such-flag", "unrecognized arguments: --no-such-flag"),
    (EVERY, "--seed x", "argument --seed"),
    *[(EVERY, f"--seed {beyond}", "argument --seed")
      for beyond in (2**64, -2**63 - 1, 10**30)],
    ([ELBO], "--out nowhere", "nowhere/base.pt", "python train.py"),
    ([TRAIN], "--stage trap --out nowhere", "nowhere/base.pt", "python train.py"),
    # places that can't be written: below a regular file not even root can
    *[([TRAIN], f"--out {place}", "a-file") for place in ("a-file", "a-file/out",
                                                                "a-file/deep/out")],
    *[([EVAL], f"--csv {place}", place) for place in ("a-file/rows.csv", ".", "nowhere/rows.csv")],
]


EACH_REFUSAL = [pytest.param(command, flags, words, id=f"{command} {flags}"[:60])
                for commands, flags, *words in REFUSED for command in commands]


@pytest.mark.parametrize("command, flags, words", EACH_REFUSAL)
def test_what_means_nothing_is_refused_in_one_line_before_anything_is_written(
        command, flags, words, desk, monkeypatch):
    monkeypatch.chdir(desk)
    before = contents(desk)
    script, *arm = command.split()
    out, _ = refused(MAINS[script], *arm, *shlex.split(f"{GIVEN[script]} {flags}"), about=words)
    assert out == ""
    assert contents(desk) == before


NO_CHECKPOINT = {
    "missing": lambda path, good: None, "empty": lambda path, good: path.touch(),
    "half": lambda path, good: path.write_bytes(good[:len(good) // 2]),
    "foreign": lambda path, good: save(path, {"state_dict": {}}),
    "no weights": lambda path, good: save(path, {**load(path.parent / "good"), "model": {}}),
    "pickle": lambda path, good: torch.save({"model": {}}, path),
    "folder": lambda path, good: path.mkdir()}


@pytest.mark.parametrize("kind", NO_CHECKPOINT)
@pytest.mark.parametrize("command", [
    f"{SAMPLE} --checkpoint base.pt", f"{EVAL} --checkpoint base.pt", f"{TRAIN} --stage trap",
    f"{TRAIN} --stage grpo", f"{TRAIN} --stage freedom",
    f"{ARMS} lcr"])
def test_without_a_checkpoint_the_line_names_it_and_what_makes_one(kind, command, checkpoint,
                                                                  tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    good = shutil.copy(checkpoint, tmp_path / "good").read_bytes()
    NO_CHECKPOINT[kind](tmp_path / "base.pt", good)
    before = contents(tmp_path)
    script, *flags = command.split()
    where = [] if script in READERS else ["--out", "."]
    out, _ = refused(MAINS[script], *flags, *where, about=["base.pt", "python train.py"])
    assert out == "" and contents(tmp_path) == before


@pytest.mark.parametrize("command", [
    f"{SAMPLE} --checkpoint base.pt", f"{EVAL} --checkpoint base.pt", f"{ARMS} lcr",
    *[f"{TRAIN} --stage {stage}" for stage in ("trap", "grpo", "freedom")]])
def test_a_checkpoint_of_the_toy_before_is_refused_with_what_to_do(command, checkpoint, tmp_path,
                                                                  monkeypatch):
    monkeypatch.chdir(tmp_path)
    toy = {"name": "toy", "direct": 0.65, "skip": 0.12, "n_steps": 6}
    save(tmp_path / "base.pt", {**load(checkpoint), "task": toy})
    before = contents(tmp_path)
    script, *flags = command.split()
    where = [] if script in READERS else ["--out", "."]
    out, _ = refused(MAINS[script], *flags, *where,
                     about=["base.pt", "the toy before", "python train.py", "2fe5832"])
    assert out == "" and contents(tmp_path) == before


def test_a_stopped_rival_goes_on_only_under_its_own_settings_and_on_its_own_base(copy):
    rival = ["lcr", *TINY_RL, "--out", copy]
    assert run(arms.main, *rival, task=Stopping(5))[0] == 130
    refused(arms.main, *rival, task=Coin(), about=["unfinished", "--resume"])
    refused(arms.main, *rival, "--adam-eps", 1e-6, "--resume", task=Coin(), about="adam_eps")
    shutil.copy(copy / "justgrpo.pt", copy / "base.pt")
    refused(arms.main, *rival, "--resume", task=Coin(), about="files")


@pytest.mark.parametrize("command", [SAMPLE] + [
    pytest.param(command, marks=pytest.mark.slow) for command in (EVAL, f"{TRAIN} --stage trap",
                                                                  f"{ARMS} elbo")])
def test_a_program_of_its_own_exits_with_2_and_one_line_that_begins_with_its_name(command,
                                                                                 tmp_path):
    # Nothing from imports stands around it.
    name, *flags = command.split()
    where = "--checkpoint" if name in READERS else "--out"
    ended = script(name, *flags, where, tmp_path / "missing")
    assert ended.returncode == 2 and ended.stdout == ""
    assert re.fullmatch(rf"{Path(name).name}: error: .*missing.*\n", ended.stderr), ended.stderr


# -------------------------------------------------------------------------------------- download

QUESTION = as_row(Worksheet().problem("test", 0)["question"]).encode()
OTHER = as_row("How many?").encode()


class Response(io.BytesIO):
    """What urlopen returns, as far as it is used."""


class Broken(Response):
    def read(self, *_):
        raise http.client.IncompleteRead(b"half")


class Endless(Response):
    def read(self, n):
        """A limit is asked for: without one this could not return."""
        return bytes(n)


@pytest.fixture
def web(monkeypatch, tmp_path):
    """A function that puts another answer at every address; it returns the list of those that
    are asked for. QUESTION counts as GSM8K's test file."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(eval_gsm8k, "GSM8K_TEST_SHA256", hashlib.sha256(QUESTION).hexdigest())

    def answer(response):
        asked = []

        def urlopen(url, **_):
            asked.append(url)
            if response is None:
                raise urllib.error.URLError("no network")
            return response
        monkeypatch.setattr("urllib.request.urlopen", urlopen)
        return asked
    return answer


def test_a_download_asks_once_for_a_pinned_commit_and_saves_what_has_its_hash(checkpoint, tmp_path,
                                                                              web):
    asked = web(Response(QUESTION))
    for _ in range(2):
        assert "1 problems" in done(eval_gsm8k.main, "--checkpoint", checkpoint, "--download")
        assert contents(tmp_path) == {str(tmp_path / "gsm8k_test.jsonl"): QUESTION}
    [url] = asked
    assert re.search(r"/[0-9a-f]{40}/.*test\.jsonl$", url)


@pytest.mark.parametrize("response, flags, words", [
    (None, "", ["https://", "test.jsonl", "gsm8k_test.jsonl", "--data"]),
    (Response(OTHER), "", ["SHA-256", "nothing was saved"]), (Broken(), "", ["IncompleteRead"]),
    (Endless(), "", ["SHA-256"]), (None, "--data mine.jsonl", ["mine.jsonl", "SHA-256"])])
def test_a_download_that_fails_says_what_to_do_and_leaves_what_was_there(response, flags, words,
                                                                        checkpoint, tmp_path, web):
    (tmp_path / "mine.jsonl").write_bytes(OTHER)
    before = contents(tmp_path)
    web(response)
    refused(eval_gsm8k.main, "--checkpoint", checkpoint, "--download", *flags.split(), about=words)
    assert contents(tmp_path) == before


def test_the_hash_is_that_of_gsm8ks_test_file():
    path = ROOT.parent / "shared" / "gsm8k" / "test.jsonl"
    if not path.exists():
        pytest.skip("no ../shared/gsm8k here")
    assert hashlib.sha256(path.read_bytes()).hexdigest() == eval_gsm8k.GSM8K_TEST_SHA256


# -------------------------------------------------------------------------- flags, help, README.md

@pytest.mark.parametrize("name", MAINS)
def test_every_flag_stands_in_help_with_some_words_and_its_default(name, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    status, out, err = run(MAINS[name], "--help")
    assert status == 0 and err == ""
    entries = re.split(r"\n  (?=-)", out.split("options:")[1])[1:]
    flags = [entry for entry in entries if entry.startswith("--")]
    assert len(flags) >= 10
    for entry in flags:
        words, default, _ = re.split(r"(\(default:\s[^)]+\))", entry, maxsplit=1)
        assert default and len(words.split()) >= 3, entry


def test_quick_and_data_have_defaults_of_their_own_which_a_flag_overrides():
    real = ["--data", "a", "--test", "b"]
    full, quick, large, both = (train.parse_flags(argv) for argv in (
        [], ["--quick"], real, ["--quick", *real]))
    assert quick.steps < full.steps and both.steps < large.steps
    assert quick.problems < full.problems and both.problems < large.problems
    for argv in (["--quick", "--steps", "7"], ["--steps", "7", "--quick"]):
        assert train.parse_flags(argv).steps == 7
    assert f"(default: {full.steps})" in run(train.main, "--help")[1]


class Parsed(Exception):
    """The flags were accepted; do no work."""


@pytest.fixture
def parse_only(monkeypatch):
    """main(argv), up to and including its parser: the flags."""
    real = argparse.ArgumentParser.parse_args

    def parse_args(self, *args, **kwargs):
        raise Parsed(real(self, *args, **kwargs))
    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_args)

    def parse(main, argv):
        with pytest.raises(Parsed) as parsed:
            main(argv)
        return parsed.value.args[0]
    return parse


def readme_blocks(language=""):
    """The code blocks of README.md."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    return re.findall(rf"^```{language}[a-z]*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def readme_commands():
    """Script and flags of every `python X.py ...` in README.md's code blocks."""
    text = re.sub(r"\s*\\\n\s*", " ", "\n".join(readme_blocks()))
    # A command ends at the line, at a comment, at a pipe, or where words follow some spaces away.
    commands = re.findall(r"\bpython3? +([\w/]+\.py)((?: (?! )[^\n&|;>#]*?)?)(?= {2,}|$|[&|;>#])",
                          text, re.MULTILINE)
    return [(name, shlex.split(flags)) for name, flags in commands]


def test_the_readmes_commands_exist_and_their_flags_parse(parse_only):
    commands = readme_commands()
    assert {name for name, _ in commands} >= {TRAIN, SAMPLE, EVAL}
    for name, flags in commands:
        assert (ROOT / name).is_file(), name
        if name in MAINS:
            args = parse_only(MAINS[name], flags)
        if name in READERS:     # the decoder that they describe must mean something, too
            select, _, value = args.select.partition("=")
            value = float(value) if value else None
            Decoder(args.order, select, value, args.block_length, args.temperature)


# --------------------------------------------------------------------- a task of one's own, GSM8K

def test_the_readmes_task_of_ones_own_goes_through_all_acts(tmp_path, monkeypatch):
    [block] = [block for block in readme_blocks("python") if re.search(r"\(.*Task\):", block)]
    main, tasks = train.main, []

    def tiny(argv=None, task=None):
        """The example's own call, but tiny, and in a folder of ours."""
        tasks.append(task)
        train.parse_flags(argv)
        main([*TINY, "--out", str(tmp_path)], task=task)
    monkeypatch.setattr(train, "main", tiny)
    out = done(lambda _: exec(block, {"__name__": "__main__"}), "")
    [task] = tasks
    assert {path.name for path in tmp_path.iterdir()} == FILES
    assert re.search("forks are not known", out)        # and so nothing is said of them:
    measures = {row["measure"] for row in read(tmp_path / "measures.csv")}
    assert "tokens_per_evaluation" in measures
    assert not any("fork" in name or "next_value" in name for name in measures)
    _, description, info = load_checkpoint(tmp_path / "base.pt")
    assert description == task.describe() and info["stage"] == "base"
    # Its checkpoint can't be read without the class.
    refused(sample.main, "--checkpoint", tmp_path / "base.pt", about=task.name)
    questions = [{problem["question"] for problem in task.problems(split, 0, 200)}
                 for split in ("train", "validation", "test")]
    assert not any(one & other for one, other in itertools.combinations(questions, 2))
    problem = task.problem("test", 0)
    text = task.text(task.completions([problem["solution"]])[0])
    assert task.is_right(text, problem["answer"]) is True


def test_gsm8ks_format_goes_through_all_acts_and_its_checkpoint_needs_no_other_file(
        tmp_path, monkeypatch):
    files, folder = gsm8k_files(tmp_path), tmp_path / "out"
    # The same shape of canvas, but smaller: 288 tokens are slow on one core.
    monkeypatch.setattr(train, "SHAPE", dict(n_merges=60, prompt_length=40, completion_length=24))
    data = ["--data", files[0], "--test", files[1], "--out", folder]
    out = done(train.main, *TINY, *data)
    assert {path.name for path in folder.iterdir()} == FILES
    lines = re.findall(r"(\w+): (\d+) problems.*; 1 rows are too long", out)
    assert [name for name, _ in lines][1:] == ["test"] and lines[1][1] == "6"
    measures = {row["measure"] for row in read(folder / "measures.csv")}
    assert "majority_answer" in measures and not any("fork" in name for name in measures)
    done(arms.main, "fork", *TINY_RL, *FEW, *data)
    path = tmp_path / "moved.pt"
    shutil.move(folder / "justgrpo.pt", path)
    files[0].unlink()
    out = done(eval_gsm8k.main, "--checkpoint", path, "--data", files[1])
    assert "6 problems" in out and re.search(r"^1 test rows .* left out", out)
    assert "Otto buys 0 eggs" in done(sample.main, "--checkpoint", path, "--data", files[1])
    done(sample.main, "--checkpoint", path, "--prompt", "How many eggs?")
    # Without --data there are no test problems, and no toy ones are put in their place.
    for main in (sample.main, eval_gsm8k.main):
        refused(main, "--checkpoint", path, about="--data")
