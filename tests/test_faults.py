"""Nothing is lost: kills, signals, full disks, damaged files, odd settings, determinism.

    python -m pytest tests/test_faults.py

tests/README.md has the table of all faults. kills.py and fuzz.py do the same for longer."""
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
import sample
import train
from data import EOS, MASK, Task, Toy, make_tokenizer, plain
from grpo import ARMS
from model import FORMAT, load, load_checkpoint, save
from tests import fuzz, kills
from tests.kills import Coin, digest, log_without_times
from tests.test_scripts import (ROOT, TINY, contents, gsm8k_files, no_matplotlib, refused, run,
                                script)

torch.set_num_threads(1)
ALONE = {**os.environ, "OMP_NUM_THREADS": "1"}      # of a process: with two it is slower, so small


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run left alone: its folder. Its state was saved between any two steps."""
    folder = tmp_path_factory.mktemp("whole") / "out"
    with no_matplotlib(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "SAVE_EVERY", 0)
        status, _, err = run(train.main, *TINY, "--out", folder, task=Coin())
    assert status == 0, err
    return folder


@pytest.fixture
def halfway(tmp_path, monkeypatch):
    """A run that was stopped in the middle of act 3: its folder."""
    folder = tmp_path / "halfway"
    stopped_after(monkeypatch, "evaluate", 2)
    with no_matplotlib():
        assert run(train.main, *TINY, "--out", folder, task=Coin())[0] == 130
    monkeypatch.undo()
    return folder


def stopped_after(monkeypatch, name, n):
    """train.name asks for a stop in its n-th call, as a signal's handler would."""
    real, calls = getattr(train, name), itertools.count(1)

    def wrapper(*args, **kwargs):
        if next(calls) == n:
            train.STOP.append(signal.SIGINT)
        return real(*args, **kwargs)
    monkeypatch.setattr(train, name, wrapper)


# -------------------------------------------------------------------------------- kill and resume

def test_killed_at_random_moments_and_resumed_a_run_leaves_the_same_bytes():
    rows = kills.main(["--tries", "3", "--how", "mixed", "--seed", "5"])
    assert sum(row["status"] != 0 for row in rows) >= 3 and not any(row["differ"] for row in rows)


@pytest.mark.parametrize("name, n", [("diffusion_loss", 1), ("diffusion_loss", 3), ("probe", 1),
                                     ("evaluate", 1), ("evaluate", 7), ("rollouts", 1),
                                     ("grpo_loss", 1), ("grpo_loss", 2), ("compare", 1),
                                     ("evaluate", 30), ("summarize", 1)])
def test_stopped_anywhere_and_resumed_a_run_leaves_the_same_bytes(name, n, whole, tmp_path,
                                                                   monkeypatch):
    stopped_after(monkeypatch, name, n)
    folder = tmp_path / "out"
    with no_matplotlib():
        status, out, err = run(train.main, *TINY, "--out", folder, task=Coin())
        assert status == (130 if name != "summarize" else 0), err   # then nothing is left to stop
        if status:
            assert "--resume" in out.splitlines()[-1], (out, err)
            monkeypatch.undo()
            status, _, err = run(train.main, *TINY, "--out", folder, "--resume", task=Coin())
    assert status == 0, err
    assert digest(folder) == digest(whole)
    keys = [(r["stage"], r["step"]) for r in log_without_times(folder)]
    assert len(set(keys)) == len(keys)


def test_a_later_stage_resumes_too_and_keeps_the_rows_of_the_others(whole, tmp_path, monkeypatch):
    flags = [*TINY, "--stage", "grpo", "--arm", "confidence"]
    folders = [shutil.copytree(whole, tmp_path / name) for name in ("alone", "stopped")]
    with no_matplotlib():
        assert run(train.main, *flags, "--out", folders[0], task=Coin())[0] == 0
        stopped_after(monkeypatch, "grpo_loss", 2)
        assert run(train.main, *flags, "--out", folders[1], task=Coin())[0] == 130
        monkeypatch.undo()
        assert run(train.main, *flags, "--out", folders[1], "--resume", task=Coin())[0] == 0
    assert digest(folders[0]) == digest(folders[1]) != digest(whole)
    assert (folders[0] / "confidence.pt").read_bytes() == (
        folders[1] / "confidence.pt").read_bytes()


