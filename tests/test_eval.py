"""pass@k is exact, intervals are what they say, and measures are those of samples made by hand.

    python -m pytest tests/test_eval.py
"""
import math
import warnings
from fractions import Fraction
from itertools import combinations
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from data import Task, Toy, make_tokenizer
from eval_gsm8k import (MEASURE_COLUMNS, RESULT_COLUMNS, Interval, bootstrap, crossing, evaluate,
                        leads, measure, measure_rows, overtakes, pass_at_k, probe, proportion,
                        result_rows)
from model import ModelConfig
from sample import Decoder, Sample
from tests.test_model import tiny_model

torch.set_num_threads(1)
TOY = Toy()
PROBLEMS = TOY.problems("test", 0, 8)


def grid(n, *right):
    """One row of n samples a problem, the first c of them right."""
    return np.array([[1.0] * c + [0.0] * (n - c) for c in right])


# ----------------------------------------------------------------------------------------------
# pass@k

def test_pass_at_k_is_the_share_of_subsets_of_k_samples_that_hold_a_right_one():
    for n in range(1, 8):
        for k in range(1, n + 1):
            row = grid(n, *range(n + 1))
            expected = [np.mean([any(s) for s in combinations(r, k)]) for r in row]
            assert pass_at_k(row, k) == pytest.approx(expected, abs=1e-12)
            assert pass_at_k(row[:, ::-1], k) == pytest.approx(expected, abs=1e-12)


def test_pass_at_k_is_exact_at_1024_samples_where_factorials_would_overflow():
    n, right = 1024, [0, 1, 2, 37, 512, 1022, 1023, 1024]
    for k in (1, 2, 3, 10, 100, 511, 512, 1000, 1023, 1024):
        exact = [float(1 - Fraction(math.comb(n - c, k), math.comb(n, k))) for c in right]
        assert pass_at_k(grid(n, *right), k) == pytest.approx(exact, abs=1e-11)


@pytest.mark.parametrize("k", [5, 0, -1])
def test_pass_at_k_of_more_samples_than_there_are_is_refused(k):
    with pytest.raises(ValueError, match="4"):
        pass_at_k(grid(4, 1, 2), k)


# ----------------------------------------------------------------------------------------------
# intervals, and what they say about two decoders

def test_the_interval_of_a_proportion_is_close_to_the_normal_one():
    half = 1.96 * math.sqrt(0.3 * 0.7 / 400)
    found = bootstrap([1.0] * 120 + [0.0] * 280)
    assert found == pytest.approx((0.3, 0.3 - half, 0.3 + half), abs=0.006)
    assert proportion([1.0] * 120 + [0.0] * 280) == found


def test_a_ratio_is_one_of_sums_and_not_the_mean_of_ratios():
    assert bootstrap([1, 9], [1, 3]) == (10 / 4, 1, 3)  # not (1/1 + 9/3) / 2; resamples of one
    # Ten times 1/1 and ten times 100/50: the resamples, too, are of sums, near 1010/510 = 1.98.
    value, low, high = bootstrap([1, 100] * 10, [1, 50] * 10)
    assert 1.9 < low < value < high < 2


def test_the_same_data_have_the_same_interval_and_turned_round_the_mirrored_one():
    x = np.random.default_rng(2).normal(size=40)
    value, low, high = bootstrap(x)
    np.random.seed(5)       # whatever was drawn before
    assert bootstrap(x) == (value, low, high)
    assert bootstrap(-x) == pytest.approx((-value, -high, -low))


def test_a_rate_of_nothing_is_nan_and_prints_no_warning():
    # bypass_other, where every text is empty: there is no other position.
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.isnan(bootstrap([0.0, 0.0], [0.0, 0.0])).all()


def test_a_lead_is_paired_by_problem_and_so_sharper_than_two_intervals():
    # Problems differ wildly; one decoder has one right sample more of ten on every one of them.
    right = np.arange(60) % 9
    ahead, behind = (SimpleNamespace(correct=grid(10, *n)) for n in (right + 1, right))
    found = leads(ahead, behind, [1, 10])
    assert found[1] == pytest.approx((0.1, math.nan, math.nan), nan_ok=True)   # on every one
    assert bootstrap(pass_at_k(behind.correct, 1)).high > bootstrap(pass_at_k(ahead.correct, 1)).low
    assert found[10].value == pytest.approx((right == 0).mean())    # k=10: is any right


