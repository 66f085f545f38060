"""The benchmark compares what is the same, and every table on a page is what its rows say.

    python -m pytest tests/test_experiments.py
    python -m pytest tests/test_experiments.py -m slow      bench.py and scaling.py, --quick

The benchmark's baselines and checks are tested, not its times.
"""
import shutil
from collections import Counter

import pytest
import torch

import train
from data import Worksheet
from experiments import bench, scaling, tables
from grpo import policy_losses
from model import MaskedDiffusionLM, ModelConfig
from runs import read_csv
from sample import Decoder, generate, load_checkpoint, save_checkpoint
from tests.test_grpo import ADVANTAGE, batch
from tests.test_model import tiny_model, watch
from tests.test_sample import PROMPTS, assert_frequencies
from tests.test_scripts import no_matplotlib, run

DECODERS = [Decoder("left_to_right", temperature=0.6), Decoder("confidence", temperature=0.6),
            Decoder("confidence", block_length=3, temperature=0.6),
            Decoder("top_probability", temperature=0.6)]


# ------------------------------------------------------------------------------------------- pages

@pytest.mark.parametrize("page", tables.pages(), ids=lambda page: page.name)
def test_every_table_of_a_page_is_what_the_rows_say(page):
    text = page.read_text(encoding="utf-8")
    assert tables.fill(text) == text, "run: python experiments/tables.py --write"


@pytest.mark.parametrize("page", tables.pages(), ids=lambda page: page.name)
def test_every_number_that_a_page_cites_is_that_of_the_rows(page):
    known = tables.numbers(tables.ASSETS)
    for name, value in tables.CITED.findall(page.read_text(encoding="utf-8")):
        assert known[name] == value, name


def test_the_readme_has_a_table_and_cites_numbers():
    text = (tables.ROOT / "README.md").read_text(encoding="utf-8")
    assert tables.MARKER.search(text) and tables.CITED.search(text)


@pytest.mark.parametrize("text, about", [
    ("<!-- nonsense -->\n<!-- /nonsense -->", "no table is called nonsense"),
    ("<!-- trap -->\n", "<!-- trap --> has no <!-- /trap -->")])
def test_a_marker_that_is_unknown_or_alone_is_an_error(text, about):
    with pytest.raises(ValueError, match=about):
        tables.fill(text)


def test_a_table_that_was_changed_by_hand_is_made_anew():
    found = tables.fill("a\n<!-- bench -->\n\nwrong\n\n<!-- /bench -->\nb")
    assert "wrong" not in found and found.startswith("a\n<!-- bench -->\n\n| the same work |")
    assert found.endswith("|\n\n<!-- /bench -->\nb") and tables.fill(found) == found


def test_the_mean_over_seeds_has_students_interval():
    # Of 1, 2, 3: standard deviation 1, t = 4.303 with two degrees of freedom.
    value, low, high = tables.over_models([1.0, 2.0, 3.0])
    assert value == 2 and low == pytest.approx(2 - 4.303 / 3**0.5)
    assert high == pytest.approx(2 + 4.303 / 3**0.5)
    assert tables.over_models([1.0]).bounds() == "-"


