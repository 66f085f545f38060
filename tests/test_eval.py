"""pass@k is exact, intervals are what they say, and measures are those of samples made by hand.

    python -m pytest tests/test_eval.py
"""
import math
import warnings
from fractions import Fraction
from itertools import combinations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from data import Task, Worksheet, make_tokenizer
from eval_gsm8k import (MEASURE_COLUMNS, RESULT_COLUMNS, Base, Interval, bootstrap, closed_form,
                        crossing, derived_rows, evaluate, first_line, leads, measure, measure_rows,
                        overtakes, pass_at_k, probe, proportion, result_rows)
from model import ModelConfig
from sample import Decoder, Sample
from tests.test_model import tiny_model

torch.set_num_threads(1)
TOY, RAGGED = Worksheet(), Worksheet(equal_length=False)
BOTH = pytest.mark.parametrize("task", [TOY, RAGGED], ids=["equal length", "ragged"])
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
    ahead, behind = (grid(10, *n) for n in (right + 1, right))
    found = leads(ahead, behind, [1, 10])
    assert found[1] == pytest.approx((0.1, math.nan, math.nan), nan_ok=True)   # on every one
    assert bootstrap(pass_at_k(behind, 1)).high > bootstrap(pass_at_k(ahead, 1)).low
    assert found[10].value == pytest.approx((right == 0).mean())    # k=10: is any right


@pytest.mark.parametrize("leads, first, words", [
    ({1: (-0.2, -0.3, -0.1), 2: (0.0, -0.1, 0.1), 4: (0.3, 0.2, 0.4)}, 4,
     ["overtakes at k=4", "-0.200 [-0.30, -0.10] at k=1", "+0.300 [+0.20, +0.40] at k=4"]),
    ({1: (-0.1, -0.2, -0.05), 2: (-0.1, -0.2, 0.0)}, None,
     ["never ahead", "-0.100 [-0.20, +0.00] at k=2"]),
    ({1: (0.5, 0.4, 0.6), 2: (0.1, 0.0, 0.2)}, 1, ["ahead from", "+0.500 [", "+0.100 ["]),
    ({1: (0.0, 0, 0), 2: (0.0004, 0, 0.001), 4: (0.0006, 0, 0.001)}, 4, ["overtakes at k=4"])])
def test_the_crossing_is_the_first_k_whose_lead_as_printed_is_above_zero(leads, first, words):
    leads = {k: Interval(*lead) for k, lead in leads.items()}
    assert overtakes(leads) == first
    assert all(word in crossing(leads) for word in words)


# ----------------------------------------------------------------------------------------------
# the closed form

@pytest.mark.parametrize("q, derived, expected", [
    # r = .5 / .75: whoever begins gets through two times in three.
    ([0.5, 1.0], [[1, 0], [0, 1]], {1: 1 / 2, 2: (5 / 9 + 8 / 9) / 2, 4: (65 / 81 + 80 / 81) / 2}),
    # r = 1: one problem is always derived, the other never.
    ([1.0, 0.0], [[1, 1], [0, 0]], {1: 0.5, 2: 0.5, 1024: 0.5}),
    # All alike: those are the independent draws of a coin.
    ([0.4] * 3, [[1, 0, 0, 0]] * 3, {1: 0.25, 2: 1 - 0.75**2, 3: 1 - 0.75**3}),
    ([0.3, 0.9], [[0, 0], [0, 0]], {1: 0.0, 16: 0.0})])
def test_the_closed_form_by_hand(q, derived, expected):
    found = closed_form(np.array(q), np.array(derived, dtype=float), list(expected))
    assert found == pytest.approx(expected)


def test_the_closed_form_is_what_problems_that_differ_only_in_their_first_line_give():
    rng, r, ks = np.random.default_rng(0), 0.8, [1, 2, 4, 8, 16]
    q = rng.choice([0.05, 0.7], size=4000)
    derived = (rng.random((4000, 16)) < (q * r)[:, None]).astype(float)
    for k, value in closed_form(q, derived, ks).items():
        found = pass_at_k(derived, k)
        assert abs(value - found.mean()) < 5 * found.std() / 4000**0.5
    # A prediction that knows only the mean is far off.
    assert 1 - (1 - derived.mean()) ** 16 > closed_form(q, derived, ks)[16] + 0.1


# ----------------------------------------------------------------------------------------------
# measures, on samples made by hand

TEXT = [" 3", " +1", " ->", " 4", " ####", " 9", "EOS", "EOS"]      # forks: 0 and 4; text: 0..6
NUMBER_AFTER = [*TEXT[:7], " 9"]
NO_END = [*TEXT[:6], " 9", " 9"]
ONE_BY_ONE = [0, 1, 2, 3, 4, 5, 6, 8]       # rank 8: never committed