def test_a_finished_run_resumes_to_nothing_at_once(whole):
    before = contents(whole)
    status, out, _ = run(train.main, *TINY, "--out", whole, "--resume", task=Coin())
    assert status == 0 and "finished" in out and "Act" not in out and contents(whole) == before


def test_resume_where_nothing_is_begins_and_says_so(tmp_path, whole):
    with no_matplotlib():
        status, out, _ = run(train.main, *TINY, "--out", tmp_path, "--resume", task=Coin())
    assert status == 0 and "nothing to go on from" in out
    assert digest(tmp_path) == digest(whole)


def test_an_unfinished_run_is_not_overwritten_without_a_word(halfway):
    before = contents(halfway)
    refused(train.main, *TINY, "--out", halfway, task=Coin(), about=["unfinished", "--resume"])
    assert contents(halfway) == before


@pytest.mark.parametrize("flags, about", [
    (["--grpo-lr", "0.01"], ["grpo_lr", "0.03", "0.01"]), (["--seed", "1"], ["seed"]),
    (["--steps", "4"], ["steps", "3", "4"]), (["--stage", "pretrain"], ["stage"]),
    (["--arm", "random"], ["arm", "justgrpo", "random"]), (["--dtype", "bfloat16"], ["dtype"])])
def test_a_resume_under_other_settings_is_refused_and_names_the_first(flags, about, halfway):
    before = contents(halfway)
    refused(train.main, *TINY, *flags, "--out", halfway, "--resume", task=Coin(), about=about)
    assert contents(halfway) == before


def test_a_resume_with_another_task_thread_count_or_torch_is_refused(halfway, monkeypatch):
    flags = [*TINY, "--out", halfway, "--resume"]
    refused(train.main, *flags, task=type("Other", (Coin,), {"name": "other"})(), about="task")
    monkeypatch.setattr(torch, "get_num_threads", lambda: 7)
    refused(train.main, *flags, task=Coin(), about=["threads", "7"])
    monkeypatch.undo()
    monkeypatch.setattr(torch, "__version__", "9.9")
    refused(train.main, *flags, task=Coin(), about=["torch", "9.9"])


def test_a_resume_on_another_base_is_refused(whole, tmp_path, monkeypatch):
    flags = [*TINY, "--stage", "grpo", "--out", shutil.copytree(whole, tmp_path / "out")]
    stopped_after(monkeypatch, "evaluate", 1)
    with no_matplotlib():
        assert run(train.main, *flags, task=Coin())[0] == 130
    monkeypatch.undo()
    shutil.copy(whole / "justgrpo.pt", tmp_path / "out" / "base.pt")
    refused(train.main, *flags, "--resume", task=Coin(), about="files")


def test_a_resume_on_other_data_is_refused_wherever_the_file_lies(tmp_path, monkeypatch):
    files = gsm8k_files(tmp_path)
    monkeypatch.setattr(train, "SHAPE", dict(n_merges=60, prompt_length=40, completion_length=24))
    flags = [*TINY, "--stage", "pretrain", "--out", tmp_path / "out"]
    with no_matplotlib(), monkeypatch.context() as patch:
        stopped_after(patch, "diffusion_loss", 2)
        assert run(train.main, *flags, "--data", files[0], "--test", files[1])[0] == 130
    moved = shutil.copy(files[0], tmp_path / "moved.jsonl")
    files[1].write_bytes(files[1].read_bytes() + b'{"question": "How many?", "answer": "#### 3"}')
    refused(train.main, *flags, "--data", moved, "--test", files[1], "--resume", about="files")