@pytest.mark.parametrize("leads, first, words", [
    ({1: (-0.2, -0.3, -0.1), 2: (0.0, -0.1, 0.1), 4: (0.3, 0.2, 0.4)}, 4,
     ["overtakes at k=4", "-0.200 at k=1 (-0.300 to -0.100, clear", "+0.300 at k=4"]),
    ({1: (-0.1, -0.2, -0.05), 2: (-0.1, -0.2, 0.0)}, None,
     ["never ahead", "-0.100 at k=2 (-0.200 to +0.000, not clear"]),
    ({1: (0.5, 0.4, 0.6), 2: (0.1, 0.0, 0.2)}, 1, ["ahead from", "+0.500 at k=1"]),
    ({1: (0.0, 0, 0), 2: (0.0004, 0, 0.001), 4: (0.0006, 0, 0.001)}, 4, ["overtakes at k=4"])])
def test_the_crossing_is_the_first_k_whose_lead_as_printed_is_above_zero(leads, first, words):
    leads = {k: Interval(*lead) for k, lead in leads.items()}
    assert overtakes(leads) == first
    assert all(word in crossing(leads) for word in words)


# ----------------------------------------------------------------------------------------------
# measures, on samples made by hand

TEXT = [" 3", " +1", " ->", " 4", " ####", " 9", "EOS", "EOS"]      # forks: 0 and 4; text: 0..6
NUMBER_AFTER = [*TEXT[:7], " 9"]
NO_END = [*TEXT[:6], " 9", " 9"]
ONE_BY_ONE = [0, 1, 2, 3, 4, 5, 6, 8]       # rank 8: never committed


def hand_made(*ranks, words=TEXT, entropy=0.0, is_top=True):
    ids = [TOY.eos_id if word == "EOS" else TOY.tokenizer.encode_single_token(word)
           for word in words]
    rank = torch.tensor(ranks)
    return Sample(tokens=torch.tensor([ids] * len(ranks)), rank=rank, logp=-torch.ones(rank.shape),
                  entropy=torch.tensor(entropy).expand(rank.shape), top=torch.ones(rank.shape),
                  is_top=torch.tensor(is_top).expand(rank.shape),
                  nfe=rank.masked_fill(rank == 8, -1).amax(1) + 1)


def rates(sample, row=0, task=TOY):
    """name -> (numerator, denominator) of one row, as plain numbers."""
    return {name: (float(a[row]), float(b[row])) for name, (a, b) in measure(task, sample).items()}


@pytest.mark.parametrize("words, rank, fork, other, early, speed", [
    (TEXT, ONE_BY_ONE, (0, 2), (0, 5), 0, (7, 7)),
    # The answer first, then ####, then the rest from the left, then end-of-text.
    (TEXT, [2, 3, 4, 5, 1, 0, 6, 8], (2, 2), (3, 5), 0, (7, 7)),
    # Committing the end early is no bypass, but counted apart.
    (TEXT, [1, 2, 3, 4, 5, 6, 0, 8], (0, 2), (0, 5), 1, (7, 7)),
    # Tokens committed in one step do not bypass each other.
    (TEXT, [0, 0, 0, 0, 1, 1, 1, 8], (0, 2), (0, 5), 0, (7, 2)),
    # What comes after the first end-of-text bypasses nothing, and is no text.
    (NUMBER_AFTER, [1, 2, 3, 4, 5, 6, 7, 0], (0, 2), (0, 5), 0, (7, 8)),
    # A text without end-of-text is as long as its canvas; its last token decides no length.
    (NO_END, [1, 2, 3, 4, 5, 6, 7, 0], (2, 2), (5, 6), 0, (8, 8))])
def test_a_position_is_bypassed_if_one_to_its_right_came_earlier(words, rank, fork, other, early,
                                                                 speed):
    found = rates(hand_made(ONE_BY_ONE, rank, words=words), row=1)
    assert found["bypass_fork"] == fork and found["bypass_other"] == other
    assert found["early_end"] == (early, 1) and found["malformed"] == (words is NO_END, 1)
    assert found["tokens_per_evaluation"] == speed


def test_entropy_is_split_into_forks_and_the_rest_of_the_text():
    found = rates(hand_made(ONE_BY_ONE, entropy=[8.0, 1, 1, 1, 4, 1, 0.5, 1000]))
    assert found["entropy_fork"] == (12, 2) and found["entropy_other"] == (4.5, 5)