def hand_made(*ranks, words=TEXT, entropy=0.0, is_top=True):
    ids = [TOY.eos_id if word == "EOS" else TOY.tokenizer.encode_single_token(word)
           for word in words]
    rank = torch.tensor(ranks)      # of as many columns as there are words
    return Sample(tokens=torch.tensor([ids] * len(ranks)), rank=rank, logp=-torch.ones(rank.shape),
                  entropy=torch.tensor(entropy).expand(rank.shape), top=torch.ones(rank.shape),
                  is_top=torch.tensor(is_top).expand(rank.shape),
                  nfe=rank.masked_fill(rank == len(ids), -1).amax(1) + 1)


def rates(sample, row=0, task=RAGGED):
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
    assert found["entropy_fork_write"] == (8, 1) and found["entropy_fork_blank"] == (4, 1)


# One line of two, and three blanks; forks: 0, which is written, and 4, which is blank.
SHORT = Worksheet(n_lines=2)
SHEET = [" 3", " +1", " ->", " 4", " --", " --", " --", " ####", " 4", "EOS"]
EMPTY = [*[" --"] * 7, " ####", " 4", "EOS"]                                    # one fork


@pytest.mark.parametrize("words, rank, fork, other, early", [
    (SHEET, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9], (0, 2), (0, 8), 0),
    # #### and the answer first: they stand there in every text, and decide no line.
    (SHEET, [2, 3, 4, 5, 6, 7, 8, 0, 1, 9], (0, 2), (0, 8), 0),
    (SHEET, [2, 3, 4, 5, 6, 7, 8, 1, 0, 9], (0, 2), (0, 8), 0),
    (SHEET, [3, 4, 5, 6, 7, 8, 9, 1, 2, 0], (0, 2), (0, 8), 1),
    (EMPTY, [2, 3, 4, 5, 6, 7, 8, 0, 1, 9], (0, 1), (0, 9), 0),
    # The rest was left blank before it was decided whether to begin: the first fork is bypassed.
    (SHEET, [3, 4, 5, 6, 0, 1, 2, 7, 8, 9], (1, 2), (3, 8), 0),
    # The last blank first: both are, and all between.
    (SHEET, [1, 2, 3, 4, 5, 6, 0, 7, 8, 9], (2, 2), (4, 8), 0),
    (EMPTY, [6, 5, 4, 3, 2, 1, 0, 7, 8, 9], (1, 1), (5, 9), 0),
    # The arrow first: it stands in the lines, too, and with it the first is as good as begun.
    (SHEET, [1, 2, 0, 3, 4, 5, 6, 7, 8, 9], (1, 2), (1, 8), 0),
    (SHEET, [0] * 7 + [1, 1, 1], (0, 2), (0, 8), 0)])
def test_a_fork_of_a_sheet_is_bypassed_by_what_stands_in_the_lines_and_by_nothing_else(
        words, rank, fork, other, early):
    found = rates(hand_made(rank, words=words), task=SHORT)
    assert found["bypass_fork"] == fork and found["bypass_other"] == other
    assert found["early_end"] == (early, 1) and found["malformed"] == (0, 1)


def test_where_sheets_differ_in_length_the_answers_place_does_decide_how_many_lines_there_are():
    rank = [2, 3, 4, 5, 1, 0, 6, 8]         # of TEXT: the answer, ####, then the line
    assert rates(hand_made(rank))["bypass_fork"] == (2, 2)


@pytest.mark.parametrize("words, write, blank", [
    (SHEET, (1, 1), (16, 1)), (EMPTY, (0, 0), (1, 1)),
    ([" 3", " +1", " ->", " 4", " +2", " ->", " 6", " ####", " 6", "EOS"], (1 + 16, 2), (0, 0))])
def test_the_entropy_of_forks_is_split_into_those_that_write_and_those_that_leave_blank(
        words, write, blank):
    entropy = [2.0**i for i in range(10)]
    found = rates(hand_made([*range(10)], words=words, entropy=entropy), task=SHORT)
    assert (found["entropy_fork_write"], found["entropy_fork_blank"]) == (write, blank)
    assert found["entropy_fork"] == tuple(map(sum, zip(write, blank)))
    assert found["entropy_other"] == (1023 - write[0] - blank[0], 10 - write[1] - blank[1])


def test_non_top_commits_count_every_commit_and_nothing_else():
    is_top = [True, False, True, True, True, True, False, False]
    found = measure(RAGGED, hand_made(ONE_BY_ONE, [0, 1, 2, 3, 4, 5, 6, 7], is_top=is_top))
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