def test_a_decoder_that_the_runs_have_not_measured_breaks_no_table(monkeypatch):
    text = (tables.ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    monkeypatch.setitem(train.TRAP, "margin", Decoder("margin", temperature=0.6))
    monkeypatch.setitem(train.GREEDY, "eight a step", Decoder("top_probability", "k", 8))
    assert tables.fill(text) == text


def test_the_picture_is_drawn_where_matplotlib_is_installed_and_else_missed(tmp_path, capsys):
    shutil.copytree(tables.ASSETS / "seed-1", tmp_path / "out")
    with no_matplotlib(), pytest.MonkeyPatch.context() as patch:
        patch.delitem(train.sys.modules, "experiments.progress", raising=False)
        train.draw_progress(tmp_path / "out")
    assert "matplotlib is not installed" in capsys.readouterr().out
    assert not (tmp_path / "out" / "progress.png").exists()
    pytest.importorskip("matplotlib")
    train.draw_progress(tmp_path / "out")
    assert (tmp_path / "out" / "progress.png").read_bytes()[:4] == b"\x89PNG"


# ----------------------------------------------------------------------------- the published loops

def test_the_published_loss_has_the_gradient_of_ours_and_runs_every_position_of_every_row():
    model = tiny_model()
    prompt, tokens, rank = batch("ragged")
    rows = [(prompt, tokens, rank, ADVANTAGE)]
    canvases = watch(model)
    theirs = bench.gradient(model, bench.published_losses, rows)
    assert len(torch.cat(canvases)) == tokens.numel()
    bench.same_gradient(theirs, bench.gradient(model, policy_losses, rows))
    other = [(prompt, tokens, rank, ADVANTAGE + torch.eye(6)[0] * 1e-3)]
    with pytest.raises(SystemExit, match="refused: the gradients differ by"):
        bench.same_gradient(theirs, bench.gradient(model, policy_losses, other))


def test_gradients_that_are_zero_or_no_numbers_are_refused():
    for value in (0.0, torch.nan):
        with pytest.raises(SystemExit, match="refused"):
            bench.same_gradient(torch.full((3,), value), torch.full((3,), value))


@pytest.mark.parametrize("decoder", DECODERS, ids=str)
def test_the_published_sampler_gives_our_tokens_from_our_noise_and_others_are_refused(decoder):
    model, prompts = tiny_model(), PROMPTS.repeat_interleave(8, 0)
    ours = generate(model, prompts, 5, decoder, bench.noise(prompts, 5)).tokens
    pick = bench.inverse(decoder.temperature, bench.noise(prompts, 5))
    theirs = bench.published_sampler(model, prompts, 5, decoder, pick)
    bench.same_tokens(ours, theirs, model.config.eos_id)
    mirrored = bench.noise(prompts, 5)
    other = generate(model, prompts, 5, decoder, lambda: 1 - mirrored()).tokens
    with pytest.raises(SystemExit, match="refused: .* texts differ"):
        bench.same_tokens(other, theirs, model.config.eos_id)


@pytest.mark.parametrize("temperature", [0.6, 1.0])
def test_the_published_noise_follows_the_tempered_distribution(temperature):
    torch.manual_seed(0)
    p = torch.tensor([0.4, 0.3, 0.0, 0.25, 0.05])
    drawn = bench.gumbel(temperature)(p.log().expand(4000, 1, 5)).flatten()
    share = p ** (1 / temperature) / (p ** (1 / temperature)).sum()
    assert_frequencies(Counter(drawn.tolist()), dict(enumerate((4000 * share).tolist())))


# ---------------------------------------------------------------------------------- the benchmarks

@pytest.fixture
def folder(tmp_path):
    """base.pt and justgrpo.pt, of a network that has learned nothing."""
    torch.manual_seed(0)
    task = Worksheet()
    model = MaskedDiffusionLM(ModelConfig(task.tokenizer.n_vocab, task.mask_id, task.eos_id,
                                          n_layer=1, n_embd=16, n_hidden=16))
    for name in ("base", "justgrpo"):
        save_checkpoint(tmp_path / f"{name}.pt", model, task, seed=0, stage=name)
    return tmp_path


def test_without_any_signal_there_is_no_loss_to_time(folder, monkeypatch):
    monkeypatch.setattr(bench.Bench, "compare", lambda *_, **__: None)     # the rollouts' times
    status, _, err = run(bench.main, "--quick", "--out", folder, "--only", "RL", "--csv",
                         folder / "bench.csv")
    assert status == 0, err
    rows = [row for row in read_csv(folder / "bench.csv") if row["what"].startswith("RL loss")]
    assert len(rows) == 2               # at the start of training, and at its end
    for row in rows:
        what, baseline, here, runs, *ratios = [row[name] for name in bench.COLUMNS]
        assert baseline == "not timed: no group has a signal" and runs == "0"
        assert ratios == ["", "", ""]


@pytest.mark.parametrize("main", [bench.main, scaling.main])
def test_without_a_checkpoint_it_says_in_one_line_how_to_make_it(main, tmp_path):
    status, _, err = run(main, "--out", tmp_path, "--csv", tmp_path / "rows.csv")
    assert status == 2 and "python train.py" in err.splitlines()[-1]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_bench_quick_writes_a_row_for_each_comparison(folder, monkeypatch):
    monkeypatch.setattr(Worksheet, "is_right", lambda self, text, answer: len(text) % 2 == 1)
    path = folder / "bench.csv"
    status, out, err = run(bench.main, "--quick", "--out", folder, "--csv", path)
    assert status == 0, err
    rows = read_csv(path)
    assert list(rows[0]) == bench.COLUMNS
    assert [row["what"].split(",")[0] for row in rows] == [
        "RL loss", "rollouts for RL", "RL loss", "rollouts for RL", "pass@64"]
    for row in rows:
        assert 0 < float(row["ratio_min"]) <= float(row["ratio_median"]) <= float(row["ratio_max"])
    assert f"{torch.get_num_threads()} threads" in out


@pytest.mark.slow
def test_scaling_counts_distinct_states_and_measures_no_point_twice(folder):
    path = folder / "scaling.csv"
    flags = ["--quick", "--out", folder, "--csv", path]
    assert run(scaling.main, *flags)[0] == 0
    rows = read_csv(path)
    assert list(rows[0]) == scaling.COLUMNS and len(rows) == 10
    published = {(row["what"], row["x"]): int(row["published_states"]) for row in rows}
    assert published["rollouts a prompt", "4"] == 2 * 16 * 4 * 22
    assert published["pass@n, confidence", "4"] == 16 * 4 * 22
    assert all(0 < int(row["states"]) <= int(row["published_states"]) for row in rows)
    changed = path.read_text(encoding="utf-8").replace(rows[0]["seconds"], "77.0")
    path.write_text(changed, encoding="utf-8")
    assert run(scaling.main, *flags)[0] == 0
    assert path.read_text(encoding="utf-8") == changed