@pytest.mark.parametrize("how", [kind.__name__ for kind in fuzz.CHANCE])
def test_a_damaged_state_is_refused_by_name_and_left_alone(how, halfway):
    rng, path = random.Random(0), halfway / "state.pt"
    good = path.read_bytes()
    for _ in range(20):
        data = getattr(fuzz, how)(rng, good)
        if data != good:
            path.write_bytes(data)
            before = contents(halfway)
            for flags in ([], ["--resume"]):
                refused(train.main, *TINY, "--out", halfway, *flags, task=Coin(),
                        about=["state.pt", "out of the way"])
            assert contents(halfway) == before


def test_a_checkpoint_in_the_place_of_the_state_is_refused(whole, tmp_path):
    shutil.copy(whole / "base.pt", tmp_path / "state.pt")
    for flags in ([], ["--resume"]):
        refused(train.main, *TINY, "--out", tmp_path, *flags, task=Coin(), about="state.pt")


def test_a_stop_before_the_first_step_says_how_to_go_on_too(whole, tmp_path, monkeypatch):
    stopped_after(monkeypatch, "begin", 1)
    status, out, _ = run(train.main, *TINY, "--out", tmp_path, task=Coin())
    assert status == 130 and out.endswith(" --resume\n") and "Act" not in out
    monkeypatch.undo()
    with no_matplotlib():
        assert run(train.main, *TINY, "--out", tmp_path, "--resume", task=Coin())[0] == 0
    assert digest(tmp_path) == digest(whole)


def test_what_a_kill_left_half_written_is_cleared_away(halfway):
    (halfway / "log.csv.123.tmp").write_bytes(b"half")
    (halfway / "mine.tmp").write_bytes(b"somebody's")
    with no_matplotlib():
        assert run(train.main, *TINY, "--out", halfway, "--resume", task=Coin())[0] == 0
    names = {p.name for p in halfway.iterdir()}
    assert "mine.tmp" in names and "log.csv.123.tmp" not in names


# ---------------------------------------------------------------------------------------- signals

def child(out):
    """kills.py's run in a process, but endless, and some steps into it."""
    process = kills.start(out, "--steps", "100000")
    while process.poll() is None:
        time.sleep(0.1)
        with contextlib.suppress(OSError, KeyError):
            if load(out / "state.pt")["loops"]["base"]["step"] > 0:
                return process
    raise AssertionError(process.communicate())


@pytest.mark.parametrize("name, status", [("int", 130), ("term", 143)])
def test_a_signal_ends_the_step_saves_and_says_how_to_go_on(name, status, tmp_path):
    process = child(tmp_path / "out")
    process.send_signal(kills.SIGNALS[name])
    out = process.communicate(timeout=60)[0].decode()
    assert process.returncode == status and "Traceback" not in out
    assert out.splitlines()[-1].startswith("stopped; go on with the same flags and --resume: ")
    assert out.splitlines()[-1].endswith(" --resume")
    assert load(tmp_path / "out" / "state.pt")["loops"]["base"]["step"] > 0


def test_a_second_signal_ends_at_once_and_nothing_is_damaged(tmp_path, monkeypatch):
    # As the handler does: the first is remembered, the second leaves by os._exit.
    left = []
    monkeypatch.setattr(os, "_exit", left.append)
    monkeypatch.setattr(train, "STOP", [])
    train.stop(signal.SIGINT, None)
    assert not left and train.STOP == [signal.SIGINT]
    train.stop(signal.SIGTERM, None)
    assert left == [143]
    process = child(tmp_path / "out")
    for _ in range(2):
        process.send_signal(signal.SIGINT)
        time.sleep(0.001)
    assert process.wait(60) == 130
    process.stdout.close()
    load(tmp_path / "out" / "state.pt")


def test_the_handlers_of_whoever_calls_main_are_put_back(tmp_path):
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    refused(train.main, *TINY, "--width", "3", "--out", tmp_path)
    assert before == (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM))


