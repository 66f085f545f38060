"""Facts about the command lines: what they leave, what they promise, how they refuse.

    python -m pytest tests/test_scripts.py

Most runs are in this process, main(argv) with its streams caught; the network is 16 wide.
"""
import argparse
import contextlib
import csv
import hashlib
import http.client
import io
import itertools
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import urllib.error
from pathlib import Path

import pytest
import torch

import eval_gsm8k
import model
import sample
import train
from data import Task, Toy, load_task, make_tokenizer
from grpo import ARMS
from model import load, load_checkpoint, save
from tests.kills import Coin, log_without_times

torch.set_num_threads(1)
ROOT = Path(__file__).resolve().parents[1]
MAINS = {"train.py": train.main, "sample.py": sample.main, "eval_gsm8k.py": eval_gsm8k.main}
TINY = ["--quick", "--device", "cpu"] + (
    "--steps 3 --batch 4 --width 16 --layers 1 --problems 24 --trap-problems 2 --samples 2 "
    "--grpo-steps 2 --prompts 4 --rollouts 4 --grpo-lr 0.03").split()
FILES = {"base.pt", "justgrpo.pt", "log.csv", "results.csv", "measures.csv", "summary.json",
         "state.pt"}


def run(main, *argv, **kwargs):
    """-> exit status, what it wrote to stdout, what to stderr."""
    out, err, status = io.StringIO(), io.StringIO(), 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main([str(a) for a in argv], **kwargs)
        except SystemExit as stop:
            status = stop.code
    return status, out.getvalue(), err.getvalue()