def texts_of(task):
    """The first writes no line, the next one, the last two write all; two are wrong."""
    texts = [task.solution(problem, min(n, 6)) for n, problem in enumerate(PROBLEMS)]
    texts[2] = texts[5] = " #### 99"
    return texts


TEXTS = texts_of(RAGGED)


@BOTH
@pytest.mark.parametrize("order", ["left_to_right", "confidence", "random", "margin"])
def test_accuracy_is_the_share_of_right_texts_and_every_order_reads_them_alike(order, task):
    decoder, texts = Decoder(order, temperature=0.6), texts_of(task)
    found = evaluate(Recite(task, PROBLEMS, texts), task, PROBLEMS, decoder, n_samples=3)
    assert found.correct.tolist() == [[right] * 3 for right in (1, 1, 0, 1, 1, 0, 1, 1)]
    assert found.derived.tolist() == [[derived] * 3 for derived in (0, 0, 0, 0, 0, 0, 1, 1)]
    assert found.texts == [[text] * 3 for text in texts]
    assert bootstrap(*found.measures["distinct"]).value == 1


def test_a_certain_model_spends_an_evaluation_a_token_or_one_on_all_of_a_block():
    model = Recite(RAGGED, PROBLEMS, TEXTS)
    one = evaluate(model, RAGGED, PROBLEMS, Decoder())
    lengths = [len(RAGGED.tokenizer.encode_ordinary(text)) + 1 for text in TEXTS]
    assert one.nfe == pytest.approx(np.mean(lengths))
    assert [side.tolist() for side in one.measures["tokens_per_evaluation"]] == [lengths, lengths]
    assert "distinct" not in one.measures       # of one sample there is nothing to say
    for block, nfe in ((None, 1), (8, np.mean([-(-length // 8) for length in lengths]))):
        decoder = Decoder("top_probability", "threshold", 0.9, block_length=block)
        assert evaluate(model, RAGGED, PROBLEMS, decoder).nfe == nfe
    # A sheet takes as many, whatever it says.
    sheets = Recite(TOY, PROBLEMS, [problem["solution"] for problem in PROBLEMS])
    assert evaluate(sheets, TOY, PROBLEMS, Decoder()).nfe_of.tolist() == [[22]] * 8


def test_nothing_is_said_of_derivations_where_no_solution_is_the_worked_one():
    task = Letters()
    problems = task.problems("test", 0, 3)
    found = evaluate(Recite(task, problems, ["aaa", "b", "ccc"]), task, problems, Decoder())
    assert found.derived is None and found.correct.tolist() == [[1], [0], [1]]


def test_rows_of_derivations_count_all_problems_or_those_of_a_kind_by_hand():
    talkers = [TOY.kind(problem) == "talkers" for problem in PROBLEMS]
    assert sum(talkers) == 3
    derived = np.array([[1.0, 0, 0, 0] if talks else [0.0] * 4 for talks in talkers])
    found = evaluate(Recite(TOY, PROBLEMS, texts_of(TOY)), TOY, PROBLEMS, Decoder())
    found.derived, decoder = derived, Decoder("confidence", block_length=8, temperature=0.6)

    def values(kind, problems=PROBLEMS):
        rows = derived_rows("base", decoder, TOY, problems, found, 7, [1, 2, 4], kind)
        for row in rows:
            assert row["low"] == "" or row["low"] <= row["value"] <= row["high"]
            assert (row["order"], row["block_length"], row["seed"]) == ("confidence", 8, 7)
            assert set(row) <= set(MEASURE_COLUMNS)
        return {row["measure"]: row["value"] for row in rows}
    assert values("") == {"derived_at_1": round(3 / 32, 5), "derived_at_2": round(3 / 16, 5),
                          "derived_at_4": 0.375}
    assert values("talkers") == {"derived_talkers_at_1": 0.25, "derived_talkers_at_2": 0.5,
                                 "derived_talkers_at_4": 1.0}
    assert set(values("silent").values()) == {0.0}
    found.derived = derived[talkers]        # where there is none of a kind, there is no row
    assert values("silent", [p for p, talks in zip(PROBLEMS, talkers) if talks]) == {}


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

@BOTH
def test_who_knows_every_line_by_heart_has_no_loss_and_goes_on_for_certain(task):
    task = Worksheet(equal_length=task.equal_length)
    problems = task.problems("test", 0, 8)
    task.rows = dict.fromkeys(("train", "validation", "test"), problems)
    model = Recite(task, problems, [task.solution(p, 6) for p in problems])
    seen = []
    model.register_forward_hook(lambda module, args, logits: seen.append(args[0][:, 17:]))
    found = probe(model, task, 8)
    answers = [problem["answer"] for problem in problems]
    assert found.majority_answer == max(map(answers.count, answers)) / 8
    assert found.lines["next_value"] == [1] * 6 and found.next_value() == 1
    for kind, rate in (("talkers", 0.75), ("silent", 0.2)):
        assert found.lines[f"go_on_{kind}"] == pytest.approx([1] * 6)
        assert found.lines[f"true_go_on_{kind}"] == pytest.approx([rate] + [0.95] * 5)
        assert found.lines[f"next_value_{kind}"] == [1] * 6
        assert found.lines[f"answer_in_head_{kind}"][6] == 1
    # The share of all is the mean of the kinds', by how many each has.
    n_talkers = sum(task.kind(problem) == "talkers" for problem in problems)
    for line in range(7):
        talkers, silent = [found.lines[f"answer_in_head_{kind}"][line] for kind in task.kinds]
        assert found.lines["answer_in_head"][line] == pytest.approx(
            (n_talkers * talkers + (8 - n_talkers) * silent) / 8)
    in_head = found.lines["answer_in_head"]
    assert len(in_head) == 7 and in_head[6] == 1
    # It recites by position, and on a sheet of any number of lines the answer is in its place.
    assert max(in_head[:6]) < 1 or task.equal_length
    assert found.masked_nll > 1         # the problems' own sheets leave blanks, and it does not
    n_seen = [int((text != TOY.mask_id).sum()) / 8 for text in seen[8:]]     # after eight losses
    answer = [20] * 7 if task.equal_length else [1, 5, 8, 11, 14, 17, 20]
    assert n_seen == [3, 6, 9, 12, 15, 18] + [0, 4, 7, 10, 13, 16] + answer
    own = Recite(task, problems, [p["solution"] for p in problems])
    assert probe(own, task, 8).masked_nll == pytest.approx(0, abs=1e-5)


def test_a_base_measures_each_line_by_its_number_and_a_mean_over_lines():
    base = Base(0.5, "7", 0.125, {"next_value": [1.0, 0.5], "answer_in_head": [0.1, 0.2, 0.3]})
    assert base.measures() == {
        "masked_nll": 0.5, "majority_answer": 0.125, "next_value_0": 1.0, "next_value_1": 0.5,
        "answer_in_head_0": 0.1, "answer_in_head_1": 0.2, "answer_in_head_2": 0.3}
    assert base.next_value() == 0.75 and Base(0.5, "7", 0.125, {}).next_value() == 1


@BOTH
@pytest.mark.parametrize("temperature, q", [(1.0, 0.4), (0.5, 10 / 46), (1e3, 1 - 1 / 3)])
def test_the_first_line_is_written_unless_the_first_place_is_left_blank(task, temperature, q):
    # Everywhere .6 for a blank, .3 and .1 for two numbers; squared .36, .09 and .01.
    p = torch.zeros(task.tokenizer.n_vocab)
    p[[task.end_id, *task.number_ids[:2].tolist()]] = torch.tensor([0.6, 0.3, 0.1])

    class Same(Recite):
        def forward(self, tokens):
            assert (tokens[:, self.P:] == task.mask_id).all()       # an empty canvas
            return p.log().expand(*tokens.shape, -1)
    model = Same(task, PROBLEMS, texts_of(task))
    model.cos = torch.zeros(1)
    assert first_line(model, task, PROBLEMS, temperature) == pytest.approx([q] * 8, abs=2e-3)


@BOTH
def test_the_first_line_is_each_problems_own(task):
    problems = task.problems("test", 0, 8)
    texts = [problem["solution"] for problem in problems]
    begun = [float(text.startswith(problem["lines"][0]))
             for text, problem in zip(texts, problems)]
    assert 0 < sum(begun) < 8
    model = Recite(task, problems, texts)
    model.cos = torch.zeros(1)
    assert first_line(model, task, problems, 0.6) == pytest.approx(begun)


def test_rows_have_exactly_the_promised_columns_and_say_how_they_were_made():
    decoder = Decoder("top_probability", "threshold", 0.9, block_length=8)
    texts = [RAGGED.solution(p, 6) for p in PROBLEMS[:6]] + [" #### 99"] * 2
    found = evaluate(Recite(RAGGED, PROBLEMS, texts), RAGGED, PROBLEMS, decoder, n_samples=2)
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
        "entropy_fork_write", "entropy_fork_blank", "entropy_other", "early_end",
        "malformed", "distinct"}
    assert all(set(row) == set(MEASURE_COLUMNS) and row.items() >= key.items()
               for row in rows.values())
    assert rows["tokens_per_evaluation"]["value"] == (6 * 22 + 2 * 5) / (6 * 3 + 2 * 1)
    whole = result_rows("base", Decoder("confidence", "k", 4), found, 0)[0]     # one block
    assert (whole["block_length"], whole["selection"], whole["k"]) == ("", "k=4", 1)