# --------------------------------------------------------------------------- the disk, the folder

def test_two_runs_into_one_folder_the_second_is_refused(tmp_path):
    out = tmp_path / "out"
    process = child(out)
    refused(train.main, *kills.FLAGS, "--out", out, about=["another run", "--out"])
    refused(train.main, *kills.FLAGS, "--out", out, "--resume", about="another run")
    process.kill()
    process.communicate()
    status, _, err = run(train.main, *kills.FLAGS, "--steps", "100000", "--stage", "trap",
                         "--out", out)
    assert status == 2 and "base.pt" in err     # the lock went with its holder


@pytest.mark.parametrize("number", [28, 30, 122], ids=["full", "read-only", "quota"])
def test_a_disk_that_refuses_the_nth_write_is_one_line_and_a_resume_goes_on(number, whole,
                                                                            tmp_path, monkeypatch):
    for n in (1, 2, 5, 17, 40, 90):
        folder, calls, real = tmp_path / str(n), itertools.count(1), os.fsync
        with no_matplotlib(), monkeypatch.context() as patch:
            patch.setattr(train, "SAVE_EVERY", 0)

            def fsync(file):
                if next(calls) >= n:
                    raise OSError(number, os.strerror(number))
                real(file)
            patch.setattr(os, "fsync", fsync)
            status, out, err = run(train.main, *TINY, "--out", folder, task=Coin())
        assert status == (2 if "Act 1" not in out else 1), (n, status, err)
        line = err.splitlines()[-1]
        assert "error: " in line and os.strerror(number) in line and "Traceback" not in err
        assert not list(folder.glob("*.tmp"))
        for path in folder.glob("*.pt"):
            load(path)
        with no_matplotlib():
            assert run(train.main, *TINY, "--out", folder, "--resume", task=Coin())[0] == 0
        assert digest(folder) == digest(whole)


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
    flags = [*TINY, "--out", disk / "out"]
    with no_matplotlib():
        status, out, err = run(train.main, *flags, task=Coin())
        assert status == 1 and "Act 2" in out and "Traceback" not in err
        assert "No space left" in err.splitlines()[-1]
        load(disk / "out" / "state.pt")
        assert not list((disk / "out").glob("*.tmp"))
        assert mount("-o", "remount,ro,size=9m", str(disk))
        refused(train.main, *flags, "--resume", task=Coin(), about="Read-only")
        refused(train.main, *TINY, "--out", disk / "other", task=Coin(), about="Read-only")
        refused(eval_gsm8k.main, "--checkpoint", whole / "base.pt", "--csv", disk / "x.csv",
                about="Read-only")
        assert mount("-o", "remount,rw", str(disk))
        assert run(train.main, *flags, "--resume", task=Coin())[0] == 0
    assert digest(disk / "out") == digest(whole)


def test_a_real_limit_on_the_size_of_a_file_is_one_line(tmp_path):
    code = ("import resource, sys, train\n"
            "resource.setrlimit(resource.RLIMIT_FSIZE, (60000, 60000))\ntrain.main(sys.argv[1:])")
    done = subprocess.run([sys.executable, "-c", code, *TINY, "--out", tmp_path / "out"], cwd=ROOT,
                          capture_output=True, text=True, timeout=100, env=ALONE)
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
    assert re.search(r"error: .*File too large.*--resume.*\n$", done.stderr), done.stderr
    assert not list((tmp_path / "out").glob("*.tmp"))


def test_a_folder_removed_during_the_run_is_one_line(tmp_path, monkeypatch):
    folder = tmp_path / "out"
    monkeypatch.setattr(train, "trap", lambda *_: shutil.rmtree(folder))
    status, _, err = run(train.main, *TINY, "--out", folder, task=Coin())
    assert status == 1 and "No such file" in err.splitlines()[-1] and "Traceback" not in err
    assert not folder.exists()


