"""What experiments/ computes about the trap: python -m pytest tests/test_trap.py"""
import math
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from data import SPLITS, Toy
from experiments import entropy, rebuttal, rows, sudoku, temperature, verdicts
from experiments.entropy import KINDS, kinds
from experiments.puzzle import GRIDS, Sudoku
from model import MaskedDiffusionLM, ModelConfig
from sample import Decoder, generate, text_length
from tests.test_model import tiny_model
from tests.test_sample import PROMPTS, assert_frequencies, noise

T = 0.6


# ----------------------------------------------------------------------------------------------
# LCR taken apart

def lcr_law(p, q, i):
    """P(v | position i's draw is the likeliest) from the sum over everybody's draws."""
    weights = [q[i][v] * math.prod(sum(q[j][u] for u in range(len(q[j])) if p[j][u] < p[i][v])
                                   for j in range(len(p)) if j != i) for v in range(len(p[i]))]
    return [w / sum(weights) for w in weights]


def winners(model, canvas, column):
    wanted = torch.zeros_like(canvas, dtype=torch.bool)
    wanted[:, column] = True
    with torch.no_grad():
        return rebuttal.WinnersLaw(model, T)(canvas, wanted).softmax(-1)


@pytest.mark.parametrize("canvas, column", [([1, 0, 5, 5, 5], 2), ([1, 0, 2, 5, 5], 3),
                                            ([1, 0, 2, 0, 5], 4)], ids=str)
def test_the_winners_law_is_the_sum_over_all_draws_in_which_the_leftmost_wins(canvas, column):
    model = tiny_model(seed=5, vocab_size=6, mask_id=5, eos_id=4, sharpness=1.0)
    with torch.no_grad():
        logits = model(torch.tensor([canvas]))[0, column:]
    p, q = logits.softmax(-1).tolist(), (logits / T).softmax(-1).tolist()
    found = winners(model, torch.tensor([canvas]), column)[0]
    assert found.tolist() == pytest.approx(lcr_law(p, q, 0), abs=1e-5)
    if canvas.count(5) == 1:        # no rival: it is the tempered law itself
        assert found.tolist() == pytest.approx(q[0], abs=1e-5)


def test_where_lcr_commits_the_leftmost_mask_first_its_tokens_follow_the_winners_law():
    model, N = tiny_model(seed=5, vocab_size=6, mask_id=5, eos_id=4, sharpness=1.0), 20_000
    prompt = torch.tensor([[1, 0]])
    torch.manual_seed(0)
    sample = generate(model, prompt.expand(N, -1), 3, Decoder("confidence", temperature=T))
    first = sample.tokens[sample.rank[:, 0] == 0, 0].tolist()
    assert len(first) > 1000
    law = winners(model, torch.tensor([[1, 0, 5, 5, 5]]), 2)[0].tolist()
    assert_frequencies(Counter(first), {v: len(first) * x for v, x in enumerate(law) if x > 0})


def test_the_winners_law_batches_canvases_with_different_numbers_of_masks():
    model = tiny_model(seed=5, vocab_size=6, mask_id=5, eos_id=4, sharpness=1.0)
    canvases = torch.tensor([[1, 0, 5, 5, 5], [1, 0, 2, 5, 5], [1, 0, 2, 0, 5]])
    wanted = torch.zeros_like(canvases, dtype=torch.bool)
    wanted[range(3), [2, 3, 4]] = True
    with torch.no_grad():
        together = rebuttal.WinnersLaw(model, T)(canvases, wanted).softmax(-1)
    for i, column in enumerate((2, 3, 4)):
        assert together[i].tolist() == pytest.approx(
            winners(model, canvases[i:i + 1], column)[0].tolist(), abs=1e-5)


def test_the_winners_law_is_refused_anywhere_but_at_the_leftmost_mask():
    model = tiny_model(seed=5, vocab_size=6, mask_id=5, eos_id=4)
    with pytest.raises(ValueError, match="leftmost"):
        winners(model, torch.tensor([[1, 0, 5, 5, 5]]), 3)


def test_drawing_anew_keeps_lcrs_place_but_not_its_token():
    model, N = tiny_model(seed=5, vocab_size=4, mask_id=3, eos_id=2, sharpness=1.0), 20_000
    prompts = torch.tensor([[1, 0]]).expand(N, -1)
    with torch.no_grad():
        q = (model(torch.tensor([[1, 0, 3, 3, 3]]))[0, 2:] / T).softmax(-1)
    torch.manual_seed(0)
    place = {}
    for order in "confidence", "redrawn":
        sample = generate(model, prompts, 3, Decoder(order, temperature=T))
        first = sample.rank.argmin(1)
        place[order] = torch.bincount(first, minlength=3) / N
        token = sample.tokens[torch.arange(N), first]
    assert torch.allclose(place["confidence"], place["redrawn"], atol=0.02)
    for i in range(3):      # given the place, the token is an ordinary draw there
        here = token[first == i]
        assert_frequencies(Counter(here.tolist()), {
            v: len(here) * x for v, x in enumerate(q[i].tolist()) if x > 0})


