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
import tracemalloc

import pytest
import tiktoken
import torch

import eval_gsm8k
import grpo
import runs
import sample
import train
from data import EOS, MASK, Task, Worksheet, make_tokenizer
from experiments import arms
from runs import FORMAT, load, save
from tests.coin import Coin, log_without_times
from tests.faults import fuzz, kills
from tests.faults.kills import digest
from tests.test_scripts import (ROOT, TINY, TINY_RL, contents, done, gsm8k_files, no_matplotlib,
                                refused, run, script)

pytestmark = pytest.mark.slow
torch.set_num_threads(1)
ALONE = {**os.environ, "OMP_NUM_THREADS": "1"}      # of a process: with two it is slower, so small


def train_coin(folder, *flags, task=None):
    """Status, stdout and stderr of a small run."""
    with no_matplotlib():
        return run(train.main, *TINY, *flags, "--out", folder, task=task or Coin())


def last_line(status, err):
    """The one line by which a run has ended, with status 1: an error in the midst of its work."""
    assert status == 1 and "Traceback" not in err, err
    line = err.splitlines()[-1]
    assert "error: " in line
    return line


@contextlib.contextmanager
def in_call(module, name, n, do):
    """do() comes before the n-th call of module.name."""
    real, calls = getattr(module, name), itertools.count(1)

    def wrapper(*args, **kwargs):
        if next(calls) == n:
            do()
        return real(*args, **kwargs)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, name, wrapper)
        yield


def ctrl_c():
    os.kill(os.getpid(), signal.SIGINT)


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
    with in_call(train, "evaluate", 2, ctrl_c):
        assert train_coin(tmp_path / "halfway")[0] == 130
    return tmp_path / "halfway"


@pytest.fixture
def gsm8k(tmp_path, monkeypatch):
    """A training file and a test file, which train.py reads onto a small canvas."""
    monkeypatch.setattr(train, "SHAPE", dict(n_merges=60, prompt_length=40, completion_length=24))
    return gsm8k_files(tmp_path)


# -------------------------------------------------------------------------------- kill and resume

def test_killed_at_random_moments_and_resumed_a_run_leaves_the_same_bytes():
    rows = kills.main(["--tries", "6", "--how", "mixed", "--seed", "5"])
    assert sum(row["status"] != 0 for row in rows) >= 6
    assert not any(row["differ"] for row in rows)


@pytest.mark.parametrize("module, name, n, stage", [
    (train, "begin", 1, "all"), (train, "diffusion_loss", 1, "all"),
    (train, "diffusion_loss", 3, "all"), (train, "probe", 1, "all"), (train, "evaluate", 1, "all"),
    (train, "evaluate", 7, "all"), (grpo, "policy_losses", 1, "all"),
    (grpo, "policy_losses", 2, "all"), (train, "compare", 1, "all"), (train, "evaluate", 26, "all"),
    (train, "evaluate", 30, "all"), (grpo, "policy_losses", 3, "all"),
    (train, "evaluate", 44, "all"), (train, "compare", 2, "all"), (train, "evaluate", 49, "all"),
    (grpo, "policy_losses", 2, "grpo"), (grpo, "policy_losses", 2, "freedom")], ids=lambda x: getattr(x, "__name__", str(x)))
def test_stopped_anywhere_and_resumed_a_run_leaves_the_same_bytes(module, name, n, stage, whole,
                                                                   tmp_path):
    folder, expected = tmp_path / "out", digest(whole)
    if stage != "all":      # an act done again has its rows at the end
        again = shutil.copytree(whole, tmp_path / "again")
        assert train_coin(again, "--stage", stage)[0] == 0
        shutil.copytree(whole, folder)
        expected = digest(again)
    with in_call(module, name, n, ctrl_c):
        status, out, err = train_coin(folder, "--stage", stage)
    assert status == 130 and out.endswith(" --resume\n"), (out, err)
    status, _, err = train_coin(folder, "--stage", stage, "--resume")
    assert status == 0, err
    assert digest(folder) == expected
    keys = [(row["stage"], row["step"]) for row in log_without_times(folder)]
    assert len(set(keys)) == len(keys)


