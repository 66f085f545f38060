"""Facts about the measures: pass@k, intervals, bypass, evaluations spent.

    python -m pytest tests/test_eval.py
"""
import csv
import math
import warnings
from fractions import Fraction
from itertools import combinations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from data import Task, Toy, make_tokenizer
from eval_gsm8k import (MEASURE_COLUMNS, RESULT_COLUMNS, bootstrap, evaluate, interval, measure,
                        pass_at_k, result_rows, write_csv)
from model import MaskedDiffusionLM, ModelConfig
from sample import Decoder, Sample, generate
from train import crossing

torch.set_num_threads(1)
TOY = Toy()
PROBLEMS = TOY.problems("test", 0, 8)


def grid(n, *right):
    """One row of n samples a problem, the first c of them right."""
    return np.array([[1.0] * c + [0.0] * (n - c) for c in right])


# ---------------------------------------------------------------------------------------- pass@k

def test_pass_at_k_is_the_share_of_subsets_of_k_samples_that_hold_a_right_one():
    for n in range(1, 8):
        for k in range(1, n + 1):
            row = grid(n, *range(n + 1))
            expected = [np.mean([any(s) for s in combinations(r, k)]) for r in row]
            assert pass_at_k(row, k) == pytest.approx(expected, abs=1e-12)


def test_pass_at_1_is_the_mean_and_pass_at_n_is_whether_any_is_right():
    correct = (np.random.default_rng(0).random((20, 7)) < 0.2).astype(float)
    assert pass_at_k(correct, 1) == pytest.approx(correct.mean(1), abs=1e-12)
    assert pass_at_k(correct, 7).tolist() == correct.max(1).tolist()


def test_pass_at_k_does_not_care_which_of_the_samples_are_right():
    correct = grid(6, 2)
    for order in ([5, 4, 3, 2, 1, 0], [0, 2, 4, 1, 3, 5]):
        assert pass_at_k(correct[:, order], 3) == pytest.approx([1 - 4 / 20])   # C(4,3) of C(6,3)


def test_pass_at_k_is_exact_at_1024_samples_where_factorials_would_overflow():
    n, right = 1024, [0, 1, 2, 37, 512, 1022, 1023, 1024]
    ks = [1, 2, 3, 10, 100, 511, 512, 1000, 1023, 1024]
    found = np.array([pass_at_k(grid(n, *right), k) for k in ks])
    exact = [[float(1 - Fraction(math.comb(n - c, k), math.comb(n, k))) for c in right] for k in ks]
    assert found == pytest.approx(np.array(exact), abs=1e-11)
    assert (np.diff(found, axis=0) >= 0).all()      # more samples never hurt
    assert (np.diff(found, axis=1) >= 0).all()      # nor does one more right one


@pytest.mark.parametrize("k", [5, 0, -1])
def test_pass_at_k_of_more_samples_than_there_are_is_refused(k):
    with pytest.raises(ValueError, match="4"):
        pass_at_k(grid(4, 1, 2), k)


# ------------------------------------------------------------------------------------- intervals

def test_constant_data_have_an_interval_of_zero_width():
    assert bootstrap([0.25] * 30) == (0.25, 0.25, 0.25)


def test_the_interval_of_a_proportion_is_close_to_the_normal_one():
    value, low, high = bootstrap([1.0] * 120 + [0.0] * 280)
    half = 1.96 * math.sqrt(0.3 * 0.7 / 400)
    assert value == pytest.approx(0.3)
    assert (low, high) == pytest.approx((0.3 - half, 0.3 + half), abs=0.006)


def test_the_interval_narrows_with_the_root_of_the_number_of_problems():
    width = [high - low for _, low, high in (bootstrap([1.0, 0.0] * n) for n in (50, 800))]
    assert width[0] / width[1] == pytest.approx(4, rel=0.15)


def test_a_paired_difference_is_sharper_than_two_intervals_apart():
    # Problems differ wildly; the second arm is ahead by 0.1 on every one of them.
    before = np.random.default_rng(1).random(50)
    value, low, high = bootstrap((before + 0.1) - before)
    assert (value, low, high) == pytest.approx((0.1, 0.1, 0.1))
    assert bootstrap(before)[2] > bootstrap(before + 0.1)[1]    # unpaired, they overlap


def test_a_difference_the_other_way_round_has_the_mirrored_interval():
    x = np.random.default_rng(2).normal(size=40)
    value, low, high = bootstrap(x)
    assert bootstrap(-x) == pytest.approx((-value, -high, -low))