def test_non_top_commits_count_every_commit_and_nothing_else():
    is_top = [True, False, True, True, True, True, False, False]
    found = measure(TOY, hand_made(ONE_BY_ONE, [0, 1, 2, 3, 4, 5, 6, 7], is_top=is_top))
    assert [side.tolist() for side in found["non_top_commits"]] == [[2, 3], [7, 8]]


class Letters(Task):
    """A task without known forks; its tokens are single bytes."""
    name, prompt_length, completion_length = "letters", 4, 8
    tokenizer = make_tokenizer([], r"[\s\S]")

    def problem(self, split, index):
        word = "abcdefgh"[index % 8] * 3
        return {"question": word, "solution": word, "answer": word}

    def is_right(self, text, answer):
        return text == answer


def test_where_forks_are_not_known_nothing_is_said_about_them():
    sample = hand_made(ONE_BY_ONE)
    assert set(measure(Letters(), sample)) == {"tokens_per_evaluation", "non_top_commits"}


# ----------------------------------------------------------------------------------------------
# evaluate

class Recite(torch.nn.Module):
    """Knows by heart one text for each question, and is certain of every token of it."""

    def __init__(self, task, problems, texts):
        super().__init__()
        self.config = ModelConfig(task.tokenizer.n_vocab, task.mask_id, task.eos_id)
        self.anchor = torch.nn.Parameter(torch.zeros(()))
        self.P = task.prompt_length
        prompts = task.prompts([problem["question"] for problem in problems])
        self.known = {tuple(p): text for p, text in zip(prompts.tolist(), task.completions(texts))}

    def forward(self, tokens, wanted=...):
        text = torch.stack([self.known[tuple(row[:self.P].tolist())] for row in tokens])
        canvas = torch.cat([tokens[:, :self.P], text], dim=1)
        logits = 60.0 * F.one_hot(canvas, self.config.vocab_size)
        logits[..., self.config.mask_id] = -torch.inf
        return logits[wanted]


TEXTS = [TOY.solution(p, n) for n, p in enumerate(PROBLEMS)]        # n steps are written, then
TEXTS[2] = TEXTS[5] = " #### 99"                                    # two are wrong


@pytest.mark.parametrize("order", ["left_to_right", "confidence", "random", "margin"])
def test_accuracy_is_the_share_of_right_texts_and_every_order_reads_them_alike(order):
    decoder = Decoder(order, temperature=0.6)
    found = evaluate(Recite(TOY, PROBLEMS, TEXTS), TOY, PROBLEMS, decoder, n_samples=3)
    assert found.correct.tolist() == [[right] * 3 for right in (1, 1, 0, 1, 1, 0, 1, 1)]
    assert found.texts == [[text] * 3 for text in TEXTS]
    assert bootstrap(*found.measures["distinct"]).value == 1


