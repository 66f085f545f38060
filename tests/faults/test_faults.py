"""Nothing is lost: kills, signals, full disks, damaged files, odd settings, determinism.

    python -m pytest -m slow tests/faults

README.md here has the table of all faults; kills.py and fuzz.py do the same for longer. What
runs.py promises by itself stands in tests/test_runs.py; here are the programs around it.
"""
import contextlib
import itertools
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import pytest
import tiktoken
import torch

import eval_gsm8k
import grpo
import runs
import sample
import train
from data import EOS, MASK, Task, Toy, make_tokenizer
from experiments import arms
from runs import FORMAT, load, save
from sample import load_checkpoint
from tests.coin import Coin, log_without_times
from tests.faults import fuzz, kills
from tests.faults.kills import digest
from tests.test_scripts import (ROOT, TINY, TINY_RL, contents, done, gsm8k_files, no_matplotlib,
                                refused, run, script)

pytestmark = pytest.mark.slow
torch.set_num_threads(1)
ALONE = {**os.environ, "OMP_NUM_THREADS": "1"}      # of a process: with two it is slower, so small


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The folder of a run left alone. Its state was saved between any two steps."""
    folder = tmp_path_factory.mktemp("whole") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runs, "SAVE_EVERY", 0)
        done(train.main, *TINY, "--out", folder, task=Coin())
    return folder


@pytest.fixture
def halfway(tmp_path):
    """The folder of a run that was stopped in the middle of act 3."""
    folder = tmp_path / "halfway"
    with stopped_in(train, "evaluate", 2):
        assert train_coin(folder)[0] == 130
    return folder


@contextlib.contextmanager
def stopped_in(module, name, n):
    """The n-th call of module.name begins with Ctrl-C."""
    real, calls = getattr(module, name), itertools.count(1)

    def wrapper(*args, **kwargs):
        if next(calls) == n:
            os.kill(os.getpid(), signal.SIGINT)
        return real(*args, **kwargs)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, name, wrapper)
        yield


def train_coin(folder, *flags, task=None):
    with no_matplotlib():
        return run(train.main, *TINY, *flags, "--out", folder, task=task or Coin())


# -------------------------------------------------------------------------------- kill and resume

def test_killed_at_random_moments_and_resumed_a_run_leaves_the_same_bytes():
    rows = kills.main(["--tries", "6", "--how", "mixed", "--seed", "5"])
    assert sum(row["status"] != 0 for row in rows) >= 6
    assert not any(row["differ"] for row in rows)


@pytest.mark.parametrize("module, name, n", [
    (train, "begin", 1), (train, "diffusion_loss", 1), (train, "diffusion_loss", 3),
    (train, "probe", 1), (train, "evaluate", 1), (train, "evaluate", 7),
    (grpo, "policy_losses", 1), (grpo, "policy_losses", 2), (train, "compare", 1),
    (train, "evaluate", 30)], ids=lambda x: getattr(x, "__name__", str(x)))
def test_stopped_anywhere_and_resumed_a_run_leaves_the_same_bytes(module, name, n, whole, tmp_path):
    folder = tmp_path / "out"
    with stopped_in(module, name, n):
        status, out, err = train_coin(folder)
    assert status == 130 and out.endswith(" --resume\n"), (out, err)
    status, _, err = train_coin(folder, "--resume")
    assert status == 0, err
    assert digest(folder) == digest(whole)
    keys = [(row["stage"], row["step"]) for row in log_without_times(folder)]
    assert len(set(keys)) == len(keys)


def test_stopped_when_all_is_done_a_run_just_ends(whole, tmp_path):
    with stopped_in(train, "draw_progress", 1):
        assert train_coin(tmp_path)[0] == 0
    assert digest(tmp_path) == digest(whole)


def test_a_later_stage_resumes_too_and_keeps_the_rows_of_the_others(whole, tmp_path):
    folder = shutil.copytree(whole, tmp_path / "out")
    with stopped_in(grpo, "policy_losses", 2):
        assert train_coin(folder, "--stage", "grpo")[0] == 130
    assert train_coin(folder, "--stage", "grpo", "--resume")[0] == 0
    assert digest(folder) == digest(whole)


def test_a_finished_run_resumes_to_nothing_at_once(whole):
    before = contents(whole)
    status, out, _ = train_coin(whole, "--resume")
    assert status == 0 and "finished" in out and "Act" not in out and contents(whole) == before


def test_resume_where_nothing_is_begins_and_says_so(tmp_path, whole):
    status, out, _ = train_coin(tmp_path, "--resume")
    assert status == 0 and "nothing to go on from" in out
    assert digest(tmp_path) == digest(whole)


@pytest.mark.parametrize("flags, about", [
    ([], ["unfinished", "--resume"]),
    (["--resume", "--grpo-lr", "0.01"], ["grpo_lr", "0.03", "0.01"]),
    (["--resume", "--seed", "1"], ["seed"]), (["--resume", "--steps", "4"], ["steps", "3", "4"]),
    (["--resume", "--stage", "pretrain"], ["stage"]),
    (["--resume", "--dtype", "bfloat16"], ["dtype"])], ids=" ".join)
def test_an_unfinished_run_goes_on_only_under_its_own_settings(flags, about, halfway):
    before = contents(halfway)
    refused(train.main, *TINY, *flags, "--out", halfway, task=Coin(), about=about)
    assert contents(halfway) == before


def test_a_resume_with_another_task_thread_count_or_torch_is_refused(halfway, monkeypatch):
    flags = [*TINY, "--out", halfway, "--resume"]
    refused(train.main, *flags, task=type("Other", (Coin,), {"name": "other"})(), about="task")
    with monkeypatch.context() as patch:
        patch.setattr(torch, "get_num_threads", lambda: 7)
        refused(train.main, *flags, task=Coin(), about=["threads", "7"])
    with monkeypatch.context() as patch:
        patch.setattr(torch, "__version__", "9.9")
        refused(train.main, *flags, task=Coin(), about=["torch", "9.9"])


def test_a_resume_on_another_base_is_refused(whole, tmp_path):
    folder = shutil.copytree(whole, tmp_path / "out")
    with stopped_in(train, "evaluate", 1):
        assert train_coin(folder, "--stage", "grpo")[0] == 130
    shutil.copy(whole / "justgrpo.pt", folder / "base.pt")
    refused(train.main, *TINY, "--stage", "grpo", "--out", folder, "--resume", task=Coin(),
            about="files")


def test_a_resume_on_other_data_is_refused_wherever_the_file_lies(tmp_path, monkeypatch):
    files = gsm8k_files(tmp_path)
    monkeypatch.setattr(train, "SHAPE", dict(n_merges=60, prompt_length=40, completion_length=24))
    flags = [*TINY, "--stage", "pretrain", "--out", tmp_path / "out"]
    with stopped_in(train, "diffusion_loss", 2), no_matplotlib():
        assert run(train.main, *flags, "--data", files[0], "--test", files[1])[0] == 130
    moved = shutil.copy(files[0], tmp_path / "moved.jsonl")
    more = b'{"question": "How many?", "answer": "#### 3"}'
    files[1].write_bytes(files[1].read_bytes() + more)
    refused(train.main, *flags, "--data", moved, "--test", files[1], "--resume", about="files")


@pytest.mark.parametrize("damage", fuzz.CHANCE, ids=lambda damage: damage.__name__)
def test_a_damaged_state_is_refused_by_name_and_left_alone(damage, halfway):
    rng, path = random.Random(0), halfway / "state.pt"
    good = path.read_bytes()
    for _ in range(20):
        data = damage(rng, good)
        if data != good:
            path.write_bytes(data)
            before = contents(halfway)
            for flags in ([], ["--resume"]):
                refused(train.main, *TINY, "--out", halfway, *flags, task=Coin(),
                        about=["state.pt", "out of the way"])
            assert contents(halfway) == before


def test_a_state_that_lacks_something_or_is_a_checkpoint_is_refused(halfway, whole):
    path = halfway / "state.pt"
    good = load(path)
    for lost in good:
        save(path, {name: part for name, part in good.items() if name != lost})
        refused(train.main, *TINY, "--out", halfway, "--resume", task=Coin(), about="state.pt")
    shutil.copy(whole / "base.pt", path)
    for flags in ([], ["--resume"]):
        refused(train.main, *TINY, "--out", halfway, *flags, task=Coin(), about="state.pt")


def test_keys_of_a_task_that_look_like_numbers_stay_texts(tmp_path):
    class Levels(Coin):
        def describe(self):
            return {**super().describe(), "levels": {"1": 2, "\u00b2": {}}}
    with stopped_in(train, "evaluate", 1):
        assert train_coin(tmp_path, task=Levels())[0] == 130
    assert train_coin(tmp_path, "--resume", task=Levels())[0] == 0


# ---------------------------------------------------------------------------------------- signals

def child(out):
    """The run of kills.py in a process, but endless, and some steps into it."""
    process = kills.start(out, "--steps", "100000")
    while process.poll() is None:
        time.sleep(0.1)
        with contextlib.suppress(OSError, KeyError, ValueError):
            if load(out / "state.pt")["loops"]["base"]["step"] > 0:
                return process
    raise AssertionError(process.communicate())


@pytest.mark.parametrize("name, status", [("int", 130), ("term", 143)])
def test_a_signal_ends_the_step_saves_and_says_how_to_go_on(name, status, tmp_path):
    process = child(tmp_path / "out")
    process.send_signal(kills.SIGNALS[name])
    out = process.communicate(timeout=60)[0].decode()
    assert process.returncode == status and "Traceback" not in out
    last = out.splitlines()[-1]
    assert last.startswith("stopped; go on with") and last.endswith(" --resume")
    assert load(tmp_path / "out" / "state.pt")["loops"]["base"]["step"] > 0


def test_a_second_signal_ends_at_once_and_nothing_is_damaged(tmp_path):
    process = child(tmp_path / "out")
    for _ in range(2):
        process.send_signal(signal.SIGINT)
        time.sleep(0.001)
    assert process.wait(60) == 130
    process.stdout.close()
    load(tmp_path / "out" / "state.pt")


def test_two_runs_into_one_folder_the_second_is_refused_train_or_rival(tmp_path, whole):
    out = shutil.copytree(whole, tmp_path / "out")
    (out / "state.pt").unlink()
    process = child(out)
    refused(train.main, *kills.FLAGS, "--out", out, about=["another run", "--out"])
    refused(train.main, *kills.FLAGS, "--out", out, "--resume", about="another run")
    refused(arms.main, "confidence", *TINY_RL, "--out", out, task=Coin(), about="another run")
    process.kill()
    process.communicate()
    refused(train.main, *kills.FLAGS, "--out", out, about="unfinished")     # the lock is gone


# --------------------------------------------------------------------------- the disk, the folder

@pytest.mark.parametrize("number", [28, 30, 122], ids=["full", "read-only", "quota"])
@pytest.mark.parametrize("n", [1, 2, 5, 17, 40, 90])
def test_a_disk_that_refuses_the_nth_write_is_one_line_and_a_resume_goes_on(n, number, whole,
                                                                            tmp_path, monkeypatch):
    calls, real = itertools.count(1), os.fsync

    def fsync(file):
        if next(calls) >= n:
            raise OSError(number, os.strerror(number))
        real(file)
    with monkeypatch.context() as patch:
        patch.setattr(runs, "SAVE_EVERY", 0)
        patch.setattr(os, "fsync", fsync)
        status, out, err = train_coin(tmp_path)
    assert status == (1 if "Act 1" in out else 2), (status, err)
    line = err.splitlines()[-1]
    assert "error: " in line and os.strerror(number) in line and "Traceback" not in err
    assert not list(tmp_path.glob("*.tmp"))
    for path in tmp_path.glob("*.pt"):
        load(path)
    assert train_coin(tmp_path, "--resume")[0] == 0
    assert digest(tmp_path) == digest(whole)


def mount(*options):
    return subprocess.run(["mount", *options], capture_output=True).returncode == 0


@pytest.fixture
def disk(tmp_path):
    """A disk of 64 kB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if not shutil.which("mount") or not mount("-t", "tmpfs", "-o", "size=64k", "x", str(folder)):
        pytest.skip("this user may not mount a disk")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_disk_that_is_really_full_or_read_only_is_one_line_and_a_resume_goes_on(disk, whole):
    status, out, err = train_coin(disk / "out")
    assert status == 1 and "Act 2" in out and "Traceback" not in err
    assert "No space left" in err.splitlines()[-1]
    load(disk / "out" / "state.pt")
    assert not list((disk / "out").glob("*.tmp"))
    assert mount("-o", "remount,ro,size=9m", str(disk))
    for folder in ("out", "other"):
        refused(train.main, *TINY, "--out", disk / folder, "--resume", task=Coin(),
                about="Read-only")
    refused(eval_gsm8k.main, "--checkpoint", whole / "base.pt", "--csv", disk / "x.csv",
            about="Read-only")
    assert mount("-o", "remount,rw", str(disk))
    assert train_coin(disk / "out", "--resume")[0] == 0
    assert digest(disk / "out") == digest(whole)