def test_stopped_when_all_is_done_a_run_just_ends(whole, tmp_path):
    with in_call(train, "draw_progress", 1, ctrl_c):
        assert train_coin(tmp_path)[0] == 0
    assert digest(tmp_path) == digest(whole)


def test_resume_begins_where_nothing_is_and_does_nothing_where_all_is_done(whole, tmp_path):
    status, out, _ = train_coin(tmp_path, "--resume")
    assert status == 0 and "nothing to go on from" in out
    assert digest(tmp_path) == digest(whole)
    before = contents(tmp_path)
    status, out, _ = train_coin(tmp_path, "--resume")
    assert status == 0 and "finished" in out and "Act" not in out
    assert contents(tmp_path) == before


class Other(Coin):
    name = "other"


@pytest.mark.parametrize("flags, task, about", [
    ("", Coin(), ["unfinished", "--resume"]),
    ("--resume --grpo-lr 0.01", Coin(), ["grpo_lr", "0.03", "0.01"]),
    ("--resume --seed 1", Coin(), ["seed"]), ("--resume --steps 4", Coin(), ["steps", "6", "4"]),
    ("--resume --stage pretrain", Coin(), ["stage"]),
    ("--resume --dtype bfloat16", Coin(), ["dtype"]), ("--resume", Other(), ["task"])])
def test_an_unfinished_run_goes_on_only_under_its_own_settings(flags, task, about, halfway):
    before = contents(halfway)
    refused(train.main, *TINY, *flags.split(), "--out", halfway, task=task, about=about)
    assert contents(halfway) == before


def test_a_resume_on_another_base_is_refused(whole, tmp_path):
    folder = shutil.copytree(whole, tmp_path / "out")
    with in_call(train, "evaluate", 1, ctrl_c):
        assert train_coin(folder, "--stage", "grpo")[0] == 130
    shutil.copy(whole / "justgrpo.pt", folder / "base.pt")
    refused(train.main, *TINY, "--stage", "grpo", "--out", folder, "--resume", task=Coin(),
            about="files")


def test_a_resume_on_other_data_is_refused_wherever_the_file_lies(gsm8k, tmp_path):
    flags = ["--stage", "pretrain", "--out", tmp_path / "out", "--test", gsm8k[1]]
    with in_call(train, "diffusion_loss", 2, ctrl_c):
        assert run(train.main, *TINY, *flags, "--data", gsm8k[0])[0] == 130
    moved = shutil.copy(gsm8k[0], tmp_path / "moved.jsonl")
    with open(gsm8k[1], "ab") as file:
        file.write(b'{"question": "How many?", "answer": "#### 3"}')
    refused(train.main, *TINY, *flags, "--data", moved, "--resume", about="files")


@pytest.mark.parametrize("damage", fuzz.CHANCE, ids=lambda damage: damage.__name__)
def test_a_damaged_state_is_refused_by_name_and_left_alone(damage, halfway):
    rng, path = random.Random(0), halfway / "state.pt"
    good = path.read_bytes()
    for _ in range(20):
        path.write_bytes(damage(rng, good))
        before = contents(halfway)
        if path.read_bytes() != good:
            for flags in ([], ["--resume"]):
                refused(train.main, *TINY, "--out", halfway, *flags, task=Coin(),
                        about=["state.pt", "out of the way"])
        assert contents(halfway) == before


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
    for flags in ([], ["--resume"]):
        refused(train.main, *kills.FLAGS, "--out", out, *flags, about=["another run", "--out"])
    shutil.copy(whole / "base.pt", out)     # (a new run has moved the old one away)
    refused(arms.main, "lcr", *TINY_RL, "--out", out, task=Coin(), about="another run")
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
        if n <= 4:      # the state and three tables, before the work
            refused(train.main, *TINY, "--out", tmp_path, task=Coin(), about=os.strerror(number))
        else:
            status, _, err = train_coin(tmp_path)
            assert os.strerror(number) in last_line(status, err)
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
    assert "Act 2" in out and "No space left" in last_line(status, err)
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
    line = last_line(ended.returncode, ended.stderr)
    assert re.search("File too large.*--resume", line)
    assert not list((tmp_path / "out").glob("*.tmp"))


