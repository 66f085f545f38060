"""What experiments share: rows are kept, bases are told apart, statistics are exact.

    python -m pytest tests/test_lab.py
"""
import math
import os
import shutil
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

import train
from data import Worksheet
from eval_gsm8k import columns_of
from experiments import lab, pass_at_k
from model import MaskedDiffusionLM, ModelConfig
from runs import lock, read_csv
from sample import save_checkpoint
from tests.test_scripts import no_matplotlib, run
from train import GREEDY, TRAP

LEFT, FREE = TRAP["left_to_right"], TRAP["confidence"]


class Stopping(Worksheet):
    """A toy whose judge stops the program (Ctrl-C, a full disk) after so many texts."""
    patience = math.inf
    error = None

    def is_right(self, text, answer):
        self.patience -= 1
        if self.patience < 0:
            raise self.error
        return len(text) % 2 == 1


@pytest.fixture
def task(monkeypatch):
    """Of a base with the name "stopping"."""
    task = Stopping()
    monkeypatch.setitem(lab.BASES, "stopping", (task, 1))
    return task


def save_base(folder, task, seed=0, name="stopping"):
    """A small base that has learned nothing, where --quick looks for it."""
    torch.manual_seed(seed)
    config = ModelConfig(task.tokenizer.n_vocab, task.mask_id, task.eos_id, n_layer=1,
                         n_embd=16, n_hidden=16)
    path = folder / f"{name}-0-quick" / "base.pt"
    path.parent.mkdir(parents=True)
    save_checkpoint(path, MaskedDiffusionLM(config), task, seed=0, stage="base")
    return path


def flags(folder, *more):
    bases, csv = folder / "bases", folder / "rows.csv"
    return lab.parse_flags("none", "", ["--quick", "--bases", str(bases), "--csv", str(csv),
                                        *more])