def test_at_temperature_0_there_is_nothing_to_draw_anew():
    model = tiny_model()
    a, b = (generate(model, PROMPTS, 5, Decoder(order), noise(1))
            for order in ("confidence", "redrawn"))
    assert a.tokens.equal(b.tokens) and a.rank.equal(b.rank)


def test_a_replay_commits_in_the_order_of_the_lcr_sample():
    model, decoder = tiny_model(sharpness=0.5), Decoder("random", temperature=T)
    lcr = generate(model, PROMPTS, 5, Decoder("confidence", temperature=T), noise(3))
    replay = rebuttal.replayed(model, PROMPTS, 5, decoder, noise(3))
    wanted = lcr.rank.argsort(dim=1, stable=True)
    for row, order in zip(replay.rank, wanted.tolist()):
        done = [i for i in order if row[i] < 5]
        assert row[done].tolist() == sorted(row[done].tolist())
        assert order[:len(done)] == done        # and none was left out on the way


# ----------------------------------------------------------------------------------------------
# statistics

def a_row(correct, n=4, **columns):
    return {"correct": " ".join(map(str, correct)), "n_samples": str(n), **columns}


def test_pass_at_k_from_a_row_is_pass_at_k_of_the_samples():
    row = a_row([0, 1, 4])
    assert rows.solved(row, 1).tolist() == [0, 0.25, 1]
    assert rows.solved(row, 2).tolist() == [0, 0.5, 1]
    assert rows.lead(a_row([4, 4, 4]), row, 1)[0] == pytest.approx(1 - 1.25 / 3)


def test_the_crossing_is_the_first_k_at_which_left_to_right_is_ahead():
    freedom, ltr = a_row([4, 4, 0, 0]), a_row([1, 1, 1, 1])    # .5 at any k; .25, .5, .75, 1
    assert rows.crossing(ltr, freedom, [1, 2, 3, 4])[0] == 3
    assert rows.crossing(freedom, ltr, [1, 2, 3, 4])[0] == 1
    assert rows.crossing(ltr, ltr, [1, 2, 3, 4]) == (math.inf, math.inf, math.inf)
    _, low, high = rows.crossing(ltr, freedom, [1, 2, 3, 4])
    assert low == 1 and high == math.inf        # resampled, all four may be of either kind


def test_mcnemar_is_a_sign_test_of_the_problems_that_one_order_alone_solves():
    a, b = a_row([1] * 8 + [0] * 2 + [3]), a_row([0] * 8 + [4] * 2 + [1])
    only_a, only_b, p = rows.mcnemar(a, b)
    assert (only_a, only_b) == (8, 2)
    assert p == pytest.approx(2 * (1 + 10 + 45) / 1024)
    assert rows.mcnemar(a, a) == (0, 0, 1.0)


def test_holm_multiplies_the_smallest_by_the_number_of_tests_and_never_falls():
    assert rows.holm([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])
    assert rows.holm([0.6, 0.7]) == [1.0, 1.0]


def test_spearman_of_a_falling_curve_is_minus_1_and_ties_share_a_rank():
    assert rows.spearman(range(4), [9, 7, 6, 1]) == pytest.approx(-1)
    assert rows.spearman([1, 2, 3, 4], [5, 5, 6, 7]) == pytest.approx(0.9487, abs=1e-4)


# ----------------------------------------------------------------------------------------------
# rows

@pytest.fixture
def args(tmp_path, monkeypatch):
    task, asked = Toy(), []
    model = MaskedDiffusionLM(ModelConfig(task.tokenizer.n_vocab, task.mask_id, task.eos_id,
                                          n_layer=1, n_embd=16, n_head=2, n_hidden=16))
    def load(folder, variant, seed, quick):
        asked.append((variant, seed))
        return model, task, "0a0b0c0d"
    monkeypatch.setattr(rows, "load", load)
    flags = rows.parse_flags("x", "x", ["--csv", str(tmp_path / "x.csv"), "--quick"])
    flags.asked = asked
    return flags


