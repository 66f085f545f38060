"""A run that is stopped anywhere and resumed leaves what it leaves when nothing stops it.

    python -m pytest tests/test_runs.py

runs.py by itself, with a loop of its own: a linear layer that learns nothing of language.
"""
import itertools
import json
import math
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

import runs
from runs import FORMAT, Run, load, lock, plain, read_csv, save, write_csv, write_whole

ROOT = Path(__file__).resolve().parents[1]
TABLES = {"log": ["step", "loss", "noise"], "ends": ["name", "value"]}
N = 6


def work(folder, stop_at=None, resume=False, settings=None, lr=0.1, sleep=0.0):
    """A program with two loops. stop_at: a step of the first (0 ... N-1) or the second (N ...),
    in which Ctrl-C comes. Returns the run, and the weights after the first loop and at the end."""
    flags = ["--out", str(folder)]
    if resume:
        flags.append("--resume")
    with Run("work.py", flags) as run:
        run.begin(folder, TABLES, settings or {"lr": lr}, resume)
        if run.finished:
            return run, None, None
        torch.manual_seed(0)
        model = torch.nn.Linear(3, 2)
        adam = torch.optim.Adam(model.parameters(), lr=lr)
        generator, memory = torch.Generator().manual_seed(1), {"losses": []}
        run.begin_act("first")
        if not run.has_begun("one"):
            run.record("ends", [{"name": "start", "value": time.monotonic()}])
        for step in run.loop("one", N, model, adam, generator, memory):
            noise = torch.rand(4, 3, generator=generator)
            loss = model(noise).square().sum()
            loss.backward()
            adam.step()
            adam.zero_grad()
            memory["losses"].append(loss.item())
            if step == stop_at:
                os.kill(os.getpid(), signal.SIGINT)
            run.record("log", [{"step": step, "loss": sum(memory["losses"]),
                                "noise": noise[0, 0].item()}])
            run.show(loss=loss.item())
            time.sleep(sleep)
        if run.stopped:
            return run, None, None
        first = {name: part.clone() for name, part in model.state_dict().items()}
        run.record("ends", [{"name": "one", "value": math.nan}])
        run.begin_act("second")
        for step in run.loop("two", N, model, generator):
            with torch.no_grad():
                model.weight += torch.rand(2, 3, generator=generator)
            if N + step == stop_at:
                os.kill(os.getpid(), signal.SIGINT)
            run.record("log", [{"step": N + step, "loss": "", "noise": ""}])
        if run.stopped:
            return run, None, None
        run.record("ends", [{"name": "two", "value": model.weight.sum().item()}])
        run.finish()
    return run, first, model.state_dict()


def tables(folder):
    """log.csv, and ends.csv without the time of the start."""
    return read_csv(folder / "log.csv"), read_csv(folder / "ends.csv")[1:]


def same(one, other):
    return all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """A run that nothing stops: its folder, its weights after the first loop and at the end."""
    folder = tmp_path_factory.mktemp("alone")
    _, first, last = work(folder)
    return folder, first, last


# ------------------------------------------------------------------------------------ stop, resume

