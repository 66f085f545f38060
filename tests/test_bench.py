"""The benchmark's baselines and checks, not its times: python -m pytest tests/test_bench.py"""
import csv
import functools
from collections import Counter

import pytest
import torch

from data import Toy
from experiments import bench, scaling
from grpo import grpo_loss
from model import MaskedDiffusionLM, ModelConfig, save_checkpoint
from sample import Decoder, generate
from tests.test_grpo import ADVANTAGE, batch
from tests.test_model import tiny_model
from tests.test_sample import PROMPTS, assert_frequencies

DECODERS = [Decoder(order, block_length=block, temperature=0.6) for order, block in
            [("left_to_right", None), ("confidence", None), ("confidence", 3),
             ("top_probability", None)]]


def test_the_published_loss_has_the_gradient_of_ours():
    model = tiny_model()
    prompt, completion, rank = batch("ragged")
    theirs = bench.published_loss(model, prompt, completion, ADVANTAGE, n_rows=4)
    bench.same_gradient(model, theirs, grpo_loss(model, prompt, completion, rank, ADVANTAGE))
    assert all(p.grad is None for p in model.parameters())      # nothing is left for a next row


def test_the_published_loss_runs_every_position_of_every_row():
    model, n_rows = tiny_model(), []
    model.register_forward_hook(lambda module, args, logits: n_rows.append(len(args[0])))
    prompt, completion, rank = batch("ragged")
    list(bench.published_loss(model, prompt, completion, torch.zeros(6)))
    assert sum(n_rows) == completion.numel()


def test_gradients_that_differ_are_refused():
    model = tiny_model()
    prompt, completion, rank = batch("ragged")
    ours = functools.partial(grpo_loss, model, prompt, completion, rank)
    bench.same_gradient(model, ours(ADVANTAGE), ours(ADVANTAGE))
    with pytest.raises(SystemExit, match="refused: the gradients differ by"):
        bench.same_gradient(model, ours(ADVANTAGE), ours(ADVANTAGE + torch.eye(6)[0] * 1e-3))


@pytest.mark.parametrize("decoder", DECODERS, ids=str)
def test_the_published_sampler_gives_our_tokens_from_our_noise_and_others_are_refused(
        decoder, monkeypatch):
    model, prompts = tiny_model(), PROMPTS.repeat_interleave(8, 0)
    bench.same_tokens(model, prompts, 5, decoder)
    monkeypatch.setattr(bench, "generate", lambda model, prompts, length, decoder, uniform:
                        generate(model, prompts, length, decoder, lambda: 1 - uniform()))
    with pytest.raises(SystemExit, match="refused: .* texts differ"):
        bench.same_tokens(model, prompts, 5, decoder)


@pytest.mark.parametrize("temperature", [0.6, 1.0])
def test_the_published_noise_follows_the_tempered_distribution(temperature):
    torch.manual_seed(0)
    p = torch.tensor([0.4, 0.3, 0.0, 0.25, 0.05])
    drawn = bench.gumbel(temperature)(p.log().expand(4000, 1, 5)).flatten()
    share = p ** (1 / temperature) / (p ** (1 / temperature)).sum()
    assert_frequencies(Counter(drawn.tolist()), dict(enumerate((4000 * share).tolist())))


def test_gradients_that_are_zero_or_no_numbers_are_refused():
    model = tiny_model()
    for factor in (0.0, torch.nan):
        one, other = ([model(PROMPTS)[..., :2].sum() * factor] for _ in range(2))
        with pytest.raises(SystemExit, match="refused"):
            bench.same_gradient(model, one, other)


def test_texts_of_one_distribution_pass_and_those_of_another_are_refused():
    generator = torch.Generator().manual_seed(0)

    def texts(*p, n=1000):
        return torch.multinomial(torch.tensor(p), n, True, generator=generator).tolist()
    for _ in range(20):
        bench.same_distribution(texts(0.5, 0.3, 0.1, 0.05, 0.03, 0.02), texts(
            0.5, 0.3, 0.1, 0.05, 0.03, 0.02, n=700))
    with pytest.raises(SystemExit, match="refused: other texts"):
        bench.same_distribution(texts(0.5, 0.3, 0.2), texts(0.4, 0.4, 0.2))
    with pytest.raises(SystemExit, match="refused"):    # one that the other never writes
        bench.same_distribution(texts(0.5, 0.47, 0.03), texts(0.5, 0.5, 0.0))