def test_a_row_that_exists_is_not_measured_again(args):
    cells = [rows.Cell("default", 0, rows.LTR), rows.Cell("default", 0, rows.LCR)]
    first = rows.collect(args, cells[:1])
    both = rows.collect(args, cells)
    assert len(args.asked) == 2 and both[0] == first[0] and len(both) == 2
    assert rows.collect(args, cells) == both and len(args.asked) == 2


def test_rows_of_other_weights_are_not_mixed(args, monkeypatch):
    rows.collect(args, [rows.Cell("default", 0, rows.LTR)])
    monkeypatch.setattr(rows, "load", lambda *_: (None, None, "ffffffff"))
    with pytest.raises(SystemExit, match="other weights.*--csv"):
        rows.collect(args, [rows.Cell("default", 0, rows.LCR)])


def test_entropys_rows_of_other_weights_are_not_mixed_either(args, monkeypatch):
    monkeypatch.setattr(entropy, "load", rows.load)
    one, two = [(0, rows.LTR)], [(0, rows.LTR), (0, rows.BLOCKS)]
    assert entropy.collect(args, one) == entropy.collect(args, one) and len(args.asked) == 1
    monkeypatch.setattr(entropy, "load", lambda *_: (None, None, "ffffffff"))
    with pytest.raises(SystemExit, match="other weights.*--csv"):
        entropy.collect(args, two)


def test_rows_of_other_numbers_of_samples_stay_apart(args):
    cell = rows.Cell("default", 0, rows.LTR, n_samples=4)
    rows.collect(args, [cell])
    few = rows.collect(args, [rows.Cell("default", 0, rows.LTR, n_samples=2)])
    assert [r["n_samples"] for r in few] == ["2"]


def test_a_derivation_is_a_text_that_writes_every_step_right():
    task = Toy()
    problems = task.problems("test", 0, 2)
    full, short = (task.solution(problems[0], n) for n in (task.n_steps, 0))
    one = (np.array([3.0, 1.0]), np.array([4.0, 4.0]))
    result = {"nfe": 1, "n_forward": 1, "seconds": 0, "correct": np.array([[1, 1], [0, 0]]),
              "texts": [[full, short], [full, " #### 1"]],
              "measures": {"bypass_fork": one, "bypass_other": one, "distinct": one}}
    row = rows.numbers(task, problems, result)
    assert row["correct"] == "2 0" and row["derived"] == "1 0"      # the other problem's is wrong
    assert row["fork_share"].split()[0] == "0.5" and row["distinct"].split()[0] == "0.5"


# ----------------------------------------------------------------------------------------------
# tokens by kind; the puzzle; the bases

@pytest.mark.parametrize("n_steps", [6, 8])
def test_every_token_of_a_solution_is_of_one_kind_but_the_forks_that_go_on(n_steps):
    task = Toy(n_steps=n_steps)
    for n in range(n_steps + 1):
        tokens = task.completions([task.solution(task.problem("test", 0), n)])
        where = kinds(task, tokens)
        assert set(where) == set(KINDS)
        total = sum(where.values())[0, :text_length(tokens, task.eos_id)[0]]
        assert total.tolist() == [1] * len(total)
        assert where["fork: go on"].sum() == n and where["value"].sum() == n
        assert where["fork: jump"].sum() == (n < n_steps) and where["final number"].sum() == 1
        assert where["#### after the last step"].sum() == (n == n_steps)


def test_of_a_text_it_is_known_what_was_there_first():
    task = Toy()
    problem, L = task.problem("test", 0), task.completion_length
    tokens = task.completions([task.solution(problem, task.n_steps), task.solution(problem, 0)])
    rank = torch.arange(L).repeat(2, 1)
    rank[1] = torch.tensor([2, 1, 0] + [L] * (L - 3))       # "#### N <end>", from its end on
    backwards = rank.clone()
    backwards[0] = rank[0].flip(0)
    def shares(rank):
        sample = SimpleNamespace(tokens=tokens, rank=rank, entropy=torch.ones(2, L))
        found = entropy.look(task, {"correct": np.array([[1.0, 0.0]]), "samples": [sample]}, 2)
        return {(r["name"], r["measure"]): r["value"] for r in found if r["table"] != "place"}
    found = shares(rank)
    assert found["in_the_head", "share"] == found["all_steps", "share"] == 0.5
    assert found["right_all_steps", "share"] == 1 and found["right_in_the_head", "share"] == 0
    assert found["end_first", "share"] == 0.5 and found["fork: go on", "bypass"] == 0
    assert found["number_before_a_value", "share"] == found["number_before_all", "share"] == 0
    assert found["no_room", "share"] == 0.5         # the short text's padding was never committed
    # All commits of the first text, and the last of the second: the leftmost mask, each time.
    assert found["leftmost", "share"] == (L + 1) / (L + 3)
    found = shares(backwards)       # the forks of the first text come last
    assert found["end_first", "share"] == found["fork: go on", "bypass"] == 1
    assert found["number_before_a_value", "share"] == found["number_before_all", "share"] == 1
    assert found["no_room", "share"] == 0.5         # the long one's end stands in the last place