@pytest.mark.parametrize("often", [0, 1e9], ids=["saved every step", "saved at the stop"])
@pytest.mark.parametrize("stop_at", range(2 * N))
def test_stopped_in_any_step_and_resumed_it_leaves_the_same_rows_and_weights(
        stop_at, often, alone, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(runs, "SAVE_EVERY", often)
    with pytest.raises(SystemExit) as stop:
        work(tmp_path, stop_at)
    assert stop.value.code == 130
    assert capsys.readouterr().out.endswith(f"--resume: --out {tmp_path} --resume\n")
    name, step = ("one", stop_at) if stop_at < N else ("two", stop_at - N)
    assert load(tmp_path / "state.pt")["loops"][name]["step"] == step + 1   # no work is lost
    _, first, last = work(tmp_path, resume=True)
    assert same(first, alone[1])    # where the first loop was over, its model was put back
    assert same(last, alone[2])
    assert tables(tmp_path) == tables(alone[0])
    assert len(read_csv(tmp_path / "ends.csv")) == 3    # the start is not said twice


def test_stopped_a_second_time_it_says_once_how_to_go_on(alone, tmp_path, capsys):
    for stop_at, resume in ((1, False), (4, True)):
        with pytest.raises(SystemExit):
            work(tmp_path, stop_at, resume)
        assert capsys.readouterr().out.endswith(f"--resume: --out {tmp_path} --resume\n")
    _, _, last = work(tmp_path, resume=True)
    assert same(last, alone[2]) and tables(tmp_path) == tables(alone[0])


def test_a_crash_between_two_saves_costs_only_the_steps_since_the_last(alone, tmp_path,
                                                                       monkeypatch):
    real, n_calls = torch.optim.Adam.step, itertools.count(1)

    def crash(self, *args, **kwargs):
        if next(n_calls) == 5:
            raise ZeroDivisionError
        return real(self, *args, **kwargs)
    with monkeypatch.context() as patch:
        patch.setattr(runs, "SAVE_EVERY", 0)
        patch.setattr(torch.optim.Adam, "step", crash)
        with pytest.raises(ZeroDivisionError):
            work(tmp_path)
    assert load(tmp_path / "state.pt")["loops"]["one"]["step"] == 4
    _, _, last = work(tmp_path, resume=True)
    assert same(last, alone[2]) and tables(tmp_path) == tables(alone[0])


def test_a_finished_run_resumes_to_nothing(alone):
    before = {path.name: path.read_bytes() for path in alone[0].iterdir()}
    run, _, _ = work(alone[0], resume=True)
    assert run.finished
    assert before == {path.name: path.read_bytes() for path in alone[0].iterdir()}


def test_what_is_kept_of_a_finished_run_is_small_and_says_how_to_do_it_again(alone):
    state = load(alone[0] / "state.pt")
    assert state["finished"] and state["loops"] == {}
    summary = json.loads((alone[0] / "summary.json").read_text(encoding="utf-8"))
    assert summary["settings"] == {**summary["settings"], "lr": 0.1,
                                   "threads": torch.get_num_threads()}
    assert summary["settings"]["torch"].startswith(torch.__version__)
    assert list(summary["seconds"]) == ["first", "second"]


def test_the_seconds_of_an_act_add_up_over_a_stop_and_a_resume(tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "SAVE_EVERY", 0)
    with pytest.raises(SystemExit):
        work(tmp_path, stop_at=2, sleep=0.1)
    before = load(tmp_path / "state.pt")["seconds"]["first"]
    work(tmp_path, resume=True, sleep=0.1)
    summary = json.loads((tmp_path / "summary.json").read_text(encoding="utf-8"))
    assert before >= 0.2 and summary["seconds"]["first"] >= before + 0.2
    assert summary["seconds"]["second"] < summary["seconds"]["first"]


def test_rows_of_earlier_runs_stay_unless_they_are_replaced(tmp_path):
    def one(value, **more):
        with Run("x.py", []) as run:
            run.begin(tmp_path, {"t": ["act", "value"]}, {}, **more)
            run.record("t", [{"act": "b", "value": value}])
            run.finish()
        return [(row["act"], row["value"]) for row in read_csv(tmp_path / "t.csv")]
    assert one(1) == [("b", "1")]
    assert one(2) == [("b", "2")]                       # all old rows give way
    assert one(3, replaces=lambda row: False) == [("b", "2"), ("b", "3")]
    assert one(4, replaces=lambda row: row["value"] == "2") == [("b", "3"), ("b", "4")]
    assert one(5, name="other-") and (tmp_path / "other-t.csv").exists() is True
    assert len(read_csv(tmp_path / "t.csv")) == 2       # another program's rows are its own


# ---------------------------------------------------------------------------------------- refusals

def without(name):
    """The state lacks something; or it is no state, but a checkpoint, say."""
    def lose(path, patch):
        state = load(path)
        del state[name]
        save(path, state)
    return lose


CHANGES = {
    "nothing": lambda path, patch: None,
    "threads": lambda path, patch: patch.setattr(torch, "get_num_threads", lambda: 77),
    "torch": lambda path, patch: patch.setattr(torch, "__version__", "9.9"),
    "damage": lambda path, patch: path.write_bytes(path.read_bytes()[:-1]),
    **{f"without {name}": without(name)
       for name in ("settings", "finished", "loops", "rows", "seconds", "seconds_before")}}


@pytest.mark.parametrize("change, resume, lr, about", [
    ("nothing", False, 0.1, ["unfinished", "--resume", "state.pt"]),
    ("nothing", True, 0.5, ["lr was 0.1, now it is 0.5"]),
    ("threads", True, 0.1, ["threads was", "now it is 77"]),
    ("torch", True, 0.1, ["torch was", "now it is 9.9"]),
    ("damage", False, 0.1, ["state.pt", "damaged"]),
    *[(change, True, 0.1, ["state.pt", "damaged"]) for change in [*CHANGES][3:]]])
def test_what_can_not_be_gone_on_with_is_refused_in_one_line(change, resume, lr, about, tmp_path,
                                                             capsys, monkeypatch):
    with pytest.raises(SystemExit):
        work(tmp_path, stop_at=2)
    CHANGES[change](tmp_path / "state.pt", monkeypatch)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        work(tmp_path, resume=resume, lr=lr)
    line = capsys.readouterr().err
    assert stop.value.code == 2 and line.count("\n") == 1 and line.startswith("work.py: error: ")
    assert all(text in line for text in about), line
    assert before == {path.name: path.read_bytes() for path in tmp_path.iterdir()}


def test_settings_whose_keys_look_like_numbers_are_the_same_again(tmp_path):
    settings = {"levels": {"1": 2}, "squares": {"\u00b2": {}}}
    with pytest.raises(SystemExit):
        work(tmp_path, stop_at=2, settings=settings)
    run, _, _ = work(tmp_path, resume=True, settings=settings)
    assert len(run.state["seconds"]) == 2       # it went on to the end


def leave_by(error, began):
    """The exit status of a run that ends by this error, and what it prints."""
    with Run("x.py", []) as run:
        run.began = began
        raise error


@pytest.mark.parametrize("error, began, status", [
    (ValueError("bad \x1b[31m flag"), False, 2), (OSError(28, "full"), False, 2),
    (OSError(28, "full"), True, 1), (FloatingPointError("nan"), True, 1)])
def test_errors_end_in_one_line_and_a_status(error, began, status, capsys):
    with pytest.raises(SystemExit) as stop:
        leave_by(error, began)
    line = capsys.readouterr().err
    assert stop.value.code == status and line.count("\n") == 1 and line[:-1].isprintable()
    assert ("--resume goes on" in line) == (began and isinstance(error, OSError))


def test_an_error_of_ours_is_a_traceback():
    for error, began in ((ValueError(), True), (TypeError(), False)):
        with pytest.raises(type(error)):
            leave_by(error, began)


@pytest.mark.parametrize("bad", [math.nan, math.inf, 1e5])
def test_weights_that_are_no_numbers_end_the_loop_with_step_rate_and_last_good_state(
        bad, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(runs, "SAVE_EVERY", 0)
    model = torch.nn.Linear(2, 2)
    adam = torch.optim.Adam(model.parameters(), lr=0.125)
    with pytest.raises(SystemExit) as stop, Run("x.py", []) as run:
        run.begin(tmp_path, {}, {})
        for step in run.loop("one", N, model, adam):
            if step == 3:
                model.weight.data[0, 0] = bad
    line = capsys.readouterr().err.splitlines()[-1]
    assert stop.value.code == 1
    for text in ("step 4 of one", "learning rate 0.125", "state.pt is good, of step 3"):
        assert text in line, line
    saved = load(tmp_path / "state.pt")["loops"]["one"]["parts"][0]
    assert all(part.isfinite().all() for part in saved.values())


# ----------------------------------------------------------------------------------------- signals

def test_the_second_signal_leaves_at_once_and_the_handlers_are_put_back(monkeypatch):
    left, before = [], signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(os, "_exit", left.append)
    with Run("x.py", []) as run:
        assert signal.getsignal(signal.SIGINT) == signal.getsignal(signal.SIGTERM) == run.on_signal
        run.on_signal(signal.SIGINT, None)
        assert run.signal == signal.SIGINT and left == []
        run.on_signal(signal.SIGTERM, None)
        assert left == [143]
    assert signal.getsignal(signal.SIGINT) == before


def test_in_a_thread_it_works_without_handlers(alone, tmp_path):
    thread = threading.Thread(target=work, args=[tmp_path])
    thread.start()
    thread.join()
    assert tables(tmp_path) == tables(alone[0])


def test_a_folder_has_one_owner_at_a_time(tmp_path):
    code = "import runs, sys, time; runs.lock(sys.argv[1]); print(flush=True); time.sleep(60)"
    owner = subprocess.Popen([sys.executable, "-c", code, tmp_path], cwd=ROOT,
                             stdout=subprocess.PIPE)
    owner.stdout.readline()
    with pytest.raises(ValueError, match="another run"):
        lock(tmp_path)
    threading.Timer(0.3, owner.kill).start()
    start = time.monotonic()
    os.close(lock(tmp_path, wait=True))     # it ended with its owner, however that ended
    assert time.monotonic() - start > 0.2
    owner.communicate()


# ------------------------------------------------------------------------------------------- files

def tree():
    """All kinds of values that may be saved."""
    return {"n": 3, "x": 0.1, "nan": math.nan, "text": "é\n", "none": None, "list": [1, [2.5], {}],
            "steps": {0: {"m": torch.arange(6.0).view(2, 3)}, 12: {"m": torch.ones(0, 4)}},
            "bytes": torch.tensor([1, 255], dtype=torch.uint8), "flag": torch.tensor([True]),
            "double": torch.tensor(1 / 3, dtype=torch.float64), "ids": torch.tensor([2**40])}


def test_what_is_saved_is_loaded_to_the_last_bit(tmp_path):
    save(tmp_path / "a", tree())
    save(tmp_path / "b.other", load(tmp_path / "a"))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b.other").read_bytes()
    found = load(tmp_path / "a")
    assert found["steps"][0]["m"].equal(tree()["steps"][0]["m"]) and found["text"] == "é\n"
    assert found["double"].dtype == torch.float64 and found["flag"].dtype == torch.bool


class Code:
    """Unpickling this would make a folder: what a hostile file could do."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (self.folder,)


def changed(data, place, value):
    return data[:place] + value + data[place + len(value):]


@pytest.mark.parametrize("damage", [
    lambda data, folder: b"", lambda data, folder: b"hello", lambda data, folder: data[:-1],
    lambda data, folder: data[:len(data) // 2], lambda data, folder: data + b"\0",
    lambda data, folder: changed(data, 200, bytes([data[200] ^ 1])),
    lambda data, folder: changed(data, len(data) - 40, bytes([data[-40] ^ 1])),    # of a tensor
    lambda data, folder: changed(data, len(FORMAT), b"\xff" * 8),
    lambda data, folder: data.replace(b"version 2", b"version 3"),
    lambda data, folder: pickle.dumps(Code(folder)),
    lambda data, folder: FORMAT + pickle.dumps(Code(folder))])
def test_a_damaged_or_foreign_file_is_refused_by_name_and_runs_no_code(damage, tmp_path):
    path, folder = tmp_path / "file.pt", str(tmp_path / "made by a file")
    save(path, tree())
    path.write_bytes(damage(path.read_bytes(), folder))
    with pytest.raises(ValueError, match="file.pt is damaged") as error:
        load(path)
    assert "\n" not in str(error.value) and "python train.py" in str(error.value)
    assert not os.path.exists(folder)


@pytest.mark.parametrize("value", [[1, 2], 3, torch.ones(2), {"a": {"dtype": "O", "shape": [1]}},
                                   {"a": {"dtype": "<f4", "shape": [-1]}},
                                   {"a": {"dtype": "<f4", "shape": [10**9]}}], ids=str)
def test_a_file_that_is_signed_but_holds_no_dict_of_tensors_is_refused(value, tmp_path):
    save(tmp_path / "file.pt", value)
    with pytest.raises(ValueError, match="file.pt is damaged"):
        load(tmp_path / "file.pt")


def test_what_is_missing_no_file_or_beyond_the_size_is_an_error_of_the_system(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    save(tmp_path / "large", tree())
    for path in ("missing", "pipe", ".", "/dev/zero"):
        with pytest.raises(OSError):
            load(tmp_path / path)
    with pytest.raises(OSError, match="large"):
        load(tmp_path / "large", most=100)


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "log.csv"
    write_whole(path, b"old")
    for call in ("replace", "fsync"):
        with monkeypatch.context() as patch:
            def full(*_):
                raise OSError(28, "No space left on device")
            patch.setattr(os, call, full)
            with pytest.raises(OSError, match="No space"):
                write_whole(path, b"new")
        assert path.read_bytes() == b"old" and os.listdir(tmp_path) == ["log.csv"]
    write_whole(path, b"new")
    assert path.read_bytes() == b"new" and os.listdir(tmp_path) == ["log.csv"]


def test_what_is_no_regular_file_is_never_replaced_and_a_link_stays_one(tmp_path):
    # A pipe, which stands for /dev/null: a test that fails must not take that away.
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    for name in ("pipe", "folder", "missing/file"):
        with pytest.raises(OSError):
            write_whole(tmp_path / name, b"new")
    assert (tmp_path / "pipe").is_fifo()
    (tmp_path / "link").symlink_to("real")
    write_whole(tmp_path / "link", b"new")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "real").read_bytes() == b"new"


def test_only_what_this_program_left_half_written_is_cleared_away(tmp_path):
    ours, others = ["log.csv.123.tmp", "state.pt.9.tmp"], ["mine.tmp", "notes.2026.tmp"]
    for name in ours + others:
        (tmp_path / name).write_bytes(b"half")
    (tmp_path / "folder.pt.1.tmp").mkdir()
    work(tmp_path)
    left = {path.name for path in tmp_path.glob("*.tmp")}
    assert left == {*others, "folder.pt.1.tmp"}


def test_rows_come_back_as_texts_and_what_a_row_lacks_is_empty(tmp_path):
    path = tmp_path / "rows.csv"
    write_csv(path, ["a", "b"], [{"a": 'x, "y"\nz', "c": 1}, {"b": 0.1}])
    assert path.read_text(encoding="utf-8").startswith("a,b\n")
    write_csv(path, ["a", "b"], [{"a": "é", "c": 1}, {"b": 0.1}])
    assert read_csv(path) == [{"a": "é", "b": ""}, {"a": "", "b": "0.1"}]


def test_plain_leaves_no_character_that_a_terminal_obeys():
    assert plain("a é 数 😀") == "a é 数 😀"
    assert plain("\x1b[31m\n\u202e\ud800\x85") == r"\x1b[31m\n\u202e\ud800\x85"
    for code in [*range(0x300), *range(0x2000, 0x2100), 0xfeff, 0xd800, 0xe0001]:
        text = plain(chr(code))
        assert text.isprintable() and text