def test_a_ratio_is_one_of_sums_and_not_the_mean_of_ratios():
    value, low, high = bootstrap([1, 9], [1, 3])
    assert value == 10 / 4          # the mean of 1/1 and 9/3 would be 2
    assert (low, high) == (1, 3)    # resamples of one problem only
    # Ten times 1/1 and ten times 100/50: the resamples, too, are of sums, near 1010/510 = 1.98.
    value, low, high = bootstrap([1, 100] * 10, [1, 50] * 10)
    assert 1.9 < low < value < high < 2
    assert bootstrap([2, 6, 4], [1, 3, 2]) == (2, 2, 2)


def test_the_same_data_have_the_same_interval_whatever_was_drawn_before():
    x = np.random.default_rng(3).random(30)
    first = bootstrap(x)
    np.random.seed(5), np.random.rand(7)
    assert bootstrap(x) == first


def test_a_rate_of_nothing_is_nan_and_prints_no_warning():
    # bypass_other, where every text is empty: there is no other position.
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.isnan(bootstrap([0.0, 0.0], [0.0, 0.0])).all()


# -------------------------------------------------------------- crossings: a sentence from the rows

def scores(**by_k):
    return {int(k[1:]): np.array(v, dtype=float) for k, v in by_k.items()}


def sentence(ltr, other):
    return crossing({k: interval(ltr[k] - other[k]) for k in ltr})


def test_the_sentence_about_a_crossing_can_say_yes_no_and_not_sure():
    ltr = scores(k1=[0.2] * 40, k2=[0.5] * 40, k4=[0.9] * 40)
    other = scores(k1=[0.4] * 40, k2=[0.5] * 40, k4=[0.6] * 40)
    yes = sentence(ltr, other)
    assert "overtakes" in yes and "no crossing" not in yes
    assert "-0.200 at k=1" in yes and "+0.300 at k=4" in yes and "not clear" not in yes
    never = sentence(other, scores(k1=[0.5] * 40, k2=[0.6] * 40, k4=[0.6] * 40))
    assert "no crossing" in never and "never ahead" in never
    ahead = sentence(scores(k1=[0.6] * 40, k2=[0.9] * 40), scores(k1=[0.1] * 40, k2=[0.8] * 40))
    assert "no crossing" in ahead and "ahead from" in ahead and "+0.500 at k=1" in ahead
    # One problem of 40 decides it: a crossing, but not one to bet on.
    noise = sentence(scores(k1=[0.0] * 40, k2=[1.0] + [0.0] * 39),
                     scores(k1=[0.0] * 39 + [1.0], k2=[0.0] * 40))
    assert "overtakes" in noise and "+0.025 at k=2" in noise
    assert noise.count("not clear of zero") == noise.count("clear of zero") >= 2


# ------------------------------------------------------------------- measures, on a sample by hand

WORDS = [" 3", " +1", " ->", " 4", " ####", " 9", "EOS", "EOS"]     # forks: 0 and 4; text: 0..6


def hand_made(*ranks, words=WORDS, entropy=None, is_top=None, nfe=None):
    token = {"EOS": TOY.eos_id}
    ids = [token[w] if w in token else TOY.tokenizer.encode_single_token(w) for w in words]
    rank = torch.tensor(ranks)
    B, L = rank.shape
    ones = torch.ones(B, L)
    return Sample(torch.tensor([ids] * B), rank, ones * 0 if entropy is None else entropy, -ones,
                  ones, ones > 0 if is_top is None else is_top,
                  torch.tensor(nfe or [int(r[r < L].max()) + 1 for r in rank]))


def rates(sample, task=TOY):
    """name -> (numerator, denominator) of the first row, as plain numbers."""
    return {name: (float(a[0]), float(b[0]))
            for name, (a, b) in measure(task, sample).items()}


def test_left_to_right_bypasses_nothing_and_writes_a_token_an_evaluation():
    found = rates(hand_made([0, 1, 2, 3, 4, 5, 6, 8]))      # rank 8: never committed
    assert found["bypass_fork"] == (0, 2)       # positions 0 and 4
    assert found["bypass_other"] == (0, 5)      # 1, 2, 3, 5 and the end-of-text at 6
    assert found["tokens_per_evaluation"] == (7, 7)
    assert found["early_end"] == (0, 1)
    assert found["malformed"] == (0, 1)


def test_a_position_is_bypassed_if_one_to_its_right_came_earlier():
    # The answer first, then ####, then the rest from the left, then end-of-text.
    found = rates(hand_made([2, 3, 4, 5, 1, 0, 6, 8]))
    assert found["bypass_fork"] == (2, 2)       # both come after the 9 at position 5
    assert found["bypass_other"] == (3, 5)      # 1, 2 and 3; the 9 itself and end-of-text not
    assert found["early_end"] == (0, 1)