def test_a_folder_removed_during_the_run_is_one_line(tmp_path):
    folder = tmp_path / "out"
    with in_call(train, "evaluate", 2, lambda: shutil.rmtree(folder)):
        status, _, err = train_coin(folder)
    assert "No such file" in last_line(status, err)
    assert not folder.exists()


def test_an_evaluation_keeps_the_old_rows_until_the_new_are_whole(whole, tmp_path):
    path = tmp_path / "rows.csv"
    columns = eval_gsm8k.RESULT_COLUMNS
    path.write_text(",".join(columns) + "\n" + "," * (len(columns) - 1) + "\n")
    earlier = path.read_bytes()

    def full():
        raise OSError(28, "No space left on device")
    # (The first write only tries whether the file can be written.)
    with in_call(os, "fsync", 2, full):
        status, out, err = run(eval_gsm8k.main, "--checkpoint", whole / "base.pt", "--limit", 2,
                               "--csv", path)
    assert "No space" in last_line(status, err) and "pass@1" in out
    assert path.read_bytes() == earlier and len(contents(tmp_path)) == 1


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
    files = [tmp_path / "pipe", "/dev/zero", tmp_path, tmp_path / "large", tmp_path / "signed"]
    for path in [*files, "/dev/null"]:
        for main in (sample.main, eval_gsm8k.main):
            refused(main, "--checkpoint", path, about=str(path))
    for path in files:
        refused(sample.main, "--checkpoint", whole / "base.pt", "--data", path, about=str(path))
    refused(eval_gsm8k.main, "--checkpoint", whole / "base.pt", "--csv", tmp_path / "pipe",
            about="pipe is no regular file")
    assert (tmp_path / "pipe").is_fifo()


@pytest.mark.parametrize("part, sizes", [
    ("config", dict(n_layer=10**12)), ("config", dict(n_embd=10**9, n_hidden=10**9)),
    ("config", dict(norm_eps=-0.5)), ("config", dict(max_length=10**9)),
    ("task", dict(n_lines=10**8)), ("task", dict(largest=10**8))], ids=str)
def test_forged_sizes_are_refused_before_they_take_time_or_memory(part, sizes, whole, tmp_path):
    forged = load(whole / "base.pt")
    forged[part].update(sizes)
    save(tmp_path / "forged.pt", forged)
    tracemalloc.start()
    refused(sample.main, "--checkpoint", tmp_path / "forged.pt", about="damaged")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 10**8


class Dot(Task):
    """The smallest task: one token, one place, and MASK and end-of-text."""
    name, prompt_length, completion_length = "dot", 2, 1
    tokenizer = tiktoken.Encoding("dot", pat_str=r"[\s\S]", mergeable_ranks={b".": 0},
                                  special_tokens={MASK: 1, EOS: 2})

    def problem(self, split, index):
        question = "." * ["train", "validation", "test"].index(split)
        return {"question": question, "solution": ".", "answer": "."}

    def is_right(self, text, answer):
        return text == answer


class Escape(Dot):
    prompt_length, completion_length = 20, 20
    tokenizer = make_tokenizer([], r"[\s\S]")

    def problem(self, split, index):
        return {"question": f"\x1b]0;title\x07{split}", "solution": ".\x1b[31m",
                "answer": "\x9b31m"}

    def is_right(self, text, answer):
        return text == ".\x1b[31m"


def test_no_program_prints_an_escape_sequence_of_a_text(whole, tmp_path):
    status, out, _ = train_coin(tmp_path / "out", task=Escape())
    assert status == 0
    assert r"\x1b]0;title\x07" in out and r".\x1b[31m" in out and r"answering \x9b31m" in out
    out += done(sample.main, "--checkpoint", whole / "base.pt", "--prompt", "\x1b[32m Bob")
    assert r"\x1b[32m" in out and all(c.isprintable() or c == "\n" for c in out)


def test_a_terminal_that_can_not_write_a_letter_gets_its_number(whole):
    ended = script("sample.py", "--checkpoint", whole / "base.pt", "--prompt", "Zoë",
                   PYTHONIOENCODING="ascii")
    assert ended.returncode == 0 and r"Zo\xeb" in ended.stdout, ended.stderr