def test_a_real_limit_on_the_size_of_a_file_is_one_line(tmp_path):
    code = ("import resource, sys, train\n"
            "resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))\ntrain.main(sys.argv[1:])")
    ended = subprocess.run([sys.executable, "-c", code, *TINY, "--out", tmp_path / "out"],
                           cwd=ROOT, capture_output=True, text=True, timeout=100, env=ALONE)
    assert ended.returncode == 1 and "Traceback" not in ended.stderr, ended.stderr
    assert re.search(r"error: .*File too large.*--resume.*\n$", ended.stderr), ended.stderr
    assert not list((tmp_path / "out").glob("*.tmp"))


def test_a_folder_removed_during_the_run_is_one_line(tmp_path, monkeypatch):
    folder = tmp_path / "out"
    monkeypatch.setattr(train, "measure_trap", lambda *_: shutil.rmtree(folder))
    status, _, err = train_coin(folder)
    assert status == 1 and "No such file" in err.splitlines()[-1] and "Traceback" not in err
    assert not folder.exists()


def test_an_evaluation_keeps_the_old_rows_until_the_new_are_whole(whole, tmp_path, monkeypatch):
    path, real, calls = tmp_path / "rows.csv", os.fsync, itertools.count(1)
    path.write_text("earlier\n")

    def full_at_the_end(file):      # the first call only tries whether the file can be written
        if next(calls) > 1:
            raise OSError(28, "No space left on device")
        real(file)
    flags = ["--checkpoint", whole / "base.pt", "--limit", 2, "--csv"]
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full_at_the_end)
        status, out, err = run(eval_gsm8k.main, *flags, path)
    assert status == 1 and "No space" in err.splitlines()[-1] and "pass@1" in out
    assert path.read_text() == "earlier\n" and len(contents(tmp_path)) == 1
    refused(eval_gsm8k.main, *flags, "/dev/null", about="/dev/null")
    assert not os.path.isfile("/dev/null")