def test_committing_the_end_early_is_no_bypass_but_counted_apart():
    found = rates(hand_made([1, 2, 3, 4, 5, 6, 0, 8]))
    assert found["bypass_fork"] == (0, 2) and found["bypass_other"] == (0, 5)
    assert found["early_end"] == (1, 1)


def test_what_comes_after_the_first_end_of_text_bypasses_nothing_and_is_no_text():
    # Position 7 holds a number that was committed first of all, right of the text's end.
    words = [*WORDS[:7], " 9"]
    found = rates(hand_made([1, 2, 3, 4, 5, 6, 7, 0], words=words))
    assert found["bypass_fork"] == (0, 2) and found["bypass_other"] == (0, 5)
    assert found["tokens_per_evaluation"] == (7, 8)
    assert found["non_top_commits"] == (0, 8)   # but it was a commit


def test_no_block_is_begun_before_the_one_on_its_left_is_full():
    # So bypass, "inside its block" by definition, needs not ask where the blocks are.
    torch.manual_seed(0)
    model = MaskedDiffusionLM(ModelConfig(TOY.tokenizer.n_vocab, TOY.mask_id, TOY.eos_id,
                                          n_layer=1, n_head=2, n_embd=16, n_hidden=16)).eval()
    prompts = TOY.prompts([p["question"] for p in PROBLEMS])
    for order in ("confidence", "random"):
        rank = generate(model, prompts, TOY.completion_length, Decoder(
            order, block_length=4, temperature=1.0)).rank
        blocks = rank.masked_fill(rank == TOY.completion_length, 99).split(4, dim=1)
        for left, right in zip(blocks, blocks[1:]):
            assert ((left.amax(1) < right.amin(1)) | (right.amin(1) == 99)).all()


def test_tokens_committed_in_one_step_do_not_bypass_each_other():
    found = rates(hand_made([0, 0, 0, 0, 1, 1, 1, 8]))
    assert found["bypass_fork"] == (0, 2) and found["bypass_other"] == (0, 5)
    assert found["tokens_per_evaluation"] == (7, 2)
    assert found["early_end"] == (0, 1)


def test_entropy_is_split_into_forks_and_the_rest_of_the_text():
    entropy = torch.tensor([[8.0, 1, 1, 1, 4, 1, 0.5, 1000]])   # 1000 stands after the text
    found = rates(hand_made([0, 1, 2, 3, 4, 5, 6, 7], entropy=entropy))
    assert found["entropy_fork"] == (12, 2)
    assert found["entropy_other"] == (4.5, 5)


def test_non_top_commits_count_every_commit_and_nothing_else():
    is_top = torch.tensor([[True, False, True, True, True, True, False, False]])
    assert rates(hand_made([0, 1, 2, 3, 4, 5, 6, 8], is_top=is_top))["non_top_commits"] == (2, 7)
    assert rates(hand_made([0, 1, 2, 3, 4, 5, 6, 7], is_top=is_top))["non_top_commits"] == (3, 8)


def test_a_text_without_end_of_text_is_as_long_as_its_canvas():
    words = [" 3", " +1", " ->", " 4", " ####", " 9", " 9", " 9"]
    found = rates(hand_made([0, 0, 1, 1, 2, 2, 3, 3], words=words))
    assert found["tokens_per_evaluation"] == (8, 4)
    assert found["early_end"] == (0, 1) and found["malformed"] == (1, 1)
    assert found["bypass_other"][1] + found["bypass_fork"][1] == 8
    # Its last token came first of all, but that is no decision about the length.
    found = rates(hand_made([1, 2, 3, 4, 5, 6, 7, 0], words=words))
    assert found["early_end"] == (0, 1) and found["bypass_other"][0] > 0


def test_each_row_is_measured_for_itself():
    ranks = [0, 1, 2, 3, 4, 5, 6, 8], [1, 2, 3, 4, 5, 6, 0, 8], [2, 3, 4, 5, 1, 0, 6, 8]
    together = measure(TOY, hand_made(*ranks))
    for i, row in enumerate(ranks):
        alone = measure(TOY, hand_made(row))
        assert {k: (a[i], b[i]) for k, (a, b) in together.items()} == {
            k: (a[0], b[0]) for k, (a, b) in alone.items()}