def test_the_samples_looked_at_are_the_ones_that_were_counted(args):
    model, task, _ = rows.load("", "", 0, True)
    problems = task.held_out("test", 9)         # more than a batch of 8
    result = entropy.sampled(model, task, problems, rows.LCR, 2)
    texts = [task.text(t) for s in result["samples"] for t in s.tokens.tolist()]
    assert texts == [text for row in result["texts"] for text in row] and len(texts) == 18


def test_the_best_temperature_is_chosen_on_one_half_and_reported_on_the_other():
    def row(t, correct):
        return a_row(correct, arm=str(rows.LTR), seed="0", temperature=str(t))
    made = [row(0.3, [4, 4, 0, 0]), row(0.6, [3, 3, 2, 2]), row(1.0, [3, 3, 4, 4]),
            row(1.2, [0, 0, 4, 4]), row(1.5, [0, 0, 0, 0])]
    t, others = temperature.best(made, rows.LTR, 0, 1)
    assert t == 0.3 and others.tolist() == [0, 0]
    t, others = temperature.best(made, rows.LTR, 0, 4)      # .3, .6 and 1 solve all: .6 is nearest
    assert t == 0.6 and others.tolist() == [1, 1]


def test_sudokus_of_one_grid_are_resampled_together(monkeypatch):
    monkeypatch.setattr(sudoku, "grids", lambda n: ["a"] * 8 + ["b"] * 2)
    value, low, high = sudoku.by_grid([1.0] * 8 + [0.0] * 2)
    assert (value, low, high) == (0.8, 0.0, 1.0)        # two grids: both may be "a", or "b"


def test_a_longer_toy_has_a_canvas_for_its_longest_text():
    task = Toy(n_steps=8)
    problems = task.problems("test", 0, 50)
    ids = task.completions([task.solution(p, 8) for p in problems])
    assert (ids[:, -1] == task.eos_id).all() and (ids[:, -2] != task.eos_id).all()
    prompts = task.prompts([p["question"] for p in problems])
    assert (prompts[:, 0] != task.eos_id).all()         # nothing is padded


def test_every_sudoku_has_one_solution_and_no_clue_too_many():
    assert len(GRIDS) == 288        # known: 4x4 Sudoku
    def solutions(puzzle):
        return [g for g in GRIDS if all(c in (".", v) for c, v in zip(puzzle, g))]
    seen = {}
    for split in SPLITS:
        for p in Sudoku().problems(split, 0, 20):
            puzzle = p["question"]
            assert solutions(puzzle) == [p["answer"]] == [p["solution"]]
            for i, c in enumerate(puzzle):
                if c != ".":
                    assert len(solutions(puzzle[:i] + "." + puzzle[i + 1:])) > 1
            seen.setdefault(split, set()).add(p["answer"])
    assert not seen["train"] & seen["test"] and not seen["validation"] & seen["test"]


def test_all_grids_of_sudoku_obey_its_rules():
    for grid in GRIDS:
        lines = [grid[4 * r:4 * r + 4] for r in range(4)] + [grid[c::4] for c in range(4)]
        boxes = [grid[i:i + 2] + grid[i + 4:i + 6] for i in (0, 2, 8, 10)]
        assert all(set(x) == set("1234") for x in lines + boxes)


# ----------------------------------------------------------------------------------------------
# verdicts

def test_a_claim_holds_or_fails_only_if_all_seeds_say_so():
    assert verdicts.above([(0.2, 0.1, 0.3), (0.3, 0.2, 0.4)]) == "holds"
    assert verdicts.above([(0.2, 0.1, 0.3), (0.1, -0.1, 0.4)]) == "undecided"
    assert verdicts.above([(-0.2, -0.3, -0.1)]) == "does not hold"
    assert verdicts.above([(0.2, 0.1, 0.3)], bar=0.15) == "undecided"
    assert verdicts.within([(0.0, -0.01, 0.01)], 0.02) == "holds"
    assert verdicts.within([(0.1, 0.05, 0.15), (-0.1, -0.2, -0.03)], 0.02) == "does not hold"
    assert verdicts.within([(0.0, -0.05, 0.01)], 0.02) == "undecided"