def test_an_evaluation_keeps_the_old_rows_until_the_new_are_whole(whole, tmp_path, monkeypatch):
    path = tmp_path / "rows.csv"
    path.write_text("earlier\n")
    flags = ["--checkpoint", whole / "base.pt", "--limit", 2, "--csv", path]
    with monkeypatch.context() as patch:
        patch.setattr(eval_gsm8k, "evaluate", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run(eval_gsm8k.main, *flags)
    assert path.read_text() == "earlier\n"
    with monkeypatch.context() as patch:    # the disk is full when it is done
        def full(*_):
            raise OSError(28, "No space left on device")
        patch.setattr(eval_gsm8k, "write_csv", full)
        status, out, err = run(eval_gsm8k.main, *flags)
    assert status == 1 and "No space" in err.splitlines()[-1] and "pass@1" in out
    assert path.read_text() == "earlier\n" and len(contents(tmp_path)) == 1
    refused(eval_gsm8k.main, *flags[:-1], "/dev/null", about="/dev/null")
    assert not os.path.isfile("/dev/null")


def test_a_link_stays_a_link(whole, tmp_path):
    real, link = tmp_path / "real.csv", tmp_path / "link.csv"
    real.touch()
    link.symlink_to(real)
    flags = ["--checkpoint", whole / "base.pt", "--limit", 2, "--csv", link]
    assert run(eval_gsm8k.main, *flags)[0] == 0
    assert link.is_symlink() and real.read_text().startswith("stage,")


def test_an_experiment_without_room_is_one_line_and_keeps_its_rows(tmp_path):
    code = ("import itertools, os, sys\nfrom experiments import rows, rl\n"
            "args = rows.parse_flags('x', 'y', ['--csv', sys.argv[1]])\nreal, n = os.fsync, [0]\n"
            "def fsync(file):\n"
            "    n[0] += 1\n"
            "    if n[0] > 2: raise OSError(28, 'No space left on device')\n"
            "    real(file)\n"
            "os.fsync = fsync\n"
            "rl.gather(args, ['a', 'b'], [{'a': i} for i in range(5)], lambda cell: {'b': 7})\n")
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "rows.csv"], cwd=ROOT, text=True,
                          capture_output=True, timeout=100)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "No space left" in done.stderr.splitlines()[-1]
    assert (tmp_path / "rows.csv").read_text() == "a,b\n0,7\n1,7\n"
    assert len(contents(tmp_path)) == 1


# ---------------------------------------------------------------------------- damaged and hostile

def test_2000_damaged_and_hostile_files_give_one_line_or_the_right_thing():
    done = subprocess.run([sys.executable, "tests/fuzz.py"], cwd=ROOT, capture_output=True,
                          text=True, timeout=540)
    assert done.returncode == 0, done.stderr[-3000:]
    rows = re.findall(r"^what (.+) tries (\d+) refused (\d+) equal", done.stdout, re.M)
    assert sum(int(tries) for _, tries, _ in rows) == 2000
    assert len(rows) == 15 and all(int(n) > 0 for _, _, n in rows)


def test_a_pipe_or_an_endless_file_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", "/dev/zero", "/dev/null", tmp_path):
        for main in (sample.main, eval_gsm8k.main):
            refused(main, "--checkpoint", path, about=str(path))
    for start in (b"", FORMAT):
        with open(tmp_path / "large", "wb") as file:
            file.write(start)
            file.truncate(2**36)
        refused(sample.main, "--checkpoint", tmp_path / "large", about="large")


def test_forged_sizes_are_refused_before_they_take_time_or_memory(whole, tmp_path):
    path, good = tmp_path / "forged.pt", load(whole / "base.pt")
    V, n = good["config"]["vocab_size"], 30000
    size = 2 * V * 2 + 2 + n * (4 * 2 * 2 + 3 * 2 + 2 * 2)
    for config, weights in (
            (dict(n_layer=n, n_embd=2, n_head=1, n_hidden=1), {"x": torch.zeros(size)}),
            (dict(norm_eps=-0.5), good["model"]), (dict(max_length=10**9), good["model"])):
        save(path, {**good, "config": {**good["config"], **config}, "model": weights})
        start = time.time()
        refused(sample.main, "--checkpoint", path, about="forged.pt")
        assert time.time() - start < 2