def script(name, *argv, **environment):
    """The real thing, in a process of its own."""
    command = [sys.executable, str(ROOT / name), *map(str, argv)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=ROOT, env={
        **os.environ, "OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "99", **environment})


@contextlib.contextmanager
def no_matplotlib():
    with pytest.MonkeyPatch.context() as patch:
        for name in [n for n in sys.modules if n.split(".")[0] == "matplotlib"]:
            patch.setitem(sys.modules, name, None)
        patch.setitem(sys.modules, "matplotlib", None)
        yield


def read(path):
    with open(path, encoding="utf-8", newline="") as f:
        return list(csv.DictReader(f))


def contents(folder):
    """Every file below the folder, with its bytes: to see that nothing was touched."""
    return {str(p): p.read_bytes() for p in sorted(Path(folder).rglob("*")) if p.is_file()}


def weights(path):
    return load_checkpoint(path)[0].state_dict()


@pytest.fixture(scope="module")
def story(tmp_path_factory):
    """All four acts, in one go, where matplotlib is not installed. -> folder, stdout, stderr."""
    folder = tmp_path_factory.mktemp("story") / "new" / "out"
    with no_matplotlib():
        status, out, err = run(train.main, *TINY, "--out", folder, task=Coin())
    assert status == 0, err
    return folder, out, err


@pytest.fixture
def checkpoint(story):
    return story[0] / "justgrpo.pt"


# ----------------------------------------------------------------------------- what a run leaves

def test_four_acts_leave_the_promised_files_and_no_other(story):
    folder, out, _ = story
    assert {p.name for p in folder.iterdir()} == FILES
    assert all(f"Act {n}" in out for n in (1, 2, 3, 4))
    assert "numbers mean little" in out                 # --quick says so
    assert "matplotlib is not installed" in out         # and says why there is no picture
    [(script, checkpoint)] = re.findall(r"^Next: python (\S+) .*--checkpoint (\S+)", out, re.M)
    assert (ROOT / script).exists() and Path(checkpoint).name in FILES


def test_the_tables_have_the_promised_columns_and_rows(story):
    folder = story[0]
    results, measures = read(folder / "results.csv"), read(folder / "measures.csv")
    assert list(results[0]) == ("stage,order,selection,block_length,temperature,k,value,low,high,"
                                "nfe,n_problems,n_samples,seed").split(",")
    assert list(measures[0]) == ("stage,order,selection,block_length,temperature,measure,value,"
                                 "low,high,seed").split(",")
    trap = [("left_to_right", ""), ("confidence", ""), ("confidence", "8"),
            ("top_probability", ""), ("random", "")]
    greedy = [("left_to_right", "", "k=1"), ("confidence", "", "k=1"), ("confidence", "8", "k=1")]
    greedy += [("top_probability", "", s) for s in ("threshold=0.9", "entropy_bound=0.1", "k=2",
                                                    "k=4")]
    for stage in ("base", "justgrpo"):
        rows = [r for r in results if r["stage"] == stage]
        assert [(r["order"], r["block_length"], r["k"]) for r in rows if r["temperature"] == "0.6"
                ] == [(*arm, k) for arm in trap for k in ("1", "2")]
        assert [(r["order"], r["block_length"], r["selection"]) for r in rows
                if r["temperature"] == "0.0"] == greedy
        for r in rows:
            assert 0 <= float(r["low"]) <= float(r["value"]) <= float(r["high"]) <= 1
            size = ("2", "2") if r["temperature"] == "0.6" else ("24", "1")
            assert (r["n_problems"], r["n_samples"]) == size and r["seed"] == "0"
    names = {r["measure"] for r in measures}
    assert names >= {"distinct", "bypass_fork", "entropy_fork", "tokens_per_evaluation", "gain",
                     "masked_nll", "majority_answer", "next_value_0", "go_on_5", "answer_in_head_6"}
    for stage in ("base", "justgrpo"):      # pass@k left to right less that of each other order
        at = {(r["order"], r["block_length"]): float(r["value"]) for r in results
              if (r["stage"], r["temperature"], r["k"]) == (stage, "0.6", "2")}
        lead = {(r["order"], r["block_length"]): float(r["value"]) for r in measures
                if (r["stage"], r["measure"]) == (stage, "lead_of_ltr_at_2")}
        assert lead == pytest.approx(
            {arm: at[trap[0]] - at[arm] for arm in trap[1:]}, abs=2e-5)
    gains = [r for r in measures if r["measure"] == "gain"]
    assert [(r["order"], r["block_length"], r["selection"]) for r in gains] == greedy


def test_the_paired_gain_is_the_difference_of_the_two_accuracies(story):
    results, measures = (read(story[0] / f"{name}.csv") for name in ("results", "measures"))

    def value(rows, **want):
        return [float(r["value"]) for r in rows if want.items() <= r.items()]
    before, after = (value(results, stage=s, temperature="0.0") for s in ("base", "justgrpo"))
    assert len(before) == 7 and any(before) and before != after
    assert value(measures, measure="gain") == pytest.approx(
        [b - a for a, b in zip(before, after)], abs=2e-5)       # each is rounded to five digits


def test_the_log_has_a_row_for_every_step_that_matters(story):
    log = read(story[0] / "log.csv")
    assert list(log[0])[:3] == ["stage", "step", "loss"]
    before, *grpo = [r for r in log if r["stage"] == "justgrpo"]
    assert before["step"] == "0" and before["reward"] == "" != before["confidence"]
    assert [r["step"] for r in grpo] == ["1", "2"]
    assert all(0 <= float(r[c]) <= 1 for r in grpo for c in ("reward", "signal"))
    assert any(float(r["signal"]) > 0 for r in grpo)
    pretraining = [r for r in log if r["stage"] == "base"]
    assert pretraining[-1]["step"] == "3" and float(pretraining[-1]["tokens_per_second"]) > 0
    watched = [r for r in log if r["threshold"] != ""]     # before the first step, after the last
    assert [r["step"] for r in watched] == ["0", "2"]


def test_the_summary_says_how_to_do_it_again(story):
    summary = json.loads((story[0] / "summary.json").read_text(encoding="utf-8"))
    assert summary["settings"]["seed"] == 0 and summary["settings"]["width"] == 16
    assert summary["settings"]["torch"].startswith(torch.__version__)
    assert summary["settings"]["threads"] == 1
    assert summary["machine"] and summary["python"]
    assert len(summary["seconds"]) >= 3 and all(s >= 0 for s in summary["seconds"].values())
    assert len(summary["headline"]) == 2 * (5 + 7)      # the rows of k = 1


@pytest.mark.parametrize("shape", [(16, 16), (24, 8), (8, 24)])
def test_muon_stays_in_float32_where_train_lifts_it(shape):
    """train.pretrain's patch: torch.optim.Muon, asked for bfloat16, gets float32. It fails when
    another version of torch asks in another way."""
    torch.manual_seed(0)
    p = torch.nn.Parameter(torch.randn(shape))
    before, p.grad = p.detach().clone(), torch.randn(shape)
    with train.patch.object(torch.Tensor, "bfloat16", torch.Tensor.float):
        torch.optim.Muon([p], lr=0.1, momentum=0.95, weight_decay=0.01).step()
    x = p.grad.double()         # in the first step, momentum is the gradient times a number
    x = (x.T if shape[0] > shape[1] else x) / x.norm()
    for _ in range(5):
        gram = x @ x.T
        x = 3.4445 * x + (-4.775 * gram + 2.0315 * gram @ gram) @ x
    x = x.T if shape[0] > shape[1] else x
    expected = before * (1 - 0.1 * 0.01) - 0.1 * max(1, shape[0] / shape[1]) ** 0.5 * x
    assert (p - expected).norm() < 1e-5 * (expected - before).norm()


def test_a_reward_with_signal_moves_the_weights(story):
    folder = story[0]
    before, after = weights(folder / "base.pt"), weights(folder / "justgrpo.pt")
    assert before.keys() == after.keys()
    assert any(not torch.equal(before[k], after[k]) for k in before)


def test_stages_one_at_a_time_give_what_one_run_gives(story, tmp_path):
    for stage in ("pretrain", "trap", "grpo"):
        with no_matplotlib():
            status, _, err = run(train.main, *TINY, "--out", tmp_path, "--stage", stage,
                                 task=Coin())
        assert status == 0, err
    for name in ("base.pt", "justgrpo.pt", "results.csv", "measures.csv"):
        assert (tmp_path / name).read_bytes() == (story[0] / name).read_bytes(), name
    assert log_without_times(tmp_path) == log_without_times(story[0])
    seconds = [json.loads((folder / "summary.json").read_text(encoding="utf-8"))["seconds"]
               for folder in (tmp_path, story[0])]
    assert list(seconds[0]) == list(seconds[1])         # of every stage, not of the last alone
    # A stage done again replaces its rows and doubles none.
    with no_matplotlib():
        run(train.main, *TINY, "--out", tmp_path, "--stage", "trap", task=Coin())

    def key(row):
        return sorted(row.items())
    for name in ("results.csv", "measures.csv"):
        again, once = (sorted(read(f / name), key=key) for f in (tmp_path, story[0]))
        assert again == once, name


ARM_FLAGS = {"justgrpo": [], "confidence": ["--rollout-block-length", "8"], "one_step": [
    "--updates-per-batch", "2"], "elbo": ["--positions", "top_entropy"], "random": [
    "--advantage", "none", "--loss-norm", "sequence"], "mismatch": ["--positions", "random"],
    "confidence_exact": ["--rollout-block-length", "8", "--rollout-temperature", "0.7"]}


@pytest.mark.parametrize("arm", ARMS)
def test_every_arm_trains_in_the_one_loop_beside_the_others(arm, story, tmp_path):
    folder = shutil.copytree(story[0], tmp_path / "out")
    flags = [*TINY, "--stage", "grpo", "--arm", arm, *ARM_FLAGS.get(arm, [])]
    with no_matplotlib():
        status, out, err = run(train.main, *flags, "--out", folder, task=Coin())
    assert status == 0, err
    assert f"{arm}.pt" in out or "Next" not in out
    before, after = weights(folder / "base.pt"), weights(folder / f"{arm}.pt")
    assert any(not torch.equal(before[k], after[k]) for k in before)
    assert all(w.isfinite().all() for w in after.values())
    for name in ("results", "measures", "log"):
        rows, old = read(folder / f"{name}.csv"), read(story[0] / f"{name}.csv")
        count = {s: sum(r["stage"] == s for r in rows) for s in ("base", "justgrpo", arm)}
        assert count["base"] == sum(r["stage"] == "base" for r in old)      # none lost, none twice
        assert count["justgrpo"] == count[arm] == sum(r["stage"] == "justgrpo" for r in old)
    log = [r for r in read(folder / "log.csv") if r["stage"] == arm]
    assert any(float(r["signal"]) > 0 for r in log[1:])
    assert all(float(r["clipped"]) == 0 for r in log[1:]) or "--updates-per-batch" in flags
    if arm in ("one_step", "elbo", "mismatch", "rejection"):    # which draw more than rollouts
        again = shutil.copytree(story[0], tmp_path / "again")   # the same seed, the same weights
        with no_matplotlib():
            run(train.main, *flags, "--out", again, task=Coin())
        assert (folder / f"{arm}.pt").read_bytes() == (again / f"{arm}.pt").read_bytes()


@pytest.mark.parametrize("arm", ["justgrpo", "rejection", "elbo"])
def test_without_a_right_rollout_nothing_moves(arm, story, tmp_path):
    class Never(Coin):
        def reward(self, text, answer):
            return 0.0
    folder = shutil.copytree(story[0], tmp_path / "out")
    with no_matplotlib():
        status, _, err = run(train.main, *TINY, "--stage", "grpo", "--arm", arm, "--out", folder,
                             task=Never())
    assert status == 0, err
    before, after = weights(folder / "base.pt"), weights(folder / f"{arm}.pt")
    assert all(torch.equal(before[k], after[k]) for k in before)


def test_several_updates_move_further_are_clipped_and_the_share_is_logged(story, tmp_path):
    def moved(*flags):
        folder = shutil.copytree(story[0], tmp_path / "-".join(["out", *flags]))
        with no_matplotlib():
            status, _, err = run(train.main, *TINY, "--stage", "grpo", *flags, "--out", folder,
                                 task=Coin())
        assert status == 0, err
        log = [float(r["clipped"]) for r in read(folder / "log.csv") if r["clipped"]]
        return weights(folder / "justgrpo.pt"), max(log)
    once, _ = moved()
    free, none = moved("--updates-per-batch", "4", "--clip-low", "0.99", "--clip-high", "1e9")
    tight, some = moved("--updates-per-batch", "4", "--clip-low", "0.01", "--clip-high", "0.01")
    assert none == 0 < some <= 0.75         # of the four updates the first has ratio 1
    assert not torch.equal(once["wte.weight"], free["wte.weight"])
    assert not torch.equal(free["wte.weight"], tight["wte.weight"])


def test_a_schedule_that_stays_is_the_falling_one_in_the_first_step_only(story, tmp_path):
    found = {}
    for schedule, steps in itertools.product(("linear", "constant"), ("1", "2")):
        folder = shutil.copytree(story[0], tmp_path / f"{schedule}{steps}")
        with no_matplotlib():
            run(train.main, *TINY, "--stage", "grpo", "--grpo-schedule", schedule, "--grpo-steps",
                steps, "--out", folder, task=Coin())
        found[schedule, steps] = weights(folder / "justgrpo.pt")["wte.weight"]
    assert torch.equal(found["linear", "1"], found["constant", "1"])
    assert not torch.equal(found["linear", "2"], found["constant", "2"])


def test_the_picture_is_drawn_where_matplotlib_is_installed(story, tmp_path):
    pytest.importorskip("matplotlib")
    folder = shutil.copytree(story[0], tmp_path / "out")
    status, out, err = run(train.main, *TINY, "--out", folder, "--stage", "trap", task=Coin())
    assert status == 0, err
    assert (folder / "progress.png").read_bytes()[:4] == b"\x89PNG"
    assert {p.name for p in folder.iterdir()} == FILES | {"progress.png"}


def test_pretraining_twice_gives_the_same_bytes_and_rows_in_another_process_too(tmp_path):
    here, there, other = (tmp_path / name for name in ("here", "there", "other"))
    flags = [*TINY, "--stage", "pretrain"]
    with no_matplotlib():
        assert run(train.main, *flags, "--out", here)[0] == 0
        assert run(train.main, *flags, "--out", other, "--seed", "1")[0] == 0
    done = script("train.py", *flags, "--out", there)
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
    assert (here / "base.pt").read_bytes() == (there / "base.pt").read_bytes()
    assert log_without_times(here) == log_without_times(there)
    assert (here / "measures.csv").read_bytes() == (there / "measures.csv").read_bytes()
    assert (here / "base.pt").read_bytes() != (other / "base.pt").read_bytes()
    assert not (here / "justgrpo.pt").exists()
    assert (here / "results.csv").read_text().count("\n") == 1      # only the header


def test_a_base_that_has_not_learned_its_steps_stops_the_story_unless_quick(tmp_path):
    flags = [f for f in TINY if f != "--quick"]
    last, out, err = run(train.main, *flags, "--out", tmp_path)     # sys.exit's line: status 1
    assert "Act 3" not in out and "Traceback" not in err
    assert "error:" in last and "%" in last and "--steps" in last and "\n" not in last


def test_an_interrupted_run_says_how_to_go_on_and_its_files_are_whole(story, tmp_path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt
    folder = tmp_path / "it's an öut"
    with no_matplotlib(), monkeypatch.context() as patch:
        patch.setattr(train, "trap", interrupt)
        status, out, err = run(train.main, *TINY, "--out", folder, task=Coin())
    assert status == 130 and "Traceback" not in err
    assert {"base.pt", "log.csv", "measures.csv"} <= {p.name for p in folder.iterdir()}
    weights(folder / "base.pt")
    # No file stands there as a mere placeholder.
    assert all(p.read_bytes() != b"{}" for p in folder.iterdir())
    flags = re.search("stopped; go on with .*?: (.*)", out.splitlines()[-1]).group(1)
    with no_matplotlib():
        status, out, err = run(train.main, *shlex.split(flags), task=Coin())
    assert status == 0, err
    for name in ("base.pt", "justgrpo.pt", "results.csv", "measures.csv"):
        assert (folder / name).read_bytes() == (story[0] / name).read_bytes(), name
    assert log_without_times(folder) == log_without_times(story[0])


def test_one_sample_a_problem_is_enough_for_pass_at_1(tmp_path):
    # Of one sample `distinct` is not measured, and nothing may ask for it.
    with no_matplotlib():
        status, _, err = run(train.main, *TINY, "--samples", 1, "--out", tmp_path)
    assert status == 0, err
    assert {r["k"] for r in read(tmp_path / "results.csv")} == {"1"}


# ------------------------------------------------------------------------------- sample and eval

def test_watch_shows_as_many_steps_as_evaluations_and_ends_on_the_text(checkpoint):
    for flags in ([], ["--order", "confidence", "--block-length", 8],
                  ["--order", "top_probability", "--select", "k=4"]):
        status, out, err = run(sample.main, "--checkpoint", checkpoint, "--watch", *flags)
        assert status == 0 and err == ""
        lines = out.splitlines()
        steps = [line for line in lines if line.startswith("step")]
        assert len(steps) == int(re.search(r"(\d+) forward evaluations", out).group(1))
        masks = [step.split().count("__") for step in steps]
        assert masks == sorted(masks, reverse=True) and len(set(masks)) == len(masks)
        text, rank = (next(line for line in lines if line.startswith(name)).split()[1:]
                      for name in ("text", "rank"))
        assert len(text) == len(rank) == 22
        assert [w for w, r in zip(steps[-1].split()[2:], rank) if r != "-"] == [
            w for w, r in zip(text, rank) if r != "-"]
        assert {int(r) for r in rank if r != "-"} == set(range(len(steps)))
        assert "log-prob -" in out and "tokens" in out
        assert "right" in lines[-1] or "wrong" in lines[-1]
        assert "\033" not in out        # this is no terminal


def test_sample_shows_the_problem_that_was_asked_for(checkpoint):
    status, out, _ = run(sample.main, "--checkpoint", checkpoint, "--index", 5, "--samples", 3)
    assert status == 0 and Toy().problem("test", 5)["question"] in out
    assert out.count("forward evaluations") == 3
    again = run(sample.main, "--checkpoint", checkpoint, "--index", 5, "--samples", 3)[1]
    assert again == out
    flags = ["--checkpoint", checkpoint, "--temperature", 1]
    texts = [run(sample.main, *flags, "--seed", seed)[1] for seed in (1, 2, 1)]
    assert texts[0] == texts[2] != texts[1]


def test_a_prompt_with_words_that_the_vocabulary_lacks_works(checkpoint):
    question = "Zoë has 3 €. Sum?"
    status, out, err = run(sample.main, "--checkpoint", checkpoint, "--prompt", question)
    assert status == 0 and err == "" and question in out
    assert "right" not in out and "wrong" not in out    # nobody knows the answer


def test_a_block_longer_than_the_completion_is_refused_with_the_limit(checkpoint):
    for main, extra in ((sample.main, []), (eval_gsm8k.main, ["--limit", 2])):
        flags = ["--checkpoint", checkpoint, "--order", "confidence", *extra]
        assert run(main, *flags, "--block-length", 22)[0] == 0
        status, out, err = run(main, *flags, "--block-length", 23)
        assert status == 2 and out == "" and "22" in err and err.count("\n") == 1


def test_evaluation_prints_and_writes_the_same_rows_and_repeats_them(checkpoint, tmp_path):
    flags = ["--checkpoint", checkpoint, "--limit", 3, "--samples", 4, "--temperature", 0.6,
             "--k", "1,2,4", "--order", "confidence", "--block-length", 8, "--seed", 5]
    outs = [run(eval_gsm8k.main, *flags, "--csv", tmp_path / name) for name in ("a", "b")]
    assert [status for status, *_ in outs] == [0, 0]
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    rows = read(tmp_path / "a")
    assert list(rows[0]) == eval_gsm8k.RESULT_COLUMNS
    assert [(r["stage"], r["order"], r["selection"], r["block_length"], r["temperature"], r["k"],
             r["n_problems"], r["n_samples"], r["seed"]) for r in rows] == [
        ("justgrpo", "confidence", "k=1", "8", "0.6", k, "3", "4", "5") for k in ("1", "2", "4")]
    out = outs[0][1]
    for r in rows:
        assert f"pass@{r['k']}" in out and f"{float(r['value']):.3f}" in out
    assert re.search(r"\d forward evaluations", out) and " s\n" in out and "tokens_per_eval" in out
    assert {p.name for p in tmp_path.iterdir()} == {"a", "b"}


def test_the_greedy_row_of_an_evaluation_is_the_one_that_training_wrote(story, tmp_path):
    # A checkpoint keeps all that evaluation needs. (The reward is Coin's in one place and
    # exact match in the other, so it is the evaluations spent that must agree.)
    for stage, name in (("base", "base.pt"), ("justgrpo", "justgrpo.pt")):
        run(eval_gsm8k.main, "--checkpoint", story[0] / name, "--limit", 24, "--order",
            "confidence", "--csv", tmp_path / "rows.csv")
        [row] = read(tmp_path / "rows.csv")
        [same] = [r for r in read(story[0] / "results.csv") if r["temperature"] == "0.0" and all(
            r[c] == row[c] for c in ("stage", "order", "selection", "block_length", "n_problems"))]
        assert row["nfe"] == same["nfe"] and row["stage"] == stage


def test_the_toys_model_answers_questions_from_a_file(checkpoint, tmp_path):
    questions = [Toy().problem("test", i)["question"] for i in range(3)]
    rows = [{"question": q, "answer": "#### 5"} for q in questions]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    status, out, _ = run(eval_gsm8k.main, "--checkpoint", checkpoint, "--data", path)
    assert status == 0 and "3 problems" in out      # --limit 400 of them, but there are 3
    out = run(sample.main, "--checkpoint", checkpoint, "--data", path, "--index", 2)[1]
    assert rows[2]["question"] in out


# ------------------------------------------------------------------------- bad input: one line

def damaged(tmp_path, checkpoint):
    """name -> a file that is no checkpoint."""
    good = checkpoint.read_bytes()
    saved = load(checkpoint)
    files = {"empty": b"", "truncated": good[:len(good) // 2], "text": b"hello\n" * 100,
             "zip": b"PK\x03\x04" + b"\0" * 100}
    for name, data in files.items():
        (tmp_path / f"{name}.pt").write_bytes(data)
    parts = {"foreign": {"state_dict": saved["model"]}, "list": [1, 2, 3],
             "tensor": torch.zeros(3),
             "weights": {**saved, "model": {}}, "config": {**saved, "config": {"n_layer": 1}}}
    for name, value in parts.items():
        save(tmp_path / f"{name}.pt", value)
    torch.save(saved, tmp_path / "pickle.pt")
    (tmp_path / "folder.pt").mkdir()
    return [tmp_path / f"{name}.pt" for name in ("missing", *files, *parts, "pickle", "folder")]


def refused(main, *argv, about="", **kwargs):
    """The one way to refuse: status 2, one line on stderr that names the trouble."""
    status, out, err = run(main, *argv, **kwargs)
    assert status == 2, (argv, out, err)
    assert err.count("\n") == 1 and err.endswith("\n") and "error: " in err, err
    assert "Traceback" not in out + err
    for word in [about] if isinstance(about, str) else about:
        assert word in err, (word, err)
    return out, err


@pytest.mark.parametrize("name", ["sample.py", "eval_gsm8k.py"])
def test_a_file_that_is_no_checkpoint_is_refused_by_name(name, checkpoint, tmp_path):
    for path in damaged(tmp_path, checkpoint):
        before = contents(tmp_path)
        out, err = refused(MAINS[name], "--checkpoint", path, about=path.name)
        assert out == "" and contents(tmp_path) == before


@pytest.mark.parametrize("name", ["sample.py", "eval_gsm8k.py"])
def test_who_has_no_checkpoint_yet_is_told_how_to_make_one(name, tmp_path):
    # It is the first line that whoever starts with sample.py sees.
    refused(MAINS[name], "--checkpoint", tmp_path / "justgrpo.pt", about="train.py")


def test_a_later_stage_refuses_a_damaged_base_and_leaves_the_folder_alone(checkpoint, tmp_path):
    for i, path in enumerate(damaged(tmp_path, checkpoint)):
        if path.is_file():
            folder = tmp_path / f"out{i}"
            folder.mkdir()
            shutil.copy(path, folder / "base.pt")
            (folder / "summary.json").write_text('{"seconds": 360}')
            before = contents(folder)
            refused(train.main, *TINY, "--stage", "trap", "--out", folder, about="base.pt")
            assert contents(folder) == before


@pytest.mark.parametrize("stage", ["trap", "grpo"])
def test_a_later_stage_says_what_is_missing_and_leaves_nothing(stage, tmp_path):
    folder = tmp_path / "out"
    refused(train.main, *TINY, "--stage", stage, "--out", folder,
            about=["base.pt", "python train.py"])
    assert list(tmp_path.iterdir()) == []


def test_a_later_stage_refuses_the_base_of_another_task(story, tmp_path):
    folder = shutil.copytree(story[0], tmp_path / "out")
    refused(train.main, *TINY, "--stage", "grpo", "--out", folder, task=Copy(), about="base.pt")
    assert [p.read_bytes() for p in sorted(folder.iterdir())] == [
        p.read_bytes() for p in sorted(story[0].iterdir())]


def test_a_later_stage_refuses_the_base_of_another_seed(story, tmp_path):
    folder = shutil.copytree(story[0], tmp_path / "out")
    before = contents(folder)
    refused(train.main, *TINY, "--stage", "trap", "--seed", 3, "--out", folder, task=Coin(),
            about=["base.pt", "--seed 0"])
    assert contents(folder) == before


def test_a_new_base_takes_the_old_ones_offspring_away(story, tmp_path):
    folder = shutil.copytree(story[0], tmp_path / "out")
    with no_matplotlib():
        run(train.main, *TINY, "--stage", "pretrain", "--out", folder, task=Coin())
    assert (folder / "base.pt").exists() and not (folder / "justgrpo.pt").exists()


DECODING = [       # flags, words of the message
    (["--block-length", "0"], ["block length", "0"]),
    (["--block-length", "-3"], ["block length"]),
    (["--block-length", "x"], ["--block-length"]),
    (["--temperature", "-1"], ["temperature", "-1"]),
    (["--temperature", "nan"], ["temperature"]),
    (["--temperature", "inf"], ["temperature"]),
    (["--order", "sideways"], ["sideways", "left_to_right", "confidence", "exploratory"]),
    (["--select", "best"], ["best", "threshold", "entropy_bound"]),
    (["--select", "k=two"], ["two"]),
    (["--select", "k=0"], ["k=0"]),
    (["--select", "k=1.5"], ["1.5"]),
    (["--select", "k=nan"], ["k=nan"]),
    (["--order", "top_probability", "--select", "threshold=-1"], ["threshold"]),
    (["--order", "random", "--select", "threshold"], ["threshold", "random", "top_probability"]),
    (["--order", "left_to_right", "--select", "entropy_bound"], ["entropy_bound"]),
    (["--order", "confidence", "--temperature", "1", "--select", "fork"], ["fork", "confidence"]),
    (["--samples", "0"], ["--samples"]),
    (["--samples", "-2"], ["--samples"]),
    (["--device", "abacus"], ["abacus"]),
    (["--no-such-flag"], ["--no-such-flag"]),
    (["--seed", "x"], ["--seed"]),
    # Past 64 bits torch raises.
    (["--seed", "100000000000000000000"], [""]),
]


@pytest.mark.parametrize("name", ["sample.py", "eval_gsm8k.py"])
@pytest.mark.parametrize("flags, about", DECODING, ids=lambda x: " ".join(x)[:60])
def test_decoding_flags_that_mean_nothing_are_refused_with_the_reason(name, flags, about,
                                                                      checkpoint):
    refused(MAINS[name], "--checkpoint", checkpoint, *flags, about=about)


@pytest.mark.parametrize("flags, about", [
    (["--k", "4", "--samples", "2"], ["--k 4", "--samples"]),
    (["--k", "2"], ["--k 2"]),                  # of one sample, the default
    (["--k", "0"], ["--k 0"]),
    (["--k", "1,,2", "--samples", "4"], ["--k"]),
    (["--k", ""], ["--k"]),
    (["--k", "1;2", "--samples", "4"], ["--k"]),
    (["--k", "1.5", "--samples", "4"], ["--k"]),
    (["--limit", "0"], ["--limit"]),
    (["--limit", "-1"], ["--limit"]),
], ids=lambda x: " ".join(x)[:60])
def test_evaluation_flags_that_mean_nothing_are_refused(flags, about, checkpoint, tmp_path):
    rows = tmp_path / "rows.csv"
    rows.write_text("earlier\n")
    refused(eval_gsm8k.main, "--checkpoint", checkpoint, *flags, "--csv", rows, about=about)
    assert contents(tmp_path) == {str(rows): b"earlier\n"}


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a cuda device here")
def test_cuda_is_refused_where_there_is_none(checkpoint, tmp_path):
    for name in ("sample.py", "eval_gsm8k.py"):
        refused(MAINS[name], "--checkpoint", checkpoint, "--device", "cuda", about="cuda")
    refused(train.main, *TINY, "--device", "cuda", "--out", tmp_path / "out", about="cuda")
    assert contents(tmp_path) == {}


def test_a_prompt_that_is_too_long_is_refused_with_the_limit(checkpoint, tmp_path):
    # Prompts twice as long as those of training fit on the network's longest canvas.
    P, most = Toy().prompt_length, 2 * Toy().prompt_length
    assert run(sample.main, "--checkpoint", checkpoint, "--prompt", "x" * most)[0] == 0
    refused(sample.main, "--checkpoint", checkpoint, "--prompt", "x" * (most + 1),
            about=[str(most + 1), str(most)])
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"question": "x" * 90, "answer": "#### 5"}), encoding="utf-8")
    refused(eval_gsm8k.main, "--checkpoint", checkpoint, "--data", path, about=[f"most {P} "])


BAD_FILES = {       # content (None: no such file) -> words of the message
    "missing": (None, []), "empty": (b"", ["empty"]), "not json": (b"{\n", ["line 1"]),
    "no answer": (b'{"question": "a?"}\n', ["line 1", "answer"]),
    "no ####": (b'{"question": "a?", "answer": "#### 5"}\n{"question": "b?", "answer": "5"}\n',
                ["line 2", "####"]),
    "not UTF-8": (b'{"question": "\xff", "answer": "#### 5"}\n', ["line 1"])}


@pytest.mark.parametrize("kind", list(BAD_FILES))
def test_a_bad_file_of_problems_is_refused_with_file_and_line(kind, checkpoint, tmp_path):
    content, about = BAD_FILES[kind]
    path, good = tmp_path / "rows.jsonl", tmp_path / "good.jsonl"
    if content is not None:
        path.write_bytes(content)
    good.write_bytes(b'{"question": "How many?", "answer": "#### 5"}\n')
    before, about = contents(tmp_path), [path.name, *about]
    refused(sample.main, "--checkpoint", checkpoint, "--data", path, about=about)
    refused(eval_gsm8k.main, "--checkpoint", checkpoint, "--data", path, about=about)
    for pair in (["--data", path, "--test", good], ["--data", good, "--test", path]):
        refused(train.main, *TINY, *pair, "--out", tmp_path / "out", about=about)
    assert contents(tmp_path) == before and not (tmp_path / "out").exists()


@pytest.mark.parametrize("flags, about", [
    (["--data", "a.jsonl"], ["--test"]),
    (["--test", "a.jsonl"], ["--data"]),
    (["--stage", "sleep"], ["sleep", "pretrain", "grpo"]),
    (["--dtype", "int8"], ["int8", "bfloat16"]),
    (["--width", "12"], ["12", "8"]),
    (["--device", "abacus"], ["abacus"]),
    (["--st", "trap"], ["--st"]),       # no abbreviations: --st is --stage today, --steps tomorrow
    (["extra"], ["extra"]),
    (["--arm", "ppo"], ["ppo", "justgrpo", "rejection"]),
    (["--rollout-block-length", "8"], ["--rollout-block-length", "left to right"]),
    (["--arm", "rejection", "--rollout-block-length", "8"], ["left to right"]),
    (["--arm", "confidence", "--rollout-block-length", "0"], ["--rollout-block-length", "1", "22"]),
    (["--arm", "confidence", "--rollout-block-length", "23"], ["--rollout-block-length", "22"]),
    (["--fraction", "0.5"], ["--fraction", "--positions"]),
    (["--positions", "random", "--fraction", "1.5"], ["--fraction", "1"]),
    (["--clip-low", "0.1"], ["--clip-low", "ratio 1", "--updates-per-batch"]),
    (["--clip-high", "0.3"], ["--clip-high", "ratio 1"]),
    (["--rollouts", "1"], ["--rollouts", "siblings"]),
    *[(["--arm", "rejection", *flags], [flags[0], "rejection"]) for flags in (
        ["--advantage", "none"], ["--loss-norm", "constant"], ["--updates-per-batch", "2"],
        ["--positions", "random"], ["--fraction", "0.5"], ["--clip-high", "0.3"])],
    *[([flag, value], [flag]) for flag in (
        "--steps --batch --width --layers --grpo-steps --prompts --rollouts --problems "
        "--trap-problems --samples --updates-per-batch").split()
      for value in ("0", "-1", "x", "1.5")],
    *[([flag, value], [flag]) for flag in ("--lr", "--grpo-lr", "--adam-eps",
                                           "--rollout-temperature")
      for value in ("0", "-1", "x", "nan", "inf")],
], ids=lambda x: " ".join(x)[:60])
def test_training_flags_that_mean_nothing_are_refused_before_anything_is_written(flags, about,
                                                                                tmp_path):
    refused(train.main, *TINY, *flags, "--out", tmp_path / "out", about=about)
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_can_not_be_written_is_refused_before_the_work(checkpoint, tmp_path):
    # Below a regular file nobody can write, not even root, whom permissions do not stop.
    file = tmp_path / "file"
    file.write_text("mine")
    for out in (file, file / "out", file / "deep" / "out"):
        assert refused(train.main, *TINY, "--out", out)[0] == ""
    for path in (file / "rows.csv", tmp_path, tmp_path / "nowhere" / "rows.csv"):
        out, _ = refused(eval_gsm8k.main, "--checkpoint", checkpoint, "--csv", path)
        assert "pass@1" not in out
    assert contents(tmp_path) == {str(file): b"mine"}


def test_a_full_disk_is_one_line_and_leaves_no_half_file(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")
    monkeypatch.setattr(model.os, "replace", full)
    refused(train.main, *TINY, "--out", tmp_path, about="No space left")
    assert contents(tmp_path) == {}


def test_the_scripts_themselves_exit_with_2_and_one_line(tmp_path):
    # Once in processes of their own: the name in front, and nothing from imports around it.
    (tmp_path / "empty.pt").touch()
    for name in ("sample.py", "eval_gsm8k.py"):
        done = script(name, "--checkpoint", tmp_path / "empty.pt")
        assert done.returncode == 2 and done.stdout == ""
        assert re.fullmatch(rf"{name}: error: .*empty\.pt.*\n", done.stderr), done.stderr


# -------------------------------------------------------------------------------------- download

class Response(io.BytesIO):
    """What urlopen returns, as far as it is used."""


def offline(*_, **__):
    raise urllib.error.URLError("no network")


def test_a_download_without_a_network_says_where_to_put_the_file(checkpoint, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("urllib.request.urlopen", offline)
    refused(eval_gsm8k.main, "--checkpoint", checkpoint, "--download", about=[
        "https://", "test.jsonl", "gsm8k_test.jsonl", "--data"])
    assert contents(tmp_path) == {}


def test_a_download_with_another_hash_is_not_saved(checkpoint, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("urllib.request.urlopen", lambda *_, **__: Response(
        b'{"question": "How many?", "answer": "#### 5"}\n'))
    refused(eval_gsm8k.main, "--checkpoint", checkpoint, "--download", about="SHA-256")
    assert contents(tmp_path) == {}


def test_a_download_asks_for_a_pinned_commit_and_saves_what_has_its_hash(checkpoint, tmp_path,
                                                                         monkeypatch):
    row = {"question": Toy().problem("test", 0)["question"], "answer": "#### 5"}
    data, asked = json.dumps(row).encode(), []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("urllib.request.urlopen",
                        lambda url, **_: asked.append(url) or Response(data))
    monkeypatch.setattr(eval_gsm8k, "GSM8K_TEST_SHA256", hashlib.sha256(data).hexdigest())
    status, out, _ = run(eval_gsm8k.main, "--checkpoint", checkpoint, "--download")
    assert status == 0 and "1 problems" in out
    assert contents(tmp_path) == {str(tmp_path / "gsm8k_test.jsonl"): data}
    assert re.search(r"/[0-9a-f]{40}/.*test\.jsonl$", asked[0])
    # A file that is there already is used as it is: the network is not asked again.
    monkeypatch.setattr("urllib.request.urlopen", offline)
    assert run(eval_gsm8k.main, "--checkpoint", checkpoint, "--download")[0] == 0


def test_a_download_that_breaks_off_or_never_ends_leaves_nothing_and_can_be_started_again(
        checkpoint, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    class Broken(Response):
        def read(self, *_):
            raise http.client.IncompleteRead(b"half")

    class Endless(Response):
        def read(self, n):      # a limit is asked for: without one this would not return
            return bytes(n)
    for response in (Broken, Endless):
        monkeypatch.setattr("urllib.request.urlopen", lambda *_, **__: response(b""))
        refused(eval_gsm8k.main, "--checkpoint", checkpoint, "--download")
        assert contents(tmp_path) == {}
    data = json.dumps({"question": Toy().problem("test", 0)["question"], "answer": "#### 5"})
    monkeypatch.setattr(eval_gsm8k, "GSM8K_TEST_SHA256", hashlib.sha256(data.encode()).hexdigest())
    monkeypatch.setattr("urllib.request.urlopen", lambda *_, **__: Response(data.encode()))
    assert run(eval_gsm8k.main, "--checkpoint", checkpoint, "--download")[0] == 0


def test_a_file_that_is_there_is_checked_too_and_left_as_it_is(checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr("urllib.request.urlopen", offline)
    path = tmp_path / "mine.jsonl"
    path.write_text('{"question": "How many?", "answer": "#### 5"}')
    refused(eval_gsm8k.main, "--checkpoint", checkpoint, "--download", "--data", path,
            about=["mine.jsonl", "SHA-256"])
    assert "How many?" in path.read_text()


def test_the_hash_is_that_of_gsm8ks_test_file():
    path = ROOT.parent / "shared" / "gsm8k" / "test.jsonl"
    if not path.exists():
        pytest.skip("no ../shared/gsm8k here")
    assert hashlib.sha256(path.read_bytes()).hexdigest() == eval_gsm8k.GSM8K_TEST_SHA256


# -------------------------------------------------------------------------------- flags and help

PROMISED = {
    "train.py": "--out --data --test --quick --stage --seed --device --dtype --steps --batch "
                "--width --layers --grpo-steps --prompts --rollouts --grpo-lr --arm --positions "
                "--rollout-block-length --fraction --updates-per-batch --clip-low --clip-high "
                "--advantage --loss-norm",
    "sample.py": "--checkpoint --index --prompt --watch --order --select --block-length "
                 "--temperature --samples",
    "eval_gsm8k.py": "--checkpoint --data --download --limit --order --select --block-length "
                     "--temperature --samples --k --csv"}


@pytest.mark.parametrize("name", list(MAINS))
def test_every_flag_stands_in_help_with_its_default(name, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    status, out, err = run(MAINS[name], "--help")
    assert status == 0 and err == ""
    entries = re.split(r"\n  (?=-)", out.split("options:")[1])[1:]
    flags = {re.match(r"--[\w-]+", e).group(): " ".join(e.split()) for e in entries
             if e.startswith("--")}
    assert set(PROMISED[name].split()) <= set(flags)
    for flag, text in flags.items():
        assert re.search(r"\(default: [^)]+\)", text), flag
        assert len(text.split("(default")[0].split()) >= 3, flag    # and with some words of help


def test_quick_and_data_have_defaults_of_their_own_which_a_flag_overrides():
    full, quick, real, both = (train.parse_flags(argv)[1] for argv in (
        [], ["--quick"], ["--data", "a", "--test", "b"], ["--quick", "--data", "a", "--test", "b"]))
    assert quick.steps < full.steps and both.steps < real.steps
    assert quick.problems < full.problems and both.problems < real.problems
    assert train.parse_flags(["--quick", "--steps", "7"])[1].steps == 7
    assert train.parse_flags(["--steps", "7", "--quick"])[1].steps == 7
    # --help shows the numbers of the plain run.
    assert f"(default: {full.steps})" in run(train.main, "--help")[1]


class Parsed(Exception):
    """The flags were accepted; do no work."""


@pytest.fixture
def parse_only(monkeypatch):
    """main(argv), up to and including its parser -> the flags."""
    plain = argparse.ArgumentParser.parse_args

    def parse_args(self, *args, **kwargs):
        raise Parsed(plain(self, *args, **kwargs))
    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_args)

    def parse(main, argv):
        with pytest.raises(Parsed) as parsed:
            main(argv)
        return parsed.value.args[0]
    return parse


def readme_commands():
    """(script, flags) of every `python X.py ...` in README.md's code blocks."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```.*?\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    # A command ends at the line, at a comment, at a pipe, or where words follow some spaces away.
    commands = re.findall(r"\bpython3? +([\w/]+\.py)((?: (?! )[^\n&|;>#]*?)?)(?= {2,}|$|[&|;>#])",
                          re.sub(r"\s*\\\n\s*", " ", "\n".join(blocks)), re.MULTILINE)
    return [(name, shlex.split(flags)) for name, flags in commands]


def test_the_readmes_commands_exist_and_their_flags_parse(parse_only):
    commands = readme_commands()
    assert len(commands) >= 4
    assert {"train.py", "sample.py", "eval_gsm8k.py"} <= {name for name, _ in commands}
    for name, flags in commands:
        assert (ROOT / name).is_file(), name
        if name in MAINS:
            args = parse_only(MAINS[name], flags)
            if name != "train.py":      # the decoder that they describe must mean something, too
                select, _, value = args.select.partition("=")
                value = float(value or sample.SELECTIONS[select])
                sample.Decoder(args.order, select, value, args.block_length, args.temperature)


def test_the_commands_to_try_next_parse(story, parse_only):
    commands = re.findall(r"^  python (\S+\.py) (.*)$", story[1], re.MULTILINE)
    for name, flags in commands:
        parse_only(MAINS[name], shlex.split(flags))


# --------------------------------------------------------------------- a task of one's own, GSM8K

class Copy(Task):
    """README.md's example: write the word again."""
    name, prompt_length, completion_length = "copy", 4, 8
    tokenizer = make_tokenizer([], r"[\s\S]")       # single bytes

    def problem(self, split, index):
        offset = {"train": 0, "validation": 1, "test": 2}[split]
        word = str((3 * index + offset) % 999)
        return {"question": word, "solution": word, "answer": word}

    def reward(self, text, answer):
        return float(text == answer)


def test_a_task_of_ten_lines_goes_through_all_four_acts(tmp_path):
    with no_matplotlib():
        status, out, err = run(train.main, *TINY, "--out", tmp_path, task=Copy())
    assert status == 0, err
    assert {p.name for p in tmp_path.iterdir()} == FILES
    measures = {r["measure"] for r in read(tmp_path / "measures.csv")}
    assert "tokens_per_evaluation" in measures
    assert not any("fork" in m or "next_value" in m for m in measures)  # its forks are not known,
    assert re.search(r"forks? .*not known|not known.*forks?", out)      # and the output says so
    network, description, info = load_checkpoint(tmp_path / "base.pt")
    assert description == Copy().describe() and info["stage"] == "base"
    assert network.config.mask_id == Copy().mask_id
    # Its checkpoint can't be read without the class; that is one line, not a traceback.
    refused(sample.main, "--checkpoint", tmp_path / "base.pt", about="copy")


def gsm8k_files(folder, n=80):
    def row(name, i):
        return {"question": f"{name} buys {i} eggs and then {i} more. How many eggs?",
                "answer": f"{name} buys {i} + {i} = <<{i}+{i}={2 * i}>>{2 * i} eggs.\n#### {2 * i}"}
    rows = {"train": [row("Zoë", i) for i in range(n)], "test": [row("Otto", i) for i in range(6)]}
    rows["train"].append({"question": "7" * 60, "answer": "#### 5"})
    rows["test"].append({"question": "8" * 60, "answer": "#### 5"})
    for name, part in rows.items():
        text = "".join(json.dumps(r) + "\n" for r in part)
        (folder / f"{name}.jsonl").write_text(text, encoding="utf-8")
    return [folder / "train.jsonl", folder / "test.jsonl"]


def test_gsm8ks_format_goes_through_all_four_acts_and_its_checkpoint_needs_no_other_file(
        tmp_path, monkeypatch):
    files, folder = gsm8k_files(tmp_path), tmp_path / "out"
    # The same canvas shape as ever, but smaller: 288 tokens are slow on one core.
    monkeypatch.setattr(train, "SHAPE", dict(n_merges=60, prompt_length=40, completion_length=24))
    flags = ["--data", files[0], "--test", files[1], "--out", folder]
    with no_matplotlib():
        status, out, err = run(train.main, *TINY, *flags, task=None)
    assert status == 0, err
    assert {p.name for p in folder.iterdir()} == FILES
    # Of each file one row is too long: left out, and said so.
    counted = [line for line in out.splitlines() if "too long" in line and "left out" in line]
    assert len(counted) == 2 and all(re.search(r"\b1 rows?\b", line) for line in counted)
    assert "test" in counted[1] and re.search(r"\b6\b", counted[1])
    assert "always answering" in out        # the baseline of the majority answer
    measures = {r["measure"] for r in read(folder / "measures.csv")}
    assert "majority_answer" in measures and not any("fork" in m for m in measures)
    path = tmp_path / "moved.pt"
    shutil.move(folder / "justgrpo.pt", path)
    files[0].unlink()
    status, out, err = run(eval_gsm8k.main, "--checkpoint", path, "--data", files[1])
    assert status == 0 and "6 problems" in out and re.search(r"\b1\b.*left out", out), err
    status, out, err = run(sample.main, "--checkpoint", path, "--data", files[1], "--watch")
    assert status == 0 and "Otto buys 0 eggs" in out, err
    status, out, err = run(sample.main, "--checkpoint", path, "--prompt", "How many eggs?")
    assert status == 0, err
    # Without --data there are no test problems, and no toy ones are put in their place.
    for main in (sample.main, eval_gsm8k.main):
        refused(main, "--checkpoint", path, about="--data")
    assert load_task(load_checkpoint(path)[1]).completion_length == 24


def test_a_training_file_that_holds_a_test_question_is_refused_before_anything_is_written(tmp_path):
    files, folder = gsm8k_files(tmp_path), tmp_path / "out"
    files[1].write_bytes(files[1].read_bytes() + files[0].read_bytes().splitlines(True)[3])
    refused(train.main, *TINY, "--data", files[0], "--test", files[1], "--out", folder,
            about=["1 question", "test.jsonl", "train.jsonl"])
    assert not folder.exists()


def test_training_rows_too_few_to_validate_on_are_refused_before_pretraining(tmp_path):
    # Without validation rows act 2 could not end.
    files, folder = gsm8k_files(tmp_path, n=3), tmp_path / "out"
    out, _ = refused(train.main, *TINY, "--data", files[0], "--test", files[1], "--out", folder,
                     about="validation")
    assert "Act 2" not in out and contents(folder) == {}


def test_the_readmes_task_of_ones_own_runs_as_it_stands_there(tmp_path, monkeypatch):
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    [block] = [b for b in blocks if re.search(r"\((data\.)?Task\)", b)]
    tasks, plain = [], train.main

    def main(argv=None, task=None):     # the example's own call, but tiny and in a folder of ours
        tasks.append(task)
        train.parse_flags(argv)
        return plain([*TINY, "--out", str(tmp_path)], task=task)
    monkeypatch.setattr(train, "main", main)
    with no_matplotlib():
        status, _, err = run(lambda _: exec(block, {"__name__": "__main__"}))
        assert status == 0, err
    [task] = tasks
    assert {p.name for p in tmp_path.iterdir()} == FILES
    train_set, validation, test = ({p["question"] for p in task.problems(split, 0, 200)}
                                   for split in ("train", "validation", "test"))
    assert not train_set & test and not train_set & validation and not validation & test
    p = task.problem("test", 0)
    assert task.reward(task.text(task.completions([p["solution"]])[0]), p["answer"]) == 1.0