class Letters(Task):
    """A task without known forks; its tokens are single bytes."""
    name, prompt_length, completion_length = "letters", 4, 8
    tokenizer = make_tokenizer([], r"[\s\S]")

    def problem(self, split, index):
        word = "abcdefgh"[index % 8] * 3
        return {"question": word, "solution": word, "answer": word}

    def reward(self, text, answer):
        return float(text == answer)


def test_where_forks_are_not_known_nothing_is_said_about_them():
    sample = hand_made([0, 1, 2, 3, 4, 5, 6, 8])
    assert set(measure(Letters(), sample)) == {"tokens_per_evaluation", "non_top_commits"}


# -------------------------------------------------------------------------------------- evaluate

class Recite(torch.nn.Module):
    """Knows by heart one text for each question, and is certain of every token of it."""

    def __init__(self, task, questions, texts):
        super().__init__()
        self.config = ModelConfig(task.tokenizer.n_vocab, task.mask_id, task.eos_id)
        self.anchor = torch.nn.Parameter(torch.zeros(()))
        self.P = task.prompt_length
        self.known = {tuple(p): c for p, c in zip(task.prompts(questions).tolist(),
                                                  task.completions(texts))}

    def forward(self, tokens, wanted):
        text = torch.stack([self.known[tuple(row[:self.P].tolist())] for row in tokens])
        canvas = torch.cat([tokens[:, :self.P], text], dim=1)
        logits = 60.0 * F.one_hot(canvas, self.config.vocab_size)
        logits[..., self.config.mask_id] = -torch.inf
        return logits[wanted]


def recite(texts):
    return Recite(TOY, [p["question"] for p in PROBLEMS], texts)


def test_accuracy_is_the_share_of_right_texts_and_every_order_reads_them_alike():
    # Six texts write some of their steps and are right; two end in a number that is wrong.
    texts = [TOY.solution(p, n) for n, p in enumerate(PROBLEMS)]
    for i in (2, 5):
        texts[i] = f" #### {(int(PROBLEMS[i]['answer']) + 1) % 10}"
    length = [len(t.split()) + 1 for t in texts]        # words, and end-of-text
    for order in ("left_to_right", "confidence", "random", "margin"):
        result = evaluate(recite(texts), TOY, PROBLEMS, Decoder(order))
        assert result["correct"].shape == (8, 1)
        assert result["correct"][:, 0].tolist() == [1, 1, 0, 1, 1, 0, 1, 1]
        assert result["texts"] == [[t] for t in texts]
    result = evaluate(recite(texts), TOY, PROBLEMS, Decoder())
    assert result["nfe"] == pytest.approx(np.mean(length))
    written, spent = result["measures"]["tokens_per_evaluation"]
    assert [float(x) for x in written] == [float(x) for x in spent] == length
    assert "distinct" not in result["measures"]     # of one sample there is nothing to say


def test_a_certain_model_needs_one_evaluation_where_tokens_go_in_parallel():
    texts = [TOY.solution(p, 6) for p in PROBLEMS]
    for decoder in (Decoder("top_probability", "threshold", 0.9),
                    Decoder("top_probability", "entropy_bound", 0.1)):
        result = evaluate(recite(texts), TOY, PROBLEMS, decoder)
        assert result["nfe"] == 1 and result["correct"].all()
        assert bootstrap(*result["measures"]["tokens_per_evaluation"])[0] == 22
    # Blocks of 8 on a canvas of 22: one evaluation a block.
    decoder = Decoder("top_probability", "threshold", 0.9, block_length=8)
    assert evaluate(recite(texts), TOY, PROBLEMS, decoder)["nfe"] == 3


def test_samples_of_one_problem_stand_in_its_own_row_and_distinct_counts_them():
    texts = [TOY.solution(p, n) for n, p in enumerate(PROBLEMS)]
    result = evaluate(recite(texts), TOY, PROBLEMS, Decoder(temperature=0.6), n_samples=3)
    assert result["correct"].shape == (8, 3) and result["correct"].all()
    assert result["texts"] == [[t] * 3 for t in texts]
    assert bootstrap(*result["measures"]["distinct"]) == (1, 1, 1)
    one = evaluate(recite(texts), TOY, PROBLEMS, Decoder(temperature=0.6))
    assert result["nfe"] == one["nfe"]


@pytest.fixture(scope="module")
def tiny():
    torch.manual_seed(0)
    config = ModelConfig(TOY.tokenizer.n_vocab, TOY.mask_id, TOY.eos_id, n_layer=1, n_embd=16,
                         n_hidden=48)
    return MaskedDiffusionLM(config).eval()