def test_the_matrix_products_of_a_step_are_found_forward_and_backward():
    layer, x = torch.nn.Linear(3, 4, bias=False), torch.randn(5, 3, requires_grad=True)
    q, k = (torch.randn(2, 2, n, 8, requires_grad=True) for n in (6, 7))
    with bench.Products() as products:
        layer(x).sum().backward()
        torch.nn.functional.scaled_dot_product_attention(q, k, k).sum().backward()
    shapes = [tuple(tuple(shape) for shape, _ in pair) for pair in products.pairs]
    assert sorted(shapes[:3]) == sorted([((5, 3), (3, 4)), ((5, 4), (4, 3)), ((4, 5), (5, 3))])
    assert sorted(shapes[3:]) == sorted([
        ((4, 6, 8), (4, 8, 7)), ((4, 6, 7), (4, 7, 8)),                         # forward
        ((4, 7, 6), (4, 6, 8)), ((4, 6, 8), (4, 8, 7)),                         # of v, of weights
        ((4, 6, 7), (4, 7, 8)), ((4, 7, 6), (4, 6, 8))])                        # of q, of k
    assert [tuple(y.shape) for y in products.replay()()][:1] == [(5, 4)]


@pytest.fixture
def folder(tmp_path):
    torch.manual_seed(0)
    task = Toy()
    model = MaskedDiffusionLM(ModelConfig(task.tokenizer.n_vocab, task.mask_id, task.eos_id,
                                          n_layer=1, n_embd=16, n_hidden=16))
    for name in ("base", "justgrpo"):
        save_checkpoint(tmp_path / f"{name}.pt", model, task.describe(), seed=0, stage=name)
    return tmp_path


def test_without_any_signal_there_is_no_loss_to_time(folder):
    with pytest.raises(SystemExit, match="at the start of training no group has a signal"):
        bench.main(["--quick", "--out", str(folder), "--only", "RL"])


def test_quick_writes_its_rows_with_exactly_these_columns(folder, capsys, monkeypatch):
    monkeypatch.setattr(Toy, "reward", lambda self, text, answer: float(len(text) % 2))
    bench.main(["--quick", "--out", str(folder), "--csv", str(folder / "bench.csv")])
    rows = list(csv.DictReader(open(folder / "bench.csv", encoding="utf-8")))
    assert list(rows[0]) == ["what", "baseline", "contender", "rounds", "ratio_median",
                             "ratio_min", "ratio_max"]
    assert [row["what"].split(",")[0] for row in rows] == [
        "RL loss", "rollouts for RL", "RL loss", "rollouts for RL", "pass@64",
        "a pretraining step against its matrix products"]
    for row in rows:
        assert 0 < float(row["ratio_min"]) <= float(row["ratio_median"]) <= float(row["ratio_max"])
    assert f"{torch.get_num_threads()} threads" in capsys.readouterr().out


def test_scaling_counts_distinct_states_and_measures_no_point_twice(folder, monkeypatch):
    every = scaling.points

    def some(base, quick):
        return [p for p in every(base, quick)
                if p[0] in ("rollouts a prompt", "pass@n, confidence")]
    monkeypatch.setattr(scaling, "points", some)
    path, argv = folder / "scaling.csv", ["--quick", "--out", str(folder), "--csv"]
    scaling.main([*argv, str(path)])
    first = path.read_text(encoding="utf-8")
    rows = list(csv.DictReader(first.splitlines()))
    assert list(rows[0]) == ["what", "x", "seconds", "states", "published_states"]
    assert [row["x"] for row in rows] == ["4", "8", "1", "16"]
    assert [int(r["published_states"]) for r in rows] == [2 * 64 * 22, 2 * 128 * 22, 16 * 22,
                                                          256 * 22]
    assert all(0 < int(row["states"]) <= int(row["published_states"]) for row in rows)
    path.write_text(first.replace(rows[0]["seconds"], "77.0"), encoding="utf-8")
    scaling.main([*argv, str(path)])
    assert "77.0" in path.read_text(encoding="utf-8")


def test_a_network_of_another_size_answers_as_the_base_and_is_run(folder):
    base = scaling.load_checkpoint(folder / "base.pt")[0]
    other, seen = scaling.Sized(base, n_embd=24, n_layer=2), []
    other.worker.register_forward_hook(lambda module, args, logits: seen.append(logits))
    tokens, wanted = torch.zeros(3, 9).long(), torch.eye(3, 9).bool()
    with torch.no_grad():
        assert other(tokens, wanted).equal(base(tokens, wanted)) and len(seen) == 1
    assert other(tokens, wanted) is seen[1]         # with gradients: its own, to run them back
    assert other.n_states == 6 and other.config.n_hidden == 72


def test_without_a_checkpoint_it_says_in_one_line_how_to_make_it(tmp_path, capsys):
    with pytest.raises(SystemExit):
        bench.main(["--out", str(tmp_path)])
    assert "python train.py" in capsys.readouterr().err.splitlines()[-1]