def test_a_state_that_lacks_something_is_refused(halfway):
    good = load(halfway / "state.pt")
    for name in good:
        save(halfway / "state.pt", {k: v for k, v in good.items() if k != name})
        refused(train.main, *TINY, "--out", halfway, "--resume", task=Coin(), about="state.pt")


def test_keys_of_a_task_that_look_like_numbers_stay_texts(tmp_path, monkeypatch):
    class Levels(Coin):
        def describe(self):
            return {**super().describe(), "levels": {"1": 2, "\u00b2": {}}}
    stopped_after(monkeypatch, "evaluate", 1)
    with no_matplotlib():
        assert run(train.main, *TINY, "--out", tmp_path, task=Levels())[0] == 130
        monkeypatch.undo()
        assert run(train.main, *TINY, "--out", tmp_path, "--resume", task=Levels())[0] == 0


@pytest.mark.parametrize("seed", [2**64, -2**63 - 1, 10**30])
def test_a_seed_beyond_64_bits_is_refused_before_the_work(seed, tmp_path):
    out, _ = refused(train.main, *TINY, "--seed", seed, "--out", tmp_path / "out")
    assert out == "" and not (tmp_path / "out").exists()


def test_a_broken_summary_of_an_earlier_stage_does_not_lose_the_work(whole, tmp_path):
    folder = shutil.copytree(whole, tmp_path / "out")
    for text in (b"{", b"{}", b"[1]", b"\xff"):
        (folder / "summary.json").write_bytes(text)
        with no_matplotlib():
            assert run(train.main, *TINY, "--stage", "trap", "--out", folder, task=Coin())[0] == 0
        assert json.loads((folder / "summary.json").read_bytes())["seconds"]