def test_distinct_is_the_number_of_different_texts(tiny):
    result = evaluate(tiny, TOY, PROBLEMS[:3], Decoder(temperature=1.0), n_samples=4)
    assert result["measures"]["distinct"] == ([len(set(row)) for row in result["texts"]], [1] * 3)


def test_the_same_seed_gives_the_same_rows_and_another_seed_other_texts(tiny):
    decoder = Decoder("confidence", temperature=1.0, block_length=8)

    def run(seed):
        result = evaluate(tiny, TOY, PROBLEMS[:3], decoder, n_samples=2, seed=seed)
        return result_rows("base", decoder, result, seed, [1, 2]), result["texts"]
    torch.manual_seed(1)
    first = run(4)
    torch.manual_seed(2)    # the global generator has no say
    assert run(4) == first
    assert run(5)[1] != first[1]


def test_how_many_rows_go_in_a_batch_changes_no_greedy_text(tiny):
    decoder = Decoder("confidence")
    whole, rows = (evaluate(tiny, TOY, PROBLEMS, decoder, budget=n) for n in (2**23, 2**14))
    assert whole["texts"] == rows["texts"] and whole["nfe"] == rows["nfe"]
    for name, (a, b) in whole["measures"].items():
        assert np.allclose(a, rows["measures"][name][0], atol=1e-4), name
        assert np.allclose(b, rows["measures"][name][1]), name


def test_a_task_of_ones_own_is_judged_by_its_own_reward():
    task = Letters()
    problems = task.problems("test", 0, 4)
    texts = [p["solution"] for p in problems[:3]] + ["zzz"]
    model = Recite(task, [p["question"] for p in problems], texts)
    result = evaluate(model, task, problems, Decoder())
    assert result["correct"][:, 0].tolist() == [1, 1, 1, 0]
    assert result["texts"] == [[t] for t in texts]


# ------------------------------------------------------------------------------------------ rows

def test_rows_have_exactly_the_promised_columns_and_say_how_they_were_made(tmp_path):
    columns = ("stage,order,selection,block_length,temperature,k,value,low,high,nfe,n_problems,"
               "n_samples,seed")
    measures = "stage,order,selection,block_length,temperature,measure,value,low,high,seed"
    assert ",".join(RESULT_COLUMNS) == columns and ",".join(MEASURE_COLUMNS) == measures
    decoder = Decoder("top_probability", "threshold", 0.9, block_length=8)
    texts = [TOY.solution(p, 6) for p in PROBLEMS[:6]] + [" #### 99"] * 2
    result = evaluate(recite(texts), TOY, PROBLEMS, decoder, n_samples=2)
    rows, others = result_rows("base", decoder, result, 7, [1, 2])
    assert all(set(row) == set(RESULT_COLUMNS) for row in rows)
    assert all(set(row) == set(MEASURE_COLUMNS) for row in others)
    for row, k in zip(rows, (1, 2), strict=True):
        expected = {"stage": "base", "order": "top_probability", "selection": "threshold=0.9",
                    "block_length": 8, "temperature": 0.0, "k": k, "value": 0.75, "n_problems": 8,
                    "n_samples": 2, "seed": 7}
        assert expected.items() <= row.items()
        assert 0 <= row["low"] <= 0.75 <= row["high"] <= 1 and row["low"] < row["high"]
        assert row["nfe"] == round((6 * 3 + 2 * 1) / 8, 4)  # the short texts end in the first block
    assert {r["measure"] for r in others} == {
        "tokens_per_evaluation", "non_top_commits", "bypass_fork", "bypass_other", "entropy_fork",
        "entropy_other", "early_end", "malformed", "distinct"}
    write_csv(tmp_path / "results.csv", RESULT_COLUMNS, rows)
    with open(tmp_path / "results.csv", encoding="utf-8", newline="") as f:
        assert f.readline() == columns + "\n"
        f.seek(0)
        assert [r["k"] for r in csv.DictReader(f)] == ["1", "2"]


def test_one_block_is_an_empty_cell_and_a_selection_is_written_as_it_is_typed():
    result = evaluate(recite([TOY.solution(p, 0) for p in PROBLEMS]), TOY, PROBLEMS, Decoder())
    for decoder, name in ((Decoder(), "k=1"), (Decoder("confidence", "k", 4), "k=4"),
                          (Decoder("top_probability", "entropy_bound", 0.1), "entropy_bound=0.1")):
        row = result_rows("base", decoder, result, 0)[0][0]
        assert row["selection"] == name and row["block_length"] == "" and row["k"] == 1