def test_a_broken_summary_of_an_earlier_stage_does_not_lose_the_work(whole, tmp_path):
    folder = shutil.copytree(whole, tmp_path / "out")
    for text in (b"{", b"\xff"):
        (folder / "summary.json").write_bytes(text)
        assert train_coin(folder, "--stage", "trap")[0] == 0
        assert json.loads((folder / "summary.json").read_bytes())["seconds"]


# ---------------------------------------------------------------------------- damaged and hostile

def test_2000_damaged_and_hostile_files_give_one_line_or_the_right_thing():
    ended = subprocess.run([sys.executable, "tests/faults/fuzz.py"], cwd=ROOT, text=True,
                           capture_output=True, timeout=540)
    assert ended.returncode == 0, ended.stderr[-3000:]
    rows = re.findall(r"^what (.+) tries (\d+) refused (\d+) equal", ended.stdout, re.M)
    assert sum(int(tries) for _, tries, _ in rows) == 2000
    assert len(rows) == 15 and all(int(n) > 0 for _, _, n in rows)


def test_a_pipe_a_device_or_a_file_without_end_is_refused_and_not_waited_for(whole, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for name, start in (("large", b""), ("signed", FORMAT)):
        with open(tmp_path / name, "wb") as file:
            file.write(start)
            file.truncate(2**36)
    for path in (tmp_path / "pipe", "/dev/zero", "/dev/null", tmp_path, tmp_path / "large",
                 tmp_path / "signed"):
        for main in (sample.main, eval_gsm8k.main):
            refused(main, "--checkpoint", path, about=str(path))
        if path != "/dev/null":         # as a file of problems that is empty
            refused(sample.main, "--checkpoint", whole / "base.pt", "--data", path,
                    about=str(path))


def test_forged_sizes_are_refused_before_they_take_time_or_memory(whole, tmp_path):
    path, good = tmp_path / "forged.pt", load(whole / "base.pt")
    for config, weights in ((dict(n_layer=10**12), good["model"]),
                            (dict(n_layer=30000, n_embd=2), {"x": torch.zeros(10**6)}),
                            (dict(norm_eps=-0.5), good["model"]),
                            (dict(max_length=10**9), good["model"])):
        save(path, {**good, "config": {**good["config"], **config}, "model": weights})
        start = time.time()
        refused(sample.main, "--checkpoint", path, about="forged.pt")
        assert time.time() - start < 2


class Dot(Task):
    """The smallest task: one token, one place, and MASK and end-of-text."""
    name, prompt_length, completion_length = "dot", 1, 1
    tokenizer = tiktoken.Encoding("dot", pat_str=r"[\s\S]", mergeable_ranks={b".": 0},
                                  special_tokens={MASK: 1, EOS: 2})

    def problem(self, split, index):
        return {"question": ".", "solution": ".", "answer": "."}

    def reward(self, text, answer):
        return float(text == answer)


class Escape(Dot):
    prompt_length, completion_length = 20, 20
    tokenizer = make_tokenizer([], r"[\s\S]")

    def problem(self, split, index):
        return {"question": "\x1b]0;title\x07", "solution": ".\x1b[31m", "answer": "\x9b31m"}


def test_no_program_prints_an_escape_sequence_of_a_text(whole, tmp_path):
    status, out, _ = train_coin(tmp_path / "out", task=Escape())
    assert status == 0
    assert r"\x1b]0;title\x07" in out and r".\x1b[31m" in out and r"answering \x9b31m" in out
    assert all(c.isprintable() or c == "\n" for c in out)
    out = run(sample.main, "--checkpoint", whole / "base.pt", "--prompt", "\x1b[31m Bob")[1]
    assert r"\x1b[31m" in out and all(c.isprintable() or c == "\n" for c in out)


def test_a_terminal_that_can_not_write_a_letter_gets_its_number(whole):
    ended = script("sample.py", "--checkpoint", whole / "base.pt", "--prompt", "Zoë",
                   PYTHONIOENCODING="ascii")
    assert ended.returncode == 0 and r"Zo\xeb" in ended.stdout, ended.stderr


# -------------------------------------------------------------------------- no numbers, no signal

@pytest.mark.parametrize("flags, loop", [(["--lr", "1e30"], "base"),
                                         (["--grpo-lr", "1e30"], "justgrpo")])
def test_weights_that_explode_stop_the_run_with_step_rate_and_last_good_file(flags, loop, tmp_path):
    status, _, err = train_coin(tmp_path, *flags)
    line = err.splitlines()[-1]
    assert status == 1 and "Traceback" not in err
    assert f"after step 1 of {loop} " in line
    assert re.search(r"learning rate [\d.e+]+\).*state\.pt is good, of step 0: remove it", line)
    for path in tmp_path.glob("*.pt"):
        assert all(torch.isfinite(w).all() for w in load(path).get("model", {}).values())
    assert not (tmp_path / f"{loop}.pt").exists()


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("module, name, loop", [(train, "diffusion_loss", "base"),
                                                (grpo, "policy_losses", "justgrpo")])
def test_a_loss_that_is_no_number_stops_the_run(module, name, loop, bad, tmp_path, monkeypatch):
    real, calls = getattr(module, name), itertools.count(1)

    def wrapper(*args, **kwargs):
        result = real(*args, **kwargs)
        if next(calls) == 1:
            return result
        return result * bad if loop == "base" else (piece * bad for piece in result)
    monkeypatch.setattr(module, name, wrapper)
    status, _, err = train_coin(tmp_path)
    line = err.splitlines()[-1]
    assert status == 1 and f"after step 2 of {loop}" in line and "learning rate" in line, err


def test_fifty_steps_without_signal_are_said_and_gone_on_from(tmp_path):
    class Never(Coin):
        def reward(self, text, answer):
            return 0.0
    flags = "--grpo-steps 101 --prompts 1 --rollouts 2 --problems 1".split()
    status, out, err = train_coin(tmp_path, *flags, task=Never())
    assert status == 0, err
    assert re.findall(r"step (\d+): for 50 steps no group", out + err) == ["50", "100"]


# ---------------------------------------------------------------------------- degenerate settings

COMMON = {"samples": [1, 2, 3], "trap-problems": [1, 2], "problems": [1, 2, 5],
          "grpo-steps": [1, 6], "prompts": [1, 2], "rollouts": [2, 3, 1],
          "grpo-lr": [5e-5, 1e-9, 1, 1e6]}
OF_TRAIN = {**COMMON, "width": [8, 16], "steps": [1, 2, 21], "batch": [1, 5],
            "seed": [0, 1, -3, 10**11, 2**64], "lr": [0.006, 1e-9, 1, 1e6]}
OF_ARMS = {**COMMON, "positions": ["all", "random", "top_entropy"], "fraction": [0.25, 1e-9, 1],
           "updates-per-batch": [1, 2], "clip-low": [0.2, 1e-6, 5], "clip-high": [0.2, 9],
           "advantage": ["std", "none", "leave_one_out"],
           "grpo-schedule": ["linear", "constant"], "adam-eps": [1e-8, 1e-30, 1e30],
           "loss-norm": ["token", "sequence", "constant"],
           "rollout-block-length": [1, 7, 22, 23], "rollout-temperature": [1, 1e-6, 50]}


def walk(main, flags, values, rng):
    """Try some odd flags together: a run, or one line. Returns the status."""
    for name, choices in values.items():
        if rng.random() < 0.2:
            flags = [*flags, f"--{name}={rng.choice(choices)}"]
    with no_matplotlib():
        status, out, err = run(main, *flags, task=Coin())
    assert status in (0, 1, 2) and "Traceback" not in err, (flags, err)
    if status:
        assert "error: " in err.splitlines()[-1], (flags, err)
    if status == 2:
        assert "==" not in out and err.count("\n") == 1, (flags, err)
    if status == 1:
        assert "learning rate" in err.splitlines()[-1], (flags, err)
    return status


def test_odd_values_of_the_flags_together_work_or_are_refused_in_one_line(whole, tmp_path):
    rng, statuses = random.Random(0), []
    small = "--quick --device cpu --samples 2 --trap-problems 1 --problems 2 --grpo-steps 2".split()
    for i in range(20):
        flags = [*small, "--layers", 1, "--width", 8, "--steps", 2, "--out", tmp_path / str(i)]
        statuses.append(walk(train.main, flags, OF_TRAIN, rng))
        folder = shutil.copytree(whole, tmp_path / f"arm{i}")
        arm = rng.choice(list(arms.ARMS))
        statuses.append(walk(arms.main, [arm, *small, "--out", folder], OF_ARMS, rng))
    assert statuses.count(0) >= 8 and statuses.count(2) >= 8


def test_a_vocabulary_of_three_and_a_completion_of_one_token_go_through_all_four_acts(tmp_path):
    status, _, err = train_coin(tmp_path, task=Dot())
    assert status == 0, err
    assert load_checkpoint(tmp_path / "base.pt")[0].config.vocab_size == 3


def test_one_problem_and_k_beyond_the_length_work(whole, tmp_path):
    path = tmp_path / "one.jsonl"
    question = Toy().problem("test", 0)["question"]
    path.write_text(json.dumps({"question": question, "answer": "#### 5"}))
    for select in ("k=23", "k=1000000"):
        status, out, err = run(eval_gsm8k.main, "--checkpoint", whole / "base.pt", "--data", path,
                               "--order", "top_probability", "--select", select)
        assert status == 0 and "1 problems x 1" in out, err


def test_a_data_file_of_one_row_is_refused_and_a_batch_larger_than_the_data_works(tmp_path,
                                                                                  monkeypatch):
    monkeypatch.setattr(train, "SHAPE", dict(n_merges=60, prompt_length=40, completion_length=24))
    files = gsm8k_files(tmp_path)
    one = tmp_path / "one.jsonl"
    one.write_bytes(files[0].read_bytes().splitlines()[0])
    refused(train.main, *TINY, "--data", one, "--test", files[1], "--out", tmp_path / "out",
            about="validation")
    done(train.main, *TINY, "--data", files[0], "--test", files[1], "--batch", 200, "--prompts",
         90, "--rollouts", 2, "--out", tmp_path / "out")


# ------------------------------------------------------------------- determinism, and no surprises

def test_the_same_bytes_in_another_folder_with_another_hash_seed_locale_and_time_zone(tmp_path):
    folders = tmp_path / "a", tmp_path / "an 'odd' \"näme\" ☃ $(x)" / "b"
    for folder, environment in zip(folders, (
            dict(PYTHONHASHSEED="1", LC_ALL="C", TZ="UTC"),
            dict(PYTHONHASHSEED="2", LC_ALL="C.UTF-8", TZ="Asia/Kathmandu", LANG="de_DE.UTF-8"))):
        ended = script("train.py", *TINY, "--out", folder, **environment)
        assert ended.returncode == 0, ended.stderr
    assert digest(folders[0]) == digest(folders[1])


def test_a_relative_folder_and_a_link_to_one_are_the_folder(whole, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    assert train_coin("link/./x/../out")[0] == 0
    assert digest(tmp_path / "real" / "out") == digest(whole)
    assert {path.name for path in tmp_path.iterdir()} == {"real", "link"}


WATCH = """import sys, os
def hook(event, args):
    names = {"open": args[:1], "os.mkdir": args[:1], "os.rename": args[:2], "os.remove": args[:1]}
    if event.startswith("socket.") and event != "socket.__new__":
        print("HOOK", event, args)
    if event in names and (event != "open" or set(str(args[1])) & set("wax+")):
        print("HOOK", event, *(os.path.abspath(os.fsdecode(name)) for name in names[event]
                               if not isinstance(name, int)))
sys.dont_write_bytecode = True
sys.modules["matplotlib"] = None        # it has a cache of its own
import train, sample, eval_gsm8k
from experiments import arms
sys.addaudithook(hook)
out = sys.argv[-1]
train.main(sys.argv[1:])
arms.main(["fork", "--quick", "--grpo-steps=1", "--prompts=1", "--problems=2", "--out", out])
sample.main(["--checkpoint", out + "/base.pt"])
eval_gsm8k.main(["--checkpoint", out + "/base.pt", "--limit", "2"])
"""


def test_nothing_is_written_outside_out_and_the_network_is_not_asked(tmp_path):
    out = tmp_path / "out"
    ended = subprocess.run([sys.executable, "-c", WATCH, *TINY, "--out", str(out)], cwd=ROOT,
                           capture_output=True, text=True, timeout=100, env=ALONE)
    assert ended.returncode == 0, ended.stderr
    events = [line.split(maxsplit=2)[1:] for line in ended.stdout.splitlines() if "HOOK" in line]
    assert len(events) > 20
    paths = [path for _, *names in events for path in " ".join(names).split()]
    # Right below the temporary folder torch makes an empty one, for a compiler that is not used.
    assert not [path for path in paths if not path.startswith(str(out))
                and os.path.dirname(path) != tempfile.gettempdir()]