@pytest.fixture(scope="module")
def smaller():
    """--quick, and smaller still, as long as these tests take."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "QUICK", {**train.QUICK, "steps": 6, "width": 16, "layers": 1})
        yield


@pytest.fixture(scope="module")
def quick_run(smaller, tmp_path_factory):
    """The experiment from nothing: a folder with its bases and rows; what it printed."""
    folder = tmp_path_factory.mktemp("quick")
    with no_matplotlib():
        status, out, _ = run(pass_at_k.main, "--quick", "--bases", folder / "bases",
                             "--csv", folder / "new" / "rows.csv")
    assert status == 0
    return folder, out


def cells(*decoders):
    return [lab.Cell("stopping", 0, decoder) for decoder in decoders]


def row(*right, n_samples=8, derived=()):
    return {"n_samples": str(n_samples), "right": lab.joined(right),
            "derived": lab.joined(derived)}


# ------------------------------------------------------------------------------------------ rows

@pytest.mark.parametrize("error, about", [
    (KeyboardInterrupt(), "stopped"), (OSError(28, "No space left on device"), "No space left")])
def test_what_was_measured_before_a_stop_is_kept_and_not_measured_again(
        task, tmp_path, error, about):
    save_base(tmp_path / "bases", task)
    args, both = flags(tmp_path), cells(LEFT, FREE)
    task.patience, task.error = 200, error      # enough for one: 16 problems x 8 samples
    with pytest.raises(SystemExit, match=f"{about}.*{lab.KEPT}$"):
        lab.collect(args, both)
    [kept] = read_csv(args.csv)
    assert kept["order"] == "left_to_right"
    task.patience = 200
    first, second = lab.collect(args, both)
    assert first == kept and second["order"] == "confidence"
    assert read_csv(args.csv) == [first, second]


def test_a_row_counts_right_and_derived_samples_of_every_problem(task, tmp_path):
    save_base(tmp_path / "bases", task)
    text = task.solution(task.problem("test", 3), task.n_lines)
    task.text = lambda tokens: text             # whatever the network writes
    task.is_right = lambda text, answer: answer == "5"
    [found] = lab.collect(flags(tmp_path), cells(LEFT))
    fives = [problem["answer"] == "5" for problem in task.problems("test", 0, 16)]
    assert any(fives) and lab.counts(found).tolist() == [8 * is_five for is_five in fives]
    assert lab.counts(found, "derived").tolist() == [0, 0, 0, 8, *[0] * 12]
    assert lab.measured(found, "distinct").value == 1


def test_rows_of_other_weights_are_refused_in_one_line(task, tmp_path):
    save_base(tmp_path / "bases", task)
    args = flags(tmp_path)
    lab.collect(args, cells(LEFT))
    before = read_csv(args.csv)
    save_base(tmp_path / "others", task, seed=1)
    args.bases = str(tmp_path / "others")
    assert lab.collect(args, cells(LEFT)) == before     # what is there needs no base
    with pytest.raises(SystemExit, match="other weights .* start another file with --csv"):
        lab.collect(args, cells(LEFT, FREE))
    assert read_csv(args.csv) == before


def test_scripts_that_share_a_file_lose_none_of_each_others_rows(tmp_path):
    path = tmp_path / "rows.csv"
    rows = [{name: "" for name in lab.KEY} | {"base": "worksheet", "seed": seed}
            for seed in range(24)]
    with ThreadPoolExecutor(8) as scripts:
        list(scripts.map(lambda row: lab.add_row(path, row), rows + rows))
    assert sorted(int(found["seed"]) for found in read_csv(path)) == list(range(24))


@pytest.mark.parametrize("decoder", [*TRAP.values(), *GREEDY.values()], ids=str)
def test_a_row_says_all_of_its_decoder(decoder):
    text = {name: str(value) for name, value in columns_of(decoder).items()}
    assert lab.decoder_of(text) == decoder


# ----------------------------------------------------------------------------------------- bases

def test_a_base_that_another_script_is_making_is_waited_for_and_not_made_twice(task, tmp_path):
    made = save_base(tmp_path / "elsewhere", task)
    folder = tmp_path / "bases" / "stopping-0-quick"
    (folder / "lock").mkdir(parents=True)
    holder = lock(folder / "lock")
    with ThreadPoolExecutor(1) as scripts:
        path = scripts.submit(lab.base_path, tmp_path / "bases", "stopping", 0, quick=True)
        with pytest.raises(TimeoutError):
            path.result(timeout=0.2)
        shutil.copy(made, folder / "base.pt")
        os.close(holder)
        assert path.result() == folder / "base.pt"
    assert (folder / "base.pt").read_bytes() == made.read_bytes()


def test_a_base_of_another_task_is_refused_in_one_line(task, tmp_path):
    save_base(tmp_path / "bases", Worksheet(later=0.5))
    with pytest.raises(SystemExit, match="is of another task"):
        lab.collect(flags(tmp_path), cells(LEFT))


def test_an_experiment_runs_from_nothing_and_then_from_its_rows_alone(quick_run, tmp_path):
    folder, out = quick_run
    assert "base.pt is missing: it is made now" in out
    table = out[out.index("  base "):]
    assert all(str(decoder) in table for decoder in [*TRAP.values(), *pass_at_k.DECODERS])
    status, again, _ = run(pass_at_k.main, "--quick", "--csv", folder / "new" / "rows.csv",
                           "--bases", tmp_path / "nowhere")
    assert status == 0 and again == table


@pytest.mark.slow
def test_a_figure_is_a_png_or_one_line_that_says_the_rows_are_kept(quick_run, tmp_path):
    pytest.importorskip("matplotlib")
    argv = ["--quick", "--csv", quick_run[0] / "new" / "rows.csv", "--figure"]
    assert run(pass_at_k.main, *argv, tmp_path / "figure.png")[0] == 0
    assert (tmp_path / "figure.png").read_bytes()[:4] == b"\x89PNG"
    status, _, _ = run(pass_at_k.main, *argv, tmp_path)      # a folder
    assert status.startswith("no figure") and status.endswith(lab.KEPT)


def test_a_base_that_was_removed_after_its_run_is_not_said_to_come_by_itself(
        quick_run, tmp_path):
    shutil.copytree(quick_run[0] / "bases", tmp_path / "bases")
    (tmp_path / "bases" / "worksheet-0-quick" / "base.pt").unlink()
    status, _, _ = run(pass_at_k.main, "--quick", "--csv", tmp_path / "rows.csv",
                       "--bases", tmp_path / "bases")
    assert "remove " in status and lab.KEPT not in status


def test_a_quick_look_never_writes_among_the_results(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    look, real = lab.parse_flags("none", "", ["--quick"]), lab.parse_flags("none", "", [])
    assert look.csv != real.csv
    assert lab.parse_flags("none", "", ["--quick", "--csv", "my.csv"]).csv == "my.csv"


def test_a_file_that_holds_no_rows_of_an_experiment_is_left_as_it_is(tmp_path):
    path = tmp_path / "notes.csv"
    path.write_text("day,weather\nmonday,rain\n")
    status, _, _ = run(pass_at_k.main, "--quick", "--csv", path)
    assert "other columns" in status and path.read_text() == "day,weather\nmonday,rain\n"


def test_a_figure_is_refused_before_any_work_where_matplotlib_is_missing(tmp_path):
    with no_matplotlib():
        status, _, err = run(pass_at_k.main, "--csv", tmp_path / "rows.csv", "--figure", "f.png")
    assert status == 2 and "pip install" in err


# ------------------------------------------------------------------------------------ statistics

@pytest.mark.parametrize("k", [1, 3, 8])
def test_pass_at_k_from_counts_is_the_share_of_draws_that_hold_a_right_one(k):
    expected = [1 - math.comb(8 - count, k) / math.comb(8, k) for count in (0, 1, 5, 8)]
    assert lab.solved(row(0, 1, 5, 8), k) == pytest.approx(expected)
    assert lab.solved(row(8, derived=(1,)), k, "derived") == pytest.approx(expected[1])


def test_a_lead_is_paired_by_problem():
    uneven = np.arange(8)
    ahead, behind = row(*(uneven + 1)), row(*uneven)
    # The same on every problem: no interval at all.
    assert lab.lead(ahead, behind, 1) == pytest.approx([1 / 8, math.nan, math.nan], nan_ok=True)
    value, low, high = lab.lead(ahead, row(*uneven[::-1]), 1)
    assert value == pytest.approx(1 / 8) and low < 0 < high


@pytest.mark.parametrize("one, other, expected", [
    ([1] * 5 + [0], [0] * 5 + [3], (5, 1, 14 / 64)),
    ([2] * 10, [0] * 10, (10, 0, 2 / 1024)),
    ([1, 0, 4], [0, 1, 4], (1, 1, 1.0)),
    ([1, 1], [7, 2], (0, 0, 1.0))])
def test_mcnemars_exact_p_is_that_of_coins(one, other, expected):
    assert lab.mcnemar(row(*one), row(*other)) == pytest.approx(expected)


@pytest.mark.parametrize("p_values, expected", [
    ([0.01, 0.04, 0.03, 0.005], [0.03, 0.06, 0.06, 0.02]), ([0.6, 0.5], [1.0, 1.0]),
    ([0.2], [0.2]), ([], [])])
def test_holms_correction(p_values, expected):
    assert lab.holm(p_values) == pytest.approx(expected)