def test_a_certain_model_spends_an_evaluation_a_token_or_one_on_all_of_a_block():
    model = Recite(TOY, PROBLEMS, TEXTS)
    one = evaluate(model, TOY, PROBLEMS, Decoder())
    lengths = [len(TOY.tokenizer.encode_ordinary(text)) + 1 for text in TEXTS]
    assert one.nfe == pytest.approx(np.mean(lengths))
    assert [side.tolist() for side in one.measures["tokens_per_evaluation"]] == [lengths, lengths]
    assert "distinct" not in one.measures       # of one sample there is nothing to say
    for block, nfe in ((None, 1), (8, np.mean([-(-length // 8) for length in lengths]))):
        decoder = Decoder("top_probability", "threshold", 0.9, block_length=block)
        assert evaluate(model, TOY, PROBLEMS, decoder).nfe == nfe


@pytest.fixture
def tiny():
    return tiny_model(0, TOY.tokenizer.n_vocab, TOY.mask_id, TOY.eos_id, max_length=39)


def test_the_same_seed_gives_the_same_texts_and_another_seed_others(tiny):
    texts = []
    for seed in (4, 4, 5):
        torch.manual_seed(len(texts))       # the global generator has no say
        found = evaluate(tiny, TOY, PROBLEMS[:3], Decoder(temperature=1.0), n_samples=2, seed=seed)
        texts.append(found.texts)
    assert texts[0] == texts[1] != texts[2]


def test_how_many_rows_go_in_a_batch_changes_no_greedy_text(tiny):
    whole, rows = (evaluate(tiny, TOY, PROBLEMS, Decoder("confidence"), budget=budget)
                   for budget in (2**23, 2**14))
    assert whole.texts == rows.texts and whole.nfe == rows.nfe
    for name, sides in whole.measures.items():
        assert np.allclose(sides, rows.measures[name], atol=1e-4), name


def test_a_loop_that_stops_leaves_what_was_done_and_another_goes_on_from_there(tiny):
    decoder, kept = Decoder("random", temperature=1.0), {}

    def first_batches(n, generator, done):
        yield from range(2)
        kept.update(generator=generator.get_state(), done=done)

    def rest(n, generator, done):
        generator.set_state(kept["generator"])
        done.update(kept["done"])
        yield from range(2, n)

    def found(loop):
        return evaluate(tiny, TOY, PROBLEMS, decoder, n_samples=2, budget=2**15, loop=loop)

    assert found(first_batches) is None
    assert found(rest).texts == found(None).texts


# ----------------------------------------------------------------------------------------------
# what a base knows, and rows

def test_who_knows_every_step_by_heart_has_no_loss_and_goes_on_for_certain():
    task = Toy()
    task.rows = dict.fromkeys(("train", "validation", "test"), PROBLEMS)
    model = Recite(TOY, PROBLEMS, [TOY.solution(p, 6) for p in PROBLEMS])
    seen = []
    model.register_forward_hook(lambda module, args, logits: seen.append(args[0][:, 17:]))
    found = probe(model, task, 8)
    answers = [problem["answer"] for problem in PROBLEMS]
    assert found.majority_answer == max(map(answers.count, answers)) / 8
    assert found.steps["next_value"] == [1] * 6 and found.next_value() == 1
    assert found.steps["go_on"] == pytest.approx([1] * 6)
    assert found.steps["true_go_on"] == pytest.approx([0.35] + [0.88] * 5)
    in_head = found.steps["answer_in_head"]
    assert len(in_head) == 7 and in_head[6] == 1 and max(in_head[:6]) < 1
    assert found.masked_nll > 1         # the problems' own solutions jump, and it does not
    n_seen = [int((text != TOY.mask_id).sum()) / 8 for text in seen[8:]]     # after eight losses
    assert n_seen == [3, 6, 9, 12, 15, 18] + [0, 4, 7, 10, 13, 16] + [1, 5, 8, 11, 14, 17, 20]
    jumps = Recite(TOY, PROBLEMS, [p["solution"] for p in PROBLEMS])
    assert probe(jumps, task, 8).masked_nll == pytest.approx(0, abs=1e-5)


def test_rows_have_exactly_the_promised_columns_and_say_how_they_were_made():
    decoder = Decoder("top_probability", "threshold", 0.9, block_length=8)
    texts = [TOY.solution(p, 6) for p in PROBLEMS[:6]] + [" #### 99"] * 2
    found = evaluate(Recite(TOY, PROBLEMS, texts), TOY, PROBLEMS, decoder, n_samples=2)
    key = {"stage": "base", "order": "top_probability", "selection": "threshold=0.9",
           "block_length": 8, "temperature": 0.0, "seed": 7}
    for row, k in zip(result_rows("base", decoder, found, 7, [1, 2]), (1, 2), strict=True):
        assert set(row) == set(RESULT_COLUMNS)
        expected = {**key, "k": k, "value": 0.75, "n_problems": 8, "n_samples": 2}
        assert row.items() >= expected.items()
        assert row["low"] < 0.75 < row["high"]
        assert row["nfe"] == (6 * 3 + 2 * 1) / 8        # the short texts end in the first block
    rows = {row["measure"]: row for row in measure_rows("base", decoder, found, 7)}
    assert set(rows) == {
        "tokens_per_evaluation", "non_top_commits", "bypass_fork", "bypass_other", "entropy_fork",
        "entropy_other", "early_end", "malformed", "distinct"}
    assert all(set(row) == set(MEASURE_COLUMNS) and row.items() >= key.items()
               for row in rows.values())
    assert rows["tokens_per_evaluation"]["value"] == (6 * 22 + 2 * 5) / (6 * 3 + 2 * 1)
    whole = result_rows("base", Decoder("confidence", "k", 4), found, 0)[0]     # one block
    assert (whole["block_length"], whole["selection"], whole["k"]) == ("", "k=4", 1)