def test_a_data_file_that_is_none_or_is_huge_is_refused(whole, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with open(tmp_path / "large", "wb") as file:
        file.truncate(2**36)
    for path in (tmp_path / "pipe", "/dev/zero", tmp_path / "large", tmp_path):
        refused(sample.main, "--checkpoint", whole / "base.pt", "--data", path, about=str(path))


def test_a_swapped_pair_of_tensors_is_found_although_everything_fits(whole, tmp_path):
    path, saved = tmp_path / "x.pt", load(whole / "base.pt")
    names = "blocks.0.k_proj.weight", "blocks.0.v_proj.weight"
    a, b = (saved["model"][name].numpy().tobytes() for name in names)
    data = (whole / "base.pt").read_bytes()
    i, j = data.index(a), data.index(b)
    assert len(a) == len(b) and a != b
    swapped = bytearray(data)
    swapped[i:i + len(a)], swapped[j:j + len(b)] = b, a
    path.write_bytes(swapped)
    refused(sample.main, "--checkpoint", path, about=["x.pt", "SHA-256"])


def test_plain_leaves_no_character_that_a_terminal_obeys():
    assert plain("a é 数 😀") == "a é 数 😀"
    assert plain("\x1b[31m\n\u202e\ud800\x85") == r"\x1b[31m\n\u202e\ud800\x85"
    for code in [*range(0x300), *range(0x2000, 0x2100), 0xfeff, 0xd800, 0xe0001]:
        text = plain(chr(code))
        assert text.isprintable() and text


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
    def problem(self, split, index):
        return {"question": "\x1b]0;title\x07", "solution": ".\x1b[31m", "answer": "\x9b31m"}
    prompt_length, completion_length = 20, 20
    tokenizer = make_tokenizer([], r"[\s\S]")


def test_no_script_prints_an_escape_sequence_of_a_text(whole, tmp_path):
    with no_matplotlib():
        status, out, _ = run(train.main, *TINY, "--out", tmp_path / "out", task=Escape())
    assert status == 0
    assert r"\x1b]0;title\x07" in out and r".\x1b[31m" in out and r"answering \x9b31m" in out
    assert all(c.isprintable() or c == "\n" for c in out)
    out = run(sample.main, "--checkpoint", whole / "base.pt", "--prompt", "\x1b[31m Bob")[1]
    assert r"\x1b[31m" in out and all(c.isprintable() or c == "\n" for c in out)


def test_a_terminal_that_can_not_write_a_letter_gets_its_number(whole):
    done = script("sample.py", "--checkpoint", whole / "base.pt", "--prompt", "Zoë",
                  PYTHONIOENCODING="ascii")
    assert done.returncode == 0 and r"Zo\xeb" in done.stdout, done.stderr


# -------------------------------------------------------------------------- no numbers, no signal

@pytest.mark.parametrize("flags, loop", [(["--lr", "1e30"], "base"),
                                         (["--grpo-lr", "1e30"], "justgrpo")])
def test_weights_that_explode_stop_the_run_with_step_rate_and_last_good_file(flags, loop, tmp_path):
    status, _, err = run(train.main, *TINY, *flags, "--out", tmp_path, task=Coin())
    line = err.splitlines()[-1]
    assert status == 1 and "Traceback" not in err
    assert f" in step 1 of {loop} " in line
    assert re.search(r"learning rate [\d.e+]+\).*state\.pt is good, of step 0: remove it", line)
    load(tmp_path / "state.pt")
    for path in tmp_path.glob("*.pt"):
        assert all(torch.isfinite(w).all() for w in load(path).get("model", {}).values())
    assert not (tmp_path / f"{loop}.pt").exists()


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("name, loop", [("diffusion_loss", "base"), ("grpo_loss", "justgrpo")])
def test_a_loss_or_gradient_that_is_no_number_stops_the_run(name, loop, bad, tmp_path, monkeypatch):
    real, calls = getattr(train, name), itertools.count(1)

    def wrapper(model, *args, **kwargs):
        result = real(model, *args, **kwargs)
        if next(calls) == 1:
            return result
        return result * bad if loop == "base" else (piece * bad for piece in result)
    monkeypatch.setattr(train, name, wrapper)
    status, _, err = run(train.main, *TINY, "--out", tmp_path, task=Coin())
    line = err.splitlines()[-1]
    assert status == 1 and f"in step 2 of {loop}" in line and "learning rate" in line, err
    assert str(bad) in line and "state.pt" in line


def test_fifty_steps_without_signal_are_said_and_gone_on_from(tmp_path):
    class Never(Coin):
        def reward(self, text, answer):
            return 0.0
    flags = [*TINY, "--grpo-steps", 101, "--prompts", 1, "--rollouts", 2, "--problems", 1]
    with no_matplotlib():
        status, out, err = run(train.main, *flags, "--out", tmp_path, task=Never())
    assert status == 0, err
    said = re.findall(r"step (\d+): for 50 steps no group", out + err)
    assert said == ["50", "100"]


# ---------------------------------------------------------------------------- degenerate settings

SMALL = {"width": [8, 16], "samples": [1, 2, 3], "trap-problems": [1, 2], "problems": [1, 2, 5],
         "steps": [1, 2, 21], "batch": [1, 5], "grpo-steps": [1, 6], "prompts": [1, 2],
         "rollouts": [2, 3, 1], "arm": list(ARMS), "seed": [0, 1, -3, 10**11],
         "positions": ["all", "random", "top_entropy"], "fraction": [0.25, 1e-9, 1],
         "updates-per-batch": [1, 2], "clip-low": [0.2, 1e-6, 5], "clip-high": [0.2, 9],
         "advantage": ["std", "none", "leave_one_out"], "grpo-schedule": ["linear", "constant"],
         "loss-norm": ["token", "sequence", "constant"], "rollout-block-length": [1, 7, 22, 23],
         "rollout-temperature": [1, 1e-6, 50], "adam-eps": [1e-8, 1e-30, 1e30],
         "lr": [0.006, 1e-9, 1, 1e6], "grpo-lr": [5e-5, 1e-9, 1, 1e6]}


def test_small_values_of_the_flags_together_work_or_are_refused_in_one_line(tmp_path):
    rng, statuses = random.Random(0), []
    for i in range(25):
        flags = ["--quick", "--device", "cpu", "--layers", "1", "--width", "8", "--samples", "2",
                 "--trap-problems", "1", "--problems", "2", "--steps", "2", "--grpo-steps", "2"]
        for name, values in SMALL.items():
            if rng.random() < 0.2:
                flags += [f"--{name}", str(rng.choice(values))]
        with no_matplotlib():
            status, out, err = run(train.main, *flags, "--out", tmp_path / str(i), task=Coin())
        statuses.append(status)
        assert status in (0, 1, 2) and "Traceback" not in err, (flags, err)
        last = err.splitlines()[-1] if status else ""
        assert not status or "error: " in last, (flags, err)
        assert status != 2 or "Act" not in out and err.count("\n") == 1, (flags, err)
        assert status != 1 or "learning rate" in last, (flags, err)
    assert statuses.count(0) >= 5 and statuses.count(2) >= 5


def test_a_vocabulary_of_three_and_a_completion_of_one_token_go_through_all_four_acts(tmp_path):
    with no_matplotlib():
        status, _, err = run(train.main, *TINY, "--out", tmp_path, task=Dot())
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
    with no_matplotlib():
        status, _, err = run(train.main, *TINY, "--data", files[0], "--test", files[1], "--batch",
                             "200", "--prompts", "90", "--rollouts", "2", "--out", tmp_path / "out")
    assert status == 0, err


# ------------------------------------------------------------------- determinism, and no surprises

def test_the_same_bytes_in_another_folder_with_another_hash_seed_locale_and_time_zone(tmp_path):
    folders = tmp_path / "a", tmp_path / "an 'odd' \"näme\" ☃ $(x)" / "b"
    for folder, environment in zip(folders, (
            dict(PYTHONHASHSEED="1", LC_ALL="C", TZ="UTC"),
            dict(PYTHONHASHSEED="2", LC_ALL="C.UTF-8", TZ="Asia/Kathmandu", LANG="de_DE.UTF-8"))):
        done = script("train.py", *TINY, "--out", folder, **environment)
        assert done.returncode == 0, done.stderr
    assert digest(folders[0]) == digest(folders[1])


def test_a_relative_folder_and_a_link_to_one_are_the_folder(whole, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    with no_matplotlib():
        assert run(train.main, *TINY, "--out", "link/./x/../out", task=Coin())[0] == 0
    assert digest(tmp_path / "real" / "out") == digest(whole)
    assert {p.name for p in tmp_path.iterdir()} == {"real", "link"}


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
sys.addaudithook(hook)
train.main(sys.argv[1:])
sample.main(["--checkpoint", sys.argv[-1] + "/base.pt"])
eval_gsm8k.main(["--checkpoint", sys.argv[-1] + "/base.pt", "--limit", "2"])
"""


def test_nothing_is_written_outside_out_and_the_network_is_not_asked(tmp_path):
    out = tmp_path / "out"
    done = subprocess.run([sys.executable, "-c", WATCH, *TINY, "--out", str(out)], cwd=ROOT,
                          capture_output=True, text=True, timeout=100, env=ALONE)
    assert done.returncode == 0, done.stderr
    events = [line.split(maxsplit=2)[1:] for line in done.stdout.splitlines() if "HOOK" in line]
    assert len(events) > 20
    paths = [path for _, *names in events for path in " ".join(names).split()]
    # Right below the temporary folder torch makes an empty one, for a compiler that is not used.
    assert not [path for path in paths if not path.startswith(str(out))
                and os.path.dirname(path) != tempfile.gettempdir()]
