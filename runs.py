"""A run on disk: whole files, rows, and a state to go on from.

    with Run("train.py", argv) as run:
        run.begin("out", tables, settings)
        for step in run.loop("base", 1400, model, optimizer, generator):
            ...                                 # no word about files or signals in here
            run.record("log", [row])
        if run.stopped:
            return
        run.finish()

Whatever ends the program (Ctrl-C, a full disk, kill -9), the same command with --resume
goes on, and leaves the same bytes as a run left alone. Nothing in this file knows what
is trained.
"""
import contextlib
import copy
import csv
import functools
import hashlib
import io
import json
import math
import os
import platform
import re
import shlex
import signal
import sys
import threading
import time
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

FORMAT = b"flexibility-trap checkpoint, version 2\n"
DTYPES = "<f4", "<f8", "<i8", "|u1", "|b1"      # of the tensors that a file may hold
SAVE_EVERY = 10     # seconds of work between two states on disk

# ----------------------------------------------------------------------------------------
# whole files: damage is found, and nothing in a file is ever executed


def write_whole(path, data):
    """Write bytes so that at any moment the old file is there, or the new one, whole.

    Written beside it, synced onto the disk, then renamed. Raises OSError, also before it
    would replace what is no file (/dev/null).
    """
    path = os.path.realpath(path)       # a link stays a link
    temporary = Path(f"{path}.{os.getpid()}.tmp")
    if os.path.exists(path) and not os.path.isfile(path):
        raise OSError(f"{path} is no regular file")
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def save(path, value):
    """Write a dict of dicts, lists, texts, numbers and tensors to one file.

    The file: FORMAT, 8 bytes for the length of a JSON text, the text with a placeholder
    for each tensor, the tensors' bytes, and the SHA-256 of all that. It is no pickle:
    even with weights_only, a pickle of one megabyte can end torch.load in a crash.
    """
    arrays = []

    def placeholder(tensor):
        array = torch.as_tensor(tensor).detach().cpu().numpy()
        arrays.append(array)
        return {"dtype": array.dtype.str, "shape": array.shape}

    text = json.dumps(value, default=placeholder).encode()
    parts = [FORMAT, len(text).to_bytes(8, "little"), text]
    data = b"".join(parts + [array.tobytes() for array in arrays])
    write_whole(path, data + hashlib.sha256(data).digest())