# -------------------------------------------------------------------------- no numbers, no signal

def spoilt(module, name, bad, patch):
    """From its second call on, module.name gives losses that are no numbers."""
    real, calls = getattr(module, name), itertools.count(1)

    def wrapper(*args, **kwargs):
        factor = 1.0 if next(calls) == 1 else bad
        result = real(*args, **kwargs)
        if module is train:
            return result * factor
        return (piece * factor for piece in result)
    patch.setattr(module, name, wrapper)


@pytest.mark.parametrize("loop, module, name, rate", [
    ("base", train, "diffusion_loss", "--lr"), ("justgrpo", grpo, "policy_losses", "--grpo-lr")])
@pytest.mark.parametrize("bad", ["1e30", "nan", "inf"])
def test_what_is_no_number_stops_the_run_with_step_rate_and_last_good_file(
        loop, module, name, rate, bad, tmp_path, monkeypatch):
    flags, step = [rate, bad], 1        # weights explode in the first step
    if bad != "1e30":
        flags, step = [], 2
        spoilt(module, name, float(bad), monkeypatch)
    status, _, err = train_coin(tmp_path, *flags)
    line = last_line(status, err)
    assert f" step {step} of {loop}: a weight is no number, or above 1e4 " in line
    assert re.search(r"learning rate [\d.e+-]+\).*state\.pt is good, of step 0: remove it", line)
    for path in tmp_path.glob("*.pt"):
        assert all(weight.isfinite().all() for weight in load(path).get("model", {}).values())
    assert not (tmp_path / f"{loop}.pt").exists()


def test_fifty_steps_without_signal_are_said_and_gone_on_from(tmp_path):
    class Never(Coin):
        def judge(self, text, answer):
            return False
    flags = "--grpo-steps 101 --prompts 1 --rollouts 2 --problems 1".split()
    status, out, err = train_coin(tmp_path, *flags, task=Never())
    assert status == 0, err
    assert re.findall(r"step (\d+): for 50 steps no group", out + err
                      ) == ["50", "100"] * 2        # in act 4, and in act 5


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
    if status == 1:
        assert "learning rate" in last_line(status, err), (flags, err)
    if status == 2:
        assert "==" not in out and err.count("\n") == 1 and "error: " in err, (flags, err)
    return status


def test_odd_values_of_the_flags_together_work_or_are_refused_in_one_line(whole, tmp_path):
    rng, statuses = random.Random(0), []
    small = "--quick --device cpu --samples 2 --trap-problems 1 --problems 2 --grpo-steps 2".split()
    for number in range(20):
        flags = [*small, "--layers", 1, "--width", 8, "--steps", 2, "--out", tmp_path / str(number)]
        statuses.append(walk(train.main, flags, OF_TRAIN, rng))
        folder = shutil.copytree(whole, tmp_path / f"arm{number}")
        arm = rng.choice(list(arms.ARMS))
        statuses.append(walk(arms.main, [arm, *small, "--out", folder], OF_ARMS, rng))
    assert statuses.count(0) >= 8 and statuses.count(2) >= 8


def test_a_vocabulary_of_three_and_a_completion_of_one_token_go_through_all_acts(tmp_path):
    status, _, err = train_coin(tmp_path, task=Dot())
    assert status == 0, err
    assert load(tmp_path / "base.pt")["config"]["vocab_size"] == 3


@pytest.mark.parametrize("select", ["k=23", "k=1000000"])
def test_one_problem_and_k_beyond_the_length_work(select, whole, tmp_path):
    path = tmp_path / "one.jsonl"
    question = Worksheet().problem("test", 0)["question"]
    path.write_text(json.dumps({"question": question, "answer": "#### 5"}))
    out = done(eval_gsm8k.main, "--checkpoint", whole / "base.pt", "--data", path,
               "--order", "top_probability", "--select", select)
    assert "1 problems x 1" in out


def test_a_batch_larger_than_the_data_works(gsm8k, tmp_path):
    done(train.main, *TINY, "--data", gsm8k[0], "--test", gsm8k[1], "--batch", 200, "--prompts",
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