def load(path, rebuild=dict, most=2**40):
    """The way back from `save`; returns rebuild(value).

    Raises OSError, or ValueError in one line for what is not, to the last bit, what
    `save` has written, for more than `most` bytes, and for whatever rebuild does not
    like.
    """
    if not os.path.exists(path):
        raise FileNotFoundError(f"{path} is not there; python train.py makes one")
    if not os.path.isfile(path):        # a pipe would wait for ever
        raise FileNotFoundError(f"{path} is no regular file; python train.py makes one")
    if os.path.getsize(path) > most:
        raise FileNotFoundError(
            f"{path} has more than {most:,} bytes; python train.py makes smaller ones")
    with open(path, "rb") as file:
        # Look at the first line before the rest: what begins otherwise may be huge.
        start = file.read(len(FORMAT))
        data = file.read() if start == FORMAT else b""
    try:
        return rebuild(decode(data, most // 256))
    except Exception as error:      # whatever a damaged or hostile file may provoke
        raise ValueError(
            f"{path} is damaged or no {FORMAT.decode().strip()} ({str(error)[:60]!r}): "
            "python train.py makes a new one where it is out of the way") from None


def decode(data, most):
    """What stands in a file after FORMAT, as a dict; most: bytes of its JSON text. Raises
    whatever is wrong with it."""
    body = memoryview(data)[:-32]
    if hashlib.sha256(FORMAT + body).digest() != data[-32:]:
        raise ValueError("the SHA-256 differs")
    size = int.from_bytes(data[:8], "little")
    if size > most:
        raise ValueError("a text without end")
    offset = 8 + size       # where the next tensor's bytes begin

    def restore(found):
        """JSON calls it with each {...} of the text, in their order."""
        nonlocal offset
        if found.keys() != {"dtype", "shape"}:
            return restore_numbers(found)
        dtype, shape = found["dtype"], found["shape"]
        if dtype not in DTYPES or min(shape, default=0) < 0:
            raise ValueError("no kind of tensor")
        array = np.frombuffer(body, dtype, math.prod(shape), offset)   # or it is not there
        offset += array.nbytes
        return torch.from_numpy(array.reshape(shape).copy())

    value = json.loads(data[8:offset], object_hook=restore)
    if type(value) is not dict or offset != len(body):
        raise ValueError("no dict, or bytes that belong to nothing")
    return value


def restore_numbers(found):
    """JSON's keys are texts; an optimizer's state has numbers, with a dict for each."""
    if all(key.isdecimal() and type(part) is dict for key, part in found.items()):
        return {int(key): part for key, part in found.items()}
    return found


def is_sound(weights):
    """Whether a dict of tensors is float32, without nan or numbers beyond all bounds."""
    largest = torch.stack([weight.abs().max() for weight in weights.values()]).max()
    if any(weight.dtype != torch.float32 for weight in weights.values()):
        return False
    return bool(largest < 1e4)      # one look at all of them is one wait for the GPU

# ----------------------------------------------------------------------------------------
# rows: CSV files, written anew as a whole each time (they are small)


def write_csv(path, columns, rows):
    """Write rows (dicts) with these columns; what a row lacks is left empty."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(columns)
    for row in rows:
        writer.writerow([row.get(column, "") for column in columns])
    write_whole(path, buffer.getvalue().encode())


def read_csv(path, columns=None):
    """The rows of a CSV file, as dicts of texts.

    Raises ValueError, which names the file, for what is no table, and for one that has
    not these columns: another program has written it, and would lose some.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig")       # without a BOM
        found = csv.reader(io.StringIO(text, newline=""))
        header, *rows = [row for row in found if row] or [[]]   # (no empty lines)
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path} is no table in UTF-8: {error}") from None
    if columns is not None and header != list(columns):
        raise ValueError(f"{path} has other columns than this program writes: move it away")
    for number, row in enumerate(rows, 2):
        if len(row) != len(header):
            raise ValueError(f"{path}, row {number} has {len(row)} cells, not {len(header)}")
    return [dict(zip(header, row)) for row in rows]


def may_write(path, columns):
    """Raises OSError where no table can be written, ValueError where something else than
    such a table would be lost."""
    path = Path(path)
    is_there = path.exists()
    data = path.read_bytes() if path.is_file() else b""
    if data:
        read_csv(path, columns)
    write_whole(path, data)
    if not is_there:
        path.unlink()


def ends_quietly(main):
    """main without a traceback at Ctrl-C, and where nobody takes its output: a pipe that
    is closed, as by `| head -1`, a full disk, a full GPU. After a signal, as SIGPIPE would be one,
    the exit status is 128 and its number."""
    @functools.wraps(main)
    def quiet(*args, **flags):
        for name in ("stdout", "stderr"):
            if getattr(sys, name) is None:      # closed from the start, by >&-
                setattr(sys, name, open(os.devnull, "w"))
        try:
            try:
                return main(*args, **flags)
            finally:
                sys.stdout.flush()
        except BrokenPipeError:
            drop_what_is_left()
            sys.exit(128 + 13)
        except torch.OutOfMemoryError as error:
            program = os.path.basename(sys.argv[0])
            print(f"{program}: error: {str(error).splitlines()[0]}", file=sys.stderr)
            sys.exit(1)
        except OSError as error:
            program = os.path.basename(sys.argv[0])
            print(f"{program}: error: {plain(str(error))}", file=sys.stderr)
            drop_what_is_left()
            sys.exit(1)
        except KeyboardInterrupt:
            print("\nstopped", file=sys.stderr)
            sys.exit(128 + 2)

    return quiet


def drop_what_is_left():
    """What Python still holds of the output, can't write, and would try to at its end."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def plain(text):
    """For a terminal: what can't be printed is written out, as \\n, \\x1b or \\u202e."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)

# ----------------------------------------------------------------------------------------
# the run: one folder, one owner, one state to go on from


def lock(path, wait=False, flag="--out"):
    """Hold a folder, or a file, for this process until unlock(result).

    Raises ValueError if another process holds it; flag: what names another place. On
    Windows, which has no such lock, the result is None.
    """
    try:
        import fcntl
    except ImportError:
        return None
    # flock belongs to the open file: it ends with the process, however that ends.
    holder = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(holder, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        taken = os.fstat(holder).st_ino != os.stat(path).st_ino     # it was just moved away
    except BlockingIOError:
        taken = True
    if taken:
        os.close(holder)
        raise ValueError(f"another run writes to {path}: take another {flag}")
    return holder


def unlock(holder):
    if holder is not None:
        os.close(holder)


def is_over(process):
    """Whether no process of this number is running; on Windows one can't ask."""
    if os.name != "posix":
        return False
    try:
        os.kill(process, 0)         # signal 0 only asks
    except (ProcessLookupError, OverflowError):
        return True
    except PermissionError:         # it is somebody else's
        return False
    return process == os.getpid()   # of that number there was a former one, too


def snapshot(part):
    """What a part of a loop is to be put back to: a copy, as the loop will change it."""
    if isinstance(part, dict):
        return copy.deepcopy(part)
    if isinstance(part, torch.Generator):
        return part.get_state()
    return copy.deepcopy(part.state_dict())


def put_back(part, value):
    if isinstance(part, dict):
        part.clear()
        part.update(copy.deepcopy(value))
    elif isinstance(part, torch.Generator):
        part.set_state(value)
    else:
        part.load_state_dict(value)


class Run:
    """One program at work in one folder; see the top of this file.

    stopped is true after a loop that a signal has ended early: everything is saved
    then, and the caller returns at once. finished is true if --resume finds nothing
    left to do.
    """

    def __init__(self, program, argv=None):
        self.program = program
        self.argv = list(sys.argv[1:] if argv is None else argv)
        self.signal = None      # the first that asked for a stop
        self.began = self.stopped = self.finished = False
        self.holder = None      # of the folder's lock
        self.act = None         # what the seconds go to
        self.at = ""            # where a loop is
        self.time = self.saved_at = time.monotonic()

    # -------------------------------------------------- from outside: signals, errors

    def __enter__(self):
        self.handlers = {}
        if threading.current_thread() is threading.main_thread():    # else it may not
            for number in (signal.SIGINT, signal.SIGTERM):
                self.handlers[number] = signal.signal(number, self.on_signal)
        return self

    def on_signal(self, number, frame):
        """Ctrl-C, SIGTERM: the step ends first; the second time, at once."""
        if self.signal:
            os._exit(128 + number)
        self.signal = number
        with contextlib.suppress(OSError):      # print may be in use at this moment
            os.write(2, b"\nstopping after this step; once more to stop at once\n")

    def __exit__(self, kind, error, trace):
        for number, handler in self.handlers.items():
            signal.signal(number, handler)
        unlock(self.holder)
        if isinstance(error, BrokenPipeError):      # see ends_quietly
            return
        # Before the work: the user's mistake. A ValueError later is ours, or the task's: a
        # traceback.
        if isinstance(error, (ValueError, OSError)) and not self.began:
            self.leave(2, error)
        if isinstance(error, OSError):
            self.leave(1, error, "; when that is mended, --resume goes on")
        if isinstance(error, FloatingPointError):
            self.leave(1, f"{self.at}{error}")
        if self.stopped and error is None:
            flags = shlex.join(flag for flag in self.argv if flag != "--resume")
            print(f"\nstopped; go on with the same flags and --resume: {flags} --resume")
            sys.exit(128 + self.signal)

    def leave(self, status, error, advice=""):
        """End the program with one line."""
        print(f"{self.program}: error: {plain(str(error))}{advice}", file=sys.stderr)
        sys.exit(status)

    # -------------------------------------------------------------- begin and finish

    def begin(self, folder, tables, settings, resume=False, name="", replaces=None,
              files=(), anew=False):
        """Take the folder, before any work: its lock, its state, its tables.

        tables: name -> columns of NAME.csv. settings: plain values that a resumed run
        must have in common with the one that was stopped. name: what the names of this
        run's files begin with, if several programs share a folder. replaces(row):
        whether an old row of the tables gives way to this run; None: all do. files: the
        names of all else that this run writes. anew: what an earlier run has left is
        first moved to FOLDER.1, as a whole. Raises OSError, or ValueError in one line,
        and has changed nothing then.
        """
        cpu = torch.backends.cpu.get_cpu_capability()
        settings = {**settings, "threads": torch.get_num_threads(),
                    "torch": f"{torch.__version__} {cpu}"}
        self.folder, self.tables, self.prefix = Path(folder), tables, name
        self.folder.mkdir(parents=True, exist_ok=True)
        self.holder = lock(self.folder)     # until this run, or its process, ends
        self.path = self.folder / f"{name}state.pt"
        self.summary = self.folder / f"{name}summary.json"
        self.state = {
            "settings": settings, "finished": False, "loops": {},
            "rows": {table: [] for table in tables},
            "seconds": {}, "seconds_before": {}}    # of this run's acts, of earlier runs'
        goes_on = self.path.exists() and resume
        if self.path.exists():
            self.meet(self.load_state(), resume, replaces)
        elif resume:
            print(f"{folder} has nothing to go on from: a new run begins")
        self.finished = self.state["finished"]
        if self.finished:
            return
        is_there = any((self.folder / name).exists() for name in self.names(files))
        if anew and is_there and not goes_on:
            self.move_away()
        self.old_rows = {table: self.rows_to_keep(table, replaces) for table in tables}
        self.clear_away(files)
        self.save()         # fails now, if it must
        for table in tables:
            self.write_table(table)
        self.began = True

    def load_state(self):
        """The state on disk. Raises ValueError if it is damaged, or no state."""
        return load(self.path, lambda saved: {name: saved[name] for name in self.state})

    def meet(self, old, resume, replaces):
        """What the state of an earlier run is for this one: where to go on, if the
        settings are the same; or the seconds of its acts, if its rows stay."""
        if not resume:
            if not old["finished"]:
                raise ValueError(f"{self.folder} has an unfinished run: add --resume, or "
                                 f"remove {self.path}")
            if replaces is not None:
                self.state["seconds_before"] = {**old["seconds_before"], **old["seconds"]}
            return
        for name, now in self.state["settings"].items():
            was = old["settings"].get(name)
            if was != now:
                raise ValueError(
                    f"no --resume: in {self.path} {name} was {str(was)[:40]}, now it is "
                    f"{str(now)[:40]}: give the old value (threads: OMP_NUM_THREADS), or "
                    "another --out")
        self.state = old

    def names(self, files):
        """Of all that this run writes; files: those of begin."""
        tables = [self.file(table).name for table in self.tables]
        return [self.path.name, self.summary.name, *tables, *files]

    def move_away(self):
        """Rename the folder to FOLDER.1, or .2, and begin in a new one."""
        old = self.folder.resolve()     # a link stays a link
        if Path.cwd().is_relative_to(old):
            raise ValueError(f"{self.folder} has a run, and can't be moved away while one "
                             "stands in it: take another --out")
        number = 1
        while os.path.lexists(new := old.with_name(f"{old.name}.{number}")):
            number += 1
        try:
            old.rename(new)
            old.mkdir()
        except OSError as error:
            raise ValueError(f"{self.folder} has a run, and can't be moved away ({error}): "
                             "take another --out") from None
        left, self.holder = self.holder, lock(self.folder)
        unlock(left)
        print(f"{self.folder} had a run: it is now {new}")

    def clear_away(self, files):
        """Remove what a kill in the midst of writing has left: state.pt.PID.tmp."""
        names = self.names(files)
        for path in self.folder.glob("*.tmp"):
            found = re.fullmatch(r"(.+)\.([1-9][0-9]{0,9})\.tmp", path.name)
            if found and found[1] in names and path.is_file() and is_over(int(found[2])):
                path.unlink()

    def rows_to_keep(self, table, replaces):
        path = self.file(table)
        if not path.exists():
            return []
        rows = read_csv(path, self.tables[table])       # also if none is kept: is it ours?
        try:
            return [row for row in rows if replaces and not replaces(row)]
        except ValueError as error:
            raise ValueError(f"{path} was changed by hand: {error}") from None

    def finish(self):
        """Nothing is left to do: the state is small again, and summary.json says how to
        do it again. Returns the seconds of each act."""
        self.begin_act(None)
        seconds = {**self.state["seconds_before"], **self.state["seconds"]}
        seconds = {act: round(value, 1) for act, value in seconds.items()}
        summary = {"settings": self.state["settings"], "seconds": seconds,
                   "machine": platform.platform(), "python": sys.version}
        write_whole(self.summary, json.dumps(summary, indent=1).encode())
        self.state.update(finished=True, loops={},
                          rows={table: [] for table in self.tables})
        self.save()
        return seconds

    # ------------------------------------------------------------------------- work

    def loop(self, name, n_steps, *parts, leave=True):
        """Yield the steps still to be done, of 0 ... n_steps - 1, under a progress bar.

        parts: all that the steps change: modules, optimizers, torch generators, dicts
        of plain values and tensors. First they are put back to where a stopped run had
        them. Between two steps they are put into the state, if it is time, and it is
        saved; after a signal the loop then ends early. A loop that was finished yields
        nothing, and its parts (optimizers aside, whose work is done) are as they were
        at its end. Raises FloatingPointError if a module holds what is no number.
        """
        first = self.resume_loop(name, parts)
        delay = 0 if leave else 1       # a short one is not shown at all
        with tqdm(desc=name, total=n_steps, initial=first, leave=leave,
                  delay=delay) as self.bar:
            for step in range(first, n_steps + 1):
                # Between two steps: nothing is half done here.
                if step > first:
                    self.check_weights(name, parts)
                due = self.signal or time.monotonic() > self.saved_at + SAVE_EVERY
                # (At its end a loop is kept in any case, for the next save.)
                if due or step == n_steps:
                    self.keep_loop(name, step, parts, is_over=step == n_steps)
                if due:
                    self.save()
                if self.signal:
                    self.stopped = True
                    return
                if step < n_steps:
                    self.at = f"step {step + 1} of {name}: "
                    yield step
                    self.bar.update()

    def step_of(self, name):
        """The step at which the state has a loop: it goes on there."""
        return self.state["loops"].get(name, {"step": 0})["step"]

    def has_begun(self, name):
        """Whether the state knows a loop: then what was recorded before it is there, too."""
        return name in self.state["loops"]

    def resume_loop(self, name, parts):
        saved = self.state["loops"].get(name)
        if saved:       # None stands for an optimizer of a loop that is over
            for part, value in zip(parts, saved["parts"]):
                if value is not None:
                    put_back(part, value)
        return self.step_of(name)

    def keep_loop(self, name, step, parts, is_over):
        values = [None if is_over and isinstance(part, torch.optim.Optimizer)
                  else snapshot(part) for part in parts]
        self.state["loops"][name] = {"step": step, "parts": values}

    def check_weights(self, name, parts):
        modules = [part for part in parts if isinstance(part, torch.nn.Module)]
        if all(is_sound(module.state_dict()) for module in modules):
            return
        rates = [part.param_groups[0]["lr"] for part in parts
                 if isinstance(part, torch.optim.Optimizer)]
        raise FloatingPointError(
            f"a weight is no number, or above 1e4 (learning rate {rates[0]:g}); {self.path} "
            f"is good, of step {self.step_of(name)}: remove it, start anew with a lower rate")

    def show(self, **values):
        """Beside the progress bar of the loop that is running."""
        self.bar.set_postfix_str(", ".join(f"{k} {v:.3f}" for k, v in values.items()),
                                 refresh=False)

    def record(self, table, rows):
        """Add rows to a table, on disk at once. A row that is there is not added again,
        so that a resumed run may say again what it had said before it was stopped."""
        known = self.state["rows"][table]
        texts = {str(row) for row in known}     # nan is not equal to nan, but its text is
        known.extend(row for row in rows if str(row) not in texts)
        self.write_table(table)

    def write(self, name, data):
        """Another file of this run's, whole."""
        write_whole(self.folder / f"{self.prefix}{name}", data)

    def write_table(self, table):
        rows = self.old_rows[table] + self.state["rows"][table]
        write_csv(self.file(table), self.tables[table], rows)

    def file(self, table):
        return self.folder / f"{self.prefix}{table}.csv"

    def begin_act(self, act):
        """From now on the seconds of work go to this act."""
        self.tick()
        self.act = act
        if act is not None:
            self.state["seconds"].setdefault(act, 0.0)

    def tick(self):
        """Count the seconds since the last look; returns those of the act so far."""
        now = time.monotonic()
        if self.act is not None:
            self.state["seconds"][self.act] += now - self.time
        self.time = now
        return self.state["seconds"].get(self.act, 0.0)

    def save(self):
        self.tick()
        save(self.path, self.state)
        self.saved_at = time.monotonic()
