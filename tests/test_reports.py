"""What people reported of comparable projects: odd tasks, odd files, odd numbers.

    python -m pytest tests/test_reports.py

Each section is a kind of fault, and a table of small inputs: another report of the kind is one
line more.
"""
import io
import json
import math
import os
import random
import re
import sys
import threading
from decimal import Decimal
from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tqdm import tqdm

import eval_gsm8k
import sample
import train
from data import GSM8K, Task, Worksheet, exact_match, extract_answer, official_match, read_jsonl
from data import make_tokenizer, try_task
from eval_gsm8k import Interval, bootstrap, crossing, evaluate, measure_rows, pass_at_k, proportion
from experiments import arms, lab, scaling
from grpo import Arm, judge, log_probs
from model import MaskedDiffusionLM, ModelConfig
from runs import Run, load, lock, read_csv, save, unlock
from sample import Decoder, draw, generate, save_checkpoint
from tests.test_eval import Recite
from tests.test_scripts import TINY, TINY_RL, as_row, contents, done, no_matplotlib, refused, run

torch.set_num_threads(1)
TOY = Worksheet()
FEW_RL = [*TINY_RL, *"--problems 2 --trap-problems 1 --grpo-steps 1".split()]
FEW = [*TINY, *FEW_RL, *"--steps 1".split()]


class Reverse(Task):
    """Write a number backwards; it is right from the first digit on, as a text."""
    name, prompt_length, completion_length = "reverse", 5, 6
    tokenizer = make_tokenizer([], r"[\s\S]")

    def problem(self, split, index):
        n = 10000 + (index * 3 + ["train", "validation", "test"].index(split)) % 90000
        return {"question": str(n), "solution": str(n)[::-1], "answer": str(n)[::-1]}

    def is_right(self, text, answer):
        return text == answer


def of(base=Reverse, **members):
    """A task that differs in these members."""
    return type("Own", (base,), members)()


def network(task, seed=0):
    torch.manual_seed(seed)
    return MaskedDiffusionLM(ModelConfig(
        task.tokenizer.n_vocab, task.mask_id, task.eos_id, n_layer=1, n_embd=16, n_hidden=16,
        max_length=2 * task.prompt_length + task.completion_length))


@pytest.fixture
def checkpoint(tmp_path):
    """Of a network that has learned nothing."""
    path = tmp_path / "there" / "model.pt"
    path.parent.mkdir()
    save_checkpoint(path, network(TOY), TOY, stage="base", seed=0)
    return path


# ----------------------------------------- A. a training signal is no success flag, and B. its type

REWARDS = [lambda right: 0.9 * right, lambda right: 1 if right else -1, lambda right: 0.25 * right,
           lambda right: 10.0 * right - 3, lambda right: -0.5, lambda right: bool(right),
           lambda right: int(right), lambda right: np.float32(right), lambda right: Fraction(right),
           lambda right: Decimal(3), lambda right: torch.tensor(right), lambda right: 1 - right]


@pytest.mark.parametrize("pay", REWARDS)
def test_whatever_rl_pays_accuracy_is_the_share_of_right_texts(pay):
    class Paid(Reverse):
        def reward(self, text, answer):
            return pay(self.is_right(text, answer))

    task = Paid()
    try_task(task)
    problems = task.problems("test", 0, 4)
    texts = [problem["solution"] for problem in problems]
    texts[1] = "x"
    model = Recite(task, problems, texts)
    right = [True, False, True, True]
    found = evaluate(model, task, problems, Decoder())
    assert found.correct.tolist() == [[1], [0], [1], [1]]
    assert pass_at_k(found.correct, 1).tolist() == right
    prompts = task.prompts([problem["question"] for problem in problems])
    rollout = generate(model, prompts, 6, Decoder())
    words = [sample.verdict(task, tokens, problem)
             for tokens, problem in zip(rollout.tokens, problems)]
    assert ["wrong" not in word for word in words] == right
    # RL alone sees what is paid; and of `rejection`, which learns texts, what is right.
    assert judge(task, rollout, problems).tolist() == pytest.approx([float(pay(r)) for r in right])
    args = arms.make_parser().parse_args(["rejection"])
    learned = arms.arm_of(args).rewards(task, rollout, problems)
    assert learned.tolist() == right and learned.dtype == torch.float32


def test_a_run_that_pays_half_points_has_one_accuracy_for_the_same_texts(tmp_path):
    class HalfPoints(Reverse):
        def is_right(self, text, answer):
            return text == answer or answer < "05"

        def reward(self, text, answer):
            return 0.5 - self.is_right(text, answer)

    done(train.main, *FEW, "--problems", 8, "--out", tmp_path / "out", task=HalfPoints())
    lines = [json.loads(line) for line in (tmp_path / "out" / "texts.jsonl").open()]
    assert {line["right"] for line in lines} == {True, False}
    for stage in ("base", "justgrpo"):
        for decoder in train.GREEDY.values():
            [row] = [row for row in read_csv(tmp_path / "out" / "results.csv")
                     if row["stage"] == stage and row["temperature"] == "0.0"
                     and lab.decoder_of(row) == decoder]
            right = [line["right"] for line in lines
                     if (line["stage"], line["decoder"]) == (stage, str(decoder))]
            assert len(right) == 8 and float(row["value"]) == np.mean(right)
    assert all(line["right"] == (line["gold"] < "05") for line in lines)


@pytest.mark.parametrize("correct", [
    [[1, 1, -1, -1]], [[0.9]], [[0.25] * 4], [[math.nan, 0, 0, 0]], [[2, 0]], [[True, 0.5]],
    [[1, 0], [0, -0.5]], [[math.inf, 0]], [[None, 1]], [[1e-9, 0]]], ids=str)
def test_pass_at_k_refuses_what_is_neither_right_nor_wrong(correct):
    with pytest.raises(ValueError, match="neither"):
        pass_at_k(correct, 1)
    with pytest.raises(ValueError, match="neither"):
        pass_at_k(np.array(correct), len(correct[0]))


@pytest.mark.parametrize("correct", [
    [[True, False]], [[1, 0]], [[1.0, 0.0]], np.array([[True, False]]),
    torch.tensor([[1, 0]]), [[np.bool_(True), 0]]], ids=str)
def test_pass_at_k_takes_any_kind_of_zero_and_one(correct):
    assert pass_at_k(correct, 1).tolist() == [0.5] and pass_at_k(correct, 2).tolist() == [1]


@pytest.mark.parametrize("reward", [math.nan, math.inf, -math.inf, 1e39, -1e16, np.nan,
                                    Decimal("nan"), torch.tensor(math.inf)], ids=str)
def test_a_reward_that_is_no_number_is_named_with_its_text(reward):
    task = of(reward=lambda self, text, answer: reward if text == "x" else 0.0)
    problems = task.problems("test", 0, 2)
    rollout = SimpleNamespace(tokens=task.completions(["", "x"]))
    with pytest.raises(FloatingPointError, match=r"reward of 'x', where '20001' is right, is -?"):
        judge(task, rollout, problems[:1] + [problems[0]])


def test_a_run_ends_at_such_a_reward_with_the_step_and_goes_on_when_it_is_mended(tmp_path):
    class Broken(Reverse):
        values = iter([0.0] * 2000)     # enough for the try

        def reward(self, text, answer):
            return next(self.values)

    task = Broken()
    flags = [*FEW, "--grpo-steps", 3, "--out", tmp_path / "out"]
    try_task(task)
    used = 2000 - len(list(task.values))        # by one try
    task.values = iter([0.0] * (used + 16 + 3) + [math.nan])        # 16 rollouts a step
    status, _, err = run(train.main, *flags, task=task)
    assert status == 1 and "Traceback" not in err
    assert "train.py: error: step 2 of justgrpo: the reward of " in err.splitlines()[-1]
    done(train.main, *flags, "--resume", task=of(reward=lambda self, text, answer: 0.0))


@pytest.mark.parametrize("length", [0, 1])
def test_a_prompt_of_no_tokens_is_of_tokens_all_the_same(length):
    # torch makes floats of an empty list: B's fault, elsewhere.
    task = of(prompt_length=length)
    prompts = task.prompts(["", ""])
    assert prompts.shape == (2, length) and prompts.dtype == torch.long
    out = generate(network(task), prompts, 6, Decoder(temperature=1.0))
    assert out.tokens.shape == (2, 6)


# --------------------------------------------------------- C. an own task is tried before any work

def answered(answer):
    """problem() with such an answer."""
    return lambda self, split, index: {**Reverse.problem(self, split, index), "answer": answer}


def with_text(name, text):
    return lambda self, split, index: {**Reverse.problem(self, split, index), name: text}


def paid(value):
    return lambda self, text, answer: value


def in_head(self, text, answer):
    return 1.0 if text.split("####")[1] == answer else 0.0


ROWS = [{"question": str(i), "solution": str(i), "answer": str(i)} for i in range(9)]

BAD_TASKS = [       # members, words of the line
    (dict(problem=answered(["12"])), "the answer of problem('train', 0) is ['12']"),
    (dict(problem=answered({})), "the answer of problem('train', 0) is {}"),
    (dict(problem=answered(None)), "is None, where a text or a number"),
    (dict(problem=answered(b"12")), "is b'12'"),
    (dict(problem=answered(torch.tensor(12))), "is tensor(12)"),
    (dict(problem=with_text("solution", 12)), "the solution of problem('train', 0) is 12"),
    (dict(problem=with_text("question", None)), "the question of problem('train', 0) is None"),
    (dict(problem=with_text("solution", "1234567")), "'1234567': 7 tokens where 6 fit"),
    (dict(problem=with_text("question", "123456")), "'123456': 6 tokens where 5 fit"),
    (dict(problem=lambda self, split, index: None), "problem('train', 0) returned None"),
    (dict(problem=lambda self, split, index: ("1", "1", "1")), "returned ('1', '1', '1')"),
    (dict(problem=lambda self, split, index: {"question": "1", "answer": "1"}), "a dict of"),
    (dict(problem=lambda self, split, index: ROWS[index]),
     "problem('train', 5000000) ended in IndexError"),
    (dict(problem=lambda self, split, index: ROWS[index % 9]),
     "the question '0' is in two splits, train and validation"),
    (dict(problem=lambda self, split, index: {**ROWS[0], "question": str(random.random())[:5]}),
     "problem('train', 0) is another problem each time"),
    (dict(problem=lambda self, split: None), "ended in TypeError"),
    (dict(problem=lambda self, split, index: int("x")), "problem('train', 0): invalid literal"),
    (dict(reward=paid(None)), "reward('', '00001') returned None, where a finite number"),
    (dict(reward=paid("1")), "returned '1'"), (dict(reward=paid(math.nan)), "returned nan"),
    (dict(reward=paid([1.0])), "returned [1.0]"), (dict(reward=paid(-math.inf)), "returned -inf"),
    (dict(reward=paid(1j)), "returned 1j"), (dict(reward=paid(torch.ones(2))), "tensor([1., 1.])"),
    (dict(reward=in_head), "reward('', '00001') ended in IndexError: list index"),
    (dict(is_right=paid(None)), "is_right('', '00001') returned None, where True or False"),
    (dict(is_right=paid(0.9)), "returned 0.9"), (dict(is_right=paid(-1)), "returned -1"),
    (dict(is_right=paid("yes")), "returned 'yes'"), (dict(is_right=paid([])), "returned []"),
    (dict(is_right=paid(np.ones(2))), "returned array"),
    (dict(is_right=paid(False)), "is_right('00001', '00001') returned False: a task must find"),
    (dict(is_right=Task.is_right), "is_right('00001', '00001') returned False"),
    (dict(is_right=Task.is_right, problem=answered("abc")), "is_right('', 'abc'): the answer 'abc' is no"),
    (dict(tokenizer=make_tokenizer([], r"[1-9]")), "comes back from the tokenizer as"),
    (dict(tokenizer=None), "sets no tokenizer"), (dict(name=None), "sets no name"),
    (dict(completion_length=None), "sets no completion_length"),
    (dict(settings={"seen": {1, 2}}), "describe() ended in TypeError"),
    (dict(size=lambda self, split: "9"), "size('train') returned '9'"),
    (dict(size=lambda self, split: 0), "size('train') returned 0"),
    (dict(problem=answered(math.nan)), "the answer of problem('train', 0) is nan"),
    (dict(problem=answered(10**5000)), "the answer of problem('train', 0): Exceeds"),
    (dict(is_right=lambda self, text, answer: len(text) == 5 or None), "returned None"),
    (dict(is_right=lambda self, text, answer: sum(map(str.__eq__, text, answer)) / 5),
     "returned 0.8"),
    (dict(size=lambda self, split: -1), "size('train') returned -1")]
BAD_FORKS = [
    (dict(solution=lambda self, problem, n: " #### 5"), "must find its own solution right"),
    (dict(solution=lambda self, problem, n: Worksheet.solution(self, problem, n)[:5 + n] if n else
          Worksheet.solution(self, problem, n)), "solution(problem, 1) returned"),
    (dict(solution=lambda self, problem, n: problem["text"]), "ended in KeyError: 'text'"),
    (dict(fork_position=lambda self, n: 22), "fork_position(0) returned 22"),
    (dict(fork_position=lambda self, n: None), "fork_position(0) returned None"),
    (dict(forks=lambda self, completion: completion), "forks(completion) returned no bool"),
    (dict(forks=lambda self, completion: [True]), "forks(completion) returned no bool"),
    *[(dict(true_go_on=lambda self, rates=rates: rates), "true_go_on() returned") for rates in (
        [0.5], 0.5, None, {}, {"talkers": [0.5] * 6}, {"talkers": [0.5] * 6, "silent": [0.5] * 5},
        {"talkers": 0.5, "silent": 0.5})],
    (dict(is_well_formed=lambda self, text: None), "which is not well formed"),
    *[(dict(is_derived=lambda self, text, problem, said=said: said), "is_derived of solution(")
      for said in (True, False, None, 1)],
    (dict(answer_position=lambda self, n: 22), "answer_position(0) returned 22"),
    *[({name: getattr(Task, name)}, "ended in NotImplementedError") for name in (
        "forks", "kind", "is_derived", "answer_position", "true_go_on", "fork_position")]]


@pytest.mark.parametrize("base, members, words", [
    *[(Reverse, *row) for row in BAD_TASKS], *[(Worksheet, *row) for row in BAD_FORKS]],
    ids=lambda part: part[:50] if isinstance(part, str) else "")
def test_a_task_that_does_not_work_is_refused_in_one_line_that_says_where(base, members, words,
                                                                         tmp_path):
    refused(train.main, *FEW, "--out", tmp_path / "out", about=words, task=of(base, **members))
    assert not (tmp_path / "out").exists()


class Double(Reverse):
    """Its answers are of a kind of ones own."""
    kind = int
    is_right = Task.is_right

    def problem(self, split, index):
        problem = super().problem(split, index)
        return {**problem, "solution": "#### " + problem["answer"][0],
                "answer": self.kind(problem["answer"][0])}


@pytest.mark.parametrize("kind", [int, float, Decimal, Fraction, np.int64, np.float32, str],
                         ids=lambda kind: kind.__name__)
def test_numbers_as_answers_work(kind, tmp_path, capsys):
    task = of(Double, kind=kind)
    try_task(task)
    if kind in (int, np.float32):       # these all the way
        done(train.main, *FEW, "--out", tmp_path / "out", task=task)
        lines = [json.loads(line) for line in (tmp_path / "out" / "texts.jsonl").open()]
        assert {line["gold"] for line in lines} == {str(kind(2)), str(kind(5))}


# ------------------------------------------------ D. a number is read to its end, or it is none

ANSWERS = [     # text, answer; by GSM8K's own expression
    ("#### 9{,}500", None, "9"), ("#### 2 2/3", "2", "2"), ("#### 1.5e3", None, "1.5"),
    ("#### 10^3", None, "10"), ("#### 12,5", None, "125"), ("#### 9e9", None, "9"),
    ("#### 1_000", None, "1"), ("#### 5k", None, "5"), ("#### 0x10", None, "0"),
    ("#### 3-4", None, "3"), ("#### 7*8", None, "7"), ("#### 1,23,456", None, "123456"),
    ("#### 1234,567", None, "1234567"), ("#### 12:30", None, "12"), ("#### 5=5", None, "5"),
    ("#### 5**", None, "5"), ("#### 3\u0663", None, "3"), ("#### 5\u2013", None, "5"),
    ("#### 5th", None, "5"), ("#### 5/", None, "5"), ("#### 5km", None, "5"), ("#### 5.x", None, "5."),
    ("#### 18.00", "18", "18.00"), ("#### 018", "18", "018"), ("#### $18", "18", None),
    ("#### -$18", "-18", None), ("#### 18.", "18", "18."), ("#### ... #### 5", "5", "..."),
    ("#### 5%", "5", "5"), ("#### 5€", "5", "5"), ("#### 5£ left", "5", "5"), ("#### 90°C", "90", "90"),
    ("#### 5$ each", "5", "5"), ("#### 5; or so", "5", "5"), ("#### 5!", "5", "5"), ("#### 5?", "5", "5"),
    ('#### 5"', "5", "5"), ("#### 5' wide", "5", "5"), ("#### 5)", "5", "5"), ("#### 5]\n", "5", "5"),
    ("#### 5: yes", "5", "5"), ("#### 1,234,567.5.", "1234567.5", "1234567.5."),
    ("#### 5\u00a0km", "5", "5"), ("#### 5\t", "5", "5"), ("#### .5", ".5", ".5"),
    ("#### 5\u2028", "5", "5"), ("#### 1e5\n#### 5", None, "1"), ("#### five\n#### 5", "5", "5"),
    ("#### -0.0", "0", "-0.0"), ("#### 5)x", None, "5"), ("#### 5..", None, "5.."),
    ("#### " + "9" * 40, "9" * 40, "9" * 40), ("#### -" + "9" * 40, "-" + "9" * 40, "-" + "9" * 40)]


@pytest.mark.parametrize("text, answer, official", ANSWERS)
def test_an_answer_is_a_number_to_its_end_and_where_that_departs_from_the_official_one(
        text, answer, official):
    assert extract_answer(text) == (None if answer is None else Decimal(answer))
    if answer is not None:
        assert exact_match(text, answer) and not exact_match(text, answer + "1")
    for gold in {answer, official, "77"} - {None}:
        assert official_match(text, f"#### {gold}") == (gold == official)


@pytest.mark.parametrize("gold", [
    "9{,}500", "2 2/3", "1.5e3", "10^3", "12,5", "1/2", "$5", "5%", "5.", "-", "1,23", "1 000",
    "1_000", "5 km", "5 #### 6", "5\nso", "+5", "--5", "\u0665", "1,2345", "5,", "", "nan"])
def test_a_gold_answer_that_is_no_plain_number_is_refused_with_file_and_line(gold, tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text(as_row("a?") + as_row("b?", f"So.\n#### {gold}") + as_row("c?"))
    with pytest.raises(ValueError, match=r"rows\.jsonl, line 2: .*not one plain number$"):
        read_jsonl(path)


@pytest.mark.parametrize("gold, answer", [
    ("5", "5"), ("-5", "-5"), ("1,234", "1234"), ("18.00", "18"), ("0.50", "0.5"), ("100", "100"),
    ("0.0000001", "0.0000001"), ("1" + "0" * 30, "1" + "0" * 30), ("1,234,567.25", "1234567.25"), ("0.5", "0.5"),
    (".5", "0.5"), ("5  ", "5"), ("5\n", "5"), ("007", "7")])
def test_a_plain_gold_answer_is_right_by_its_own_text(gold, answer, tmp_path):
    (tmp_path / "rows.jsonl").write_text(as_row("a?", f"#### {gold}"))
    [problem] = read_jsonl(tmp_path / "rows.jsonl")
    assert problem["answer"] == answer and exact_match(problem["solution"], answer)


@pytest.mark.parametrize("texts, share, both", [
    ([" #### 5"] * 4, "0 of 4 texts (0.0%)", None),
    ([" #### 5.0", " #### 5", "5", ""], "2 of 4 texts (50.0%)", "0.250, by ours 0.500"),
    ([" #### 5/2", " #### 6", " #### 5", " #### 5"], "1 of 4", "0.750, by ours 0.500"),
    ([" #### 5e9"] * 4, "4 of 4 texts (100.0%)", "1.000, by ours 0.000")])
def test_evaluation_says_both_accuracies_where_they_differ_and_what_has_no_answer(
        texts, share, both, capsys):
    problems = [{"question": str(n), "solution": " #### 5", "answer": "5"} for n in range(4)]
    right = [[TOY.is_right(text, "5")] for text in texts]
    found = SimpleNamespace(texts=[[text] for text in texts], correct=np.array(right, float))
    eval_gsm8k.show_answers(Worksheet(), problems, found)
    out = capsys.readouterr().out
    assert share in out and ("official" in out or "own expression" in out) == (both is not None)
    assert both is None or both in out


# ------------------------------------------------------------------ E. one policy, one arithmetic

@pytest.mark.parametrize("T", [1e-46, 1e39, 1e-38, 5e-324, 1e308, 1e38, -1e-50, 2e-38])
def test_a_temperature_that_float32_cannot_divide_by_is_refused(T, checkpoint):
    with pytest.raises(ValueError, match="temperature is .* from 1e-37 to 1e[+]37"):
        Decoder(temperature=T)
    for main in (sample.main, eval_gsm8k.main):
        refused(main, "--checkpoint", checkpoint, f"--temperature={T}", about="temperature")


@pytest.mark.parametrize("T", [1e-37, 1e-30, 1e-10, 1e-3, 0.6, 1.0, 1e3, 1e10, 1e37])
@pytest.mark.parametrize("order", ["left_to_right", "top_probability"])
def test_at_every_other_the_sampler_draws_what_the_likelihood_allows(order, T):
    model = network(TOY)
    prompts = TOY.prompts([p["question"] for p in TOY.problems("test", 0, 20)])
    torch.manual_seed(1)
    out = generate(model, prompts, 22, Decoder(order, temperature=T))
    assert (out.tokens < TOY.tokenizer.n_vocab).all() and (out.tokens != TOY.mask_id).all()
    pieces = list(log_probs(model, prompts, out.tokens, out.rank, temperature=T))
    assert all(logp.isfinite().all() for _, _, logp in pieces)
    if T <= 1e-10:      # greedy, unless two are equal
        assert out.is_top[out.rank < 22].float().mean() > 0.99


@pytest.mark.parametrize("main, flags, about", [
    *[(arms.main, f"lcr --rollout-temperature {T}", words) for T, words in (
        ("1e-38", "argument --rollout-temperature"), ("1e-46", "argument --rollout-temperature"),
        ("1e-6", "from 0.01 to 100"), ("1e4", "from 0.01 to 100"), ("0.0099", "from 0.01 to 100"))],
    *[(arms.main, f"left_to_right --adam-eps {value}", "argument --adam-eps")
      for value in ("1e-46", "1e39", "1e-320")],
    (arms.main, "left_to_right --updates-per-batch 2 --clip-high 1e39", "argument --clip-high"),
    (arms.main, "elbo --positions random --fraction 1e-46", "argument --fraction"),
    *[(train.main, f"{flag} {value}", f"argument {flag}")
      for flag in ("--lr", "--grpo-lr") for value in ("1e-46", "1e39", "1e-38")]])
def test_a_flag_beyond_float32_is_named_and_not_another_one_blamed(main, flags, about, tmp_path):
    torch.manual_seed(0)
    save_checkpoint(tmp_path / "base.pt", network(TOY), TOY, stage="base", seed=0)
    before = contents(tmp_path)
    tiny = TINY if main is train.main else TINY_RL
    refused(main, *tiny, *flags.split(), "--out", tmp_path, about=about)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("T", [0, 1e-3, 0.009, 101, 1e10])
def test_an_arm_rolls_out_where_log_p_is_more_than_rounding(T):
    with pytest.raises(ValueError, match="from 0.01 to 100"):
        Arm(Decoder(temperature=T))


# ------------------------------------------------------- F. an interval does not claim certainty

@pytest.mark.parametrize("passed, low, high", [
    ([1.0] * 400, 0.990820, 1), ([1.0], 0.025, 1), ([0.0], 0, 0.975), ([0.0] * 400, 0, 0.009180),
    ([1.0] * 64, 0.944, 1), ([1, 1], 0.158114, 1), ([0] * 30, 0, 0.115703), ([1.0] * 10, 0.691503, 1)])
def test_where_all_agree_a_proportion_has_the_exact_binomial_bound(passed, low, high):
    value, *bounds = proportion(passed)
    assert value == passed[0] and bounds == pytest.approx([low, high], abs=1e-3)
    n, edge = len(passed), bounds[0] if value else 1 - bounds[1]
    assert edge ** n == pytest.approx(0.025)        # the definition: so seldom all are the same


@pytest.mark.parametrize("numerator, denominator", [
    ([1.0], None), ([-1.0], None), ([0.25] * 30, None), ([0.0] * 5, None), ([3, 6, 9], [1, 2, 3]),
    ([0.1] * 7, [0.3] * 7), ([0, 0, 0], [5, 1, 2]), ([22], [4]), ([1, 9], [0.1, 0.9])])
def test_another_measure_that_is_equal_in_all_problems_has_no_interval(numerator, denominator):
    found = bootstrap(numerator, denominator)
    assert found.value == pytest.approx(sum(numerator) / sum(denominator or [1] * len(numerator)))
    assert math.isnan(found.low) and math.isnan(found.high)
    assert found.bounds() == "-"
    row = found.rounded()
    assert row["low"] == row["high"] == "" and Interval.of(row).bounds() == "-"
    assert lab.bracketed(found).endswith(" [-]")


@pytest.mark.parametrize("lead", [[1.0], [-1.0], [0.5] * 9, [0.0] * 64])
def test_a_lead_that_is_equal_everywhere_has_no_bounds(lead):
    text = crossing({1: bootstrap(lead)})
    assert "[-] at k=1" in text and "nan" not in text


def test_one_problem_knows_nothing_and_says_so_on_screen_and_in_the_tables(checkpoint, tmp_path):
    out = done(eval_gsm8k.main, "--checkpoint", checkpoint, "--limit", 1, "--csv", tmp_path / "csv")
    rows = [line.split() for line in out.splitlines() if " to " in line or line.endswith(" -")]
    found = {words[0]: words[2:] for words in rows}
    assert found["pass@1"] in (["0.025", "to", "1.000"], ["0.000", "to", "0.975"])
    assert found["tokens_per_evaluation"] == found["bypass_fork"] == ["-"]
    [row] = read_csv(tmp_path / "csv")
    assert {row["low"], row["high"]} in ({"0.025", "1.0"}, {"0.0", "0.975"})
    ragged = Worksheet(equal_length=False)      # a sheet of this length would be malformed
    problems = ragged.problems("test", 0, 4)
    same = evaluate(Recite(ragged, problems, [" #### 99"] * 4), ragged, problems,
                    Decoder("confidence"))
    rows = {row["measure"]: row for row in measure_rows("base", Decoder("confidence"), same, 0)}
    assert (rows["malformed"]["low"], rows["malformed"]["high"]) == (0, round(1 - 0.025**0.25, 5))
    assert rows["tokens_per_evaluation"]["low"] == rows["bypass_fork"]["high"] == ""


# ------------------------------------------------------------------ G. time that grows by the square

N = 200_000     # by the square of this, each would take minutes


@pytest.mark.parametrize("text", [
    "#### " + "1" * N + ".1.1", "#### " + "1" * N + "x", "#### " + "1,111" * N + "x",
    "#### 1." + "1" * N + "x", "#### " * N, "#### " + "-$" * N + "5", "#### " + ".,.," * N + "x",
    "#### 1" + ",111" * N + ",x", "#### " + "5." * N], ids=lambda text: text[:12])
def test_an_answer_is_read_in_time(text):
    assert extract_answer(text) is None


def test_texts_are_read_in_time(tmp_path):
    lines, ragged = " 1" + " +1 -> 1" * (N // 8), Worksheet(equal_length=False)
    assert ragged.is_well_formed(lines + " #### 1") and not ragged.is_well_formed(lines + "x")
    for task in (TOY, ragged):
        for text in (lines, lines + " --" * N + " #### 1", " --" * N, " --" * N + " #### x"):
            assert not task.is_well_formed(text)
    for open_calculators in ("<<" * 30_000, "<<1" * 20_000, "<" * 60_000, "<<>" * 20_000):
        path = tmp_path / "rows.jsonl"
        path.write_text(as_row("a?", open_calculators + "\n#### 5"))
        assert read_jsonl(path)[0]["answer"] == "5"
    for text in ("a" * N, " " * N, "7" * N, "a b" * N, "-" * N):
        assert len(TOY.tokenizer.encode_ordinary(text)) >= N


# ----------------------------------------- H. a table that was edited elsewhere is not rewritten

HEADER = ",".join(eval_gsm8k.RESULT_COLUMNS)
OURS = "base,left_to_right,k=1,,0.6,1,0.4,0.3,0.5,6.4,64,32,0"
EDITED = {
    "semicolons": f"{HEADER}\n{OURS}\n".replace(",", ";").encode(),
    "tabs": f"{HEADER}\n{OURS}\n".replace(",", "\t").encode(),
    "no header": f"{OURS}\n".encode(),
    "a column more": f"{HEADER},notes\n{OURS},good\n".encode(),
    "a column less": f"{HEADER},\n{OURS}\n".replace(",seed", "").encode(),
    "another order": f"k,{HEADER.replace(',k,', ',')}\n{OURS}\n".encode(),
    "a title": f"My results\n{HEADER}\n{OURS}\n".encode(),
    "a row cut": f"{HEADER}\n{OURS[:20]}\n".encode(),
    "UTF-16": f"{HEADER}\n{OURS}\n".encode("utf-16"),
    "decimal commas": f"{HEADER}\n{OURS}\n".replace("0.6", '"0,6"').encode(),
    "empty": b"", "no text": b"\xff\xfe\x00"}


@pytest.mark.parametrize("kind", EDITED)
def test_a_later_stage_refuses_it_in_one_line_and_writes_nothing(kind, tmp_path):
    save_checkpoint(tmp_path / "base.pt", network(TOY), TOY, stage="base", seed=0)
    (tmp_path / "results.csv").write_bytes(EDITED[kind])
    (tmp_path / f"state.pt.{DEAD}.tmp").write_bytes(b"half")
    before = contents(tmp_path)
    refused(train.main, *FEW, "--stage", "trap", "--out", tmp_path, about="results.csv")
    assert contents(tmp_path) == before


@pytest.mark.parametrize("data", [
    b"\xef\xbb\xbf" + f"{HEADER}\n{OURS}\n".encode(), f"{HEADER}\r\n{OURS}\r\n".encode(),
    f"{HEADER}\n{OURS}".encode(), f"{HEADER}\n\n{OURS}\n\n".encode(),
    f"{HEADER}\n{OURS}\n".replace("base", '"base"').encode()],
    ids=["BOM", "windows", "no newline", "empty lines", "quotes"])
def test_what_says_the_same_is_read(data, tmp_path):
    (tmp_path / "results.csv").write_bytes(data)
    [row] = read_csv(tmp_path / "results.csv", eval_gsm8k.RESULT_COLUMNS)
    assert list(row) == eval_gsm8k.RESULT_COLUMNS and row["nfe"] == "6.4" and row["seed"] == "0"


@pytest.mark.parametrize("kind", ["semicolons", "a column more", "UTF-16", "a row cut", "empty"])
def test_the_experiments_refuse_it_too(kind, tmp_path):
    path = tmp_path / "rows.csv"
    path.write_bytes(EDITED[kind])
    with pytest.raises(SystemExit, match="rows.csv"):
        lab.read_rows(path)
    save_checkpoint(tmp_path / "base.pt", network(TOY), TOY, stage="base", seed=0)
    status, _, err = run(scaling.main, "--quick", "--out", tmp_path, "--csv", path)
    assert status == 2 and "rows.csv" in err.splitlines()[-1]
    assert path.read_bytes() == EDITED[kind]


# ---------------------------------------------------------- I. only what is ours is cleared away

def dead_process():
    """A number that no process has."""
    number = 2**22 - 1
    while True:
        try:
            os.kill(number, 0)
        except ProcessLookupError:
            return number
        except PermissionError:
            pass
        number -= 1


DEAD = dead_process()
THEIRS = ["lab notes.2026-03.tmp", "notes.pt.7.tmp", f"old.{DEAD}.tmp", f"results.csv.{DEAD}.tmp.bak",
          f"my results.csv.{DEAD}.tmp", f"base.pt.{DEAD}", "results.csv.tmp", "state.pt.x.tmp",
          f"other.csv.{DEAD}.tmp", f"rival.pt.{DEAD}.tmp", f"state.pt.{os.getppid()}.tmp",
          "state.pt.-1.tmp", f"state.pt.0{DEAD}.tmp", "state.pt.\u0661\u0662.tmp",
          f"state.pt.{'9' * 30}.tmp", f"rival-results.csv.{DEAD}.tmp"]
LEFT = [f"{name}.{DEAD}.tmp" for name in (
    "state.pt", "summary.json", "results.csv", "measures.csv", "base.pt", "texts.jsonl")]


def test_what_a_kill_has_left_is_removed_and_nothing_else(tmp_path):
    for name in THEIRS + LEFT + [f"results.csv.{os.getpid()}.tmp"]:
        (tmp_path / name).write_text("mine")
    for name in (f"log.csv.{DEAD}.tmp", "old.1.tmp"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "diary").write_text("mine")
    with Run("x.py", []) as run:
        run.begin(tmp_path, {name: ["a"] for name in ("results", "measures", "log")}, {},
                  files=["base.pt", "texts.jsonl"])
        run.finish()
    kept = {path.name for path in tmp_path.rglob("*")}
    assert kept == {*THEIRS, f"log.csv.{DEAD}.tmp", "old.1.tmp", "diary", "results.csv",
                    "measures.csv", "log.csv", "state.pt", "summary.json"}


def test_an_arm_done_again_refuses_its_own_table_with_a_column_more_and_so_does_a_resume(tmp_path):
    save_checkpoint(tmp_path / "base.pt", network(TOY), TOY, stage="base", seed=0)
    done(arms.main, "fork", *FEW_RL, "--out", tmp_path)
    done(train.main, *FEW, "--stage", "pretrain", "--out", tmp_path / "out")
    state = load(tmp_path / "out" / "state.pt")
    save(tmp_path / "out" / "state.pt", {**state, "finished": False})
    for path in (tmp_path / "fork-results.csv", tmp_path / "out" / "log.csv"):
        header, *rows = path.read_text().splitlines()
        path.write_text("\n".join([f"{header},notes", *(f"{row},mine" for row in rows)]))
    before = contents(tmp_path)
    refused(arms.main, "fork", *FEW_RL, "--out", tmp_path, about="fork-results.csv")
    refused(train.main, *FEW, "--stage", "pretrain", "--resume", "--out", tmp_path / "out",
            about="log.csv")
    assert contents(tmp_path) == before


@pytest.mark.parametrize("what", ["notes", "checkpoint", "data", "texts", "other table"])
def test_csv_is_written_over_nothing_but_such_a_table(what, checkpoint, tmp_path):
    path = {"checkpoint": checkpoint}.get(what, tmp_path / "file")
    data = rows_file(tmp_path / "data.jsonl", "a?")
    flags = ["--checkpoint", checkpoint, "--data", data, "--limit", 2, "--csv", path]
    if what == "texts":
        flags += ["--texts", tmp_path / "there" / ".." / "file"]
    elif what == "data":
        flags[-1] = data
    elif what != "checkpoint":
        path.write_text("a,notes\n1,mine\n" if what == "other table" else "mine")
    before = contents(tmp_path)
    words = {"texts": "--csv", "checkpoint": "is no table"}
    refused(eval_gsm8k.main, *flags, about=words.get(what, "move it away"))
    assert contents(tmp_path) == before
    for _ in range(2):
        done(eval_gsm8k.main, *flags[:6], "--csv", tmp_path / "new.csv")


@pytest.mark.parametrize("stage", ["pretrain", "all"])
def test_a_run_is_moved_away_with_all_that_lies_beside_it(stage, tmp_path, monkeypatch):
    out, link = tmp_path / "deep" / "out", tmp_path / "link"
    out.mkdir(parents=True)
    link.symlink_to(out)
    for name in ("base.pt", "notes.txt", "rival-results.csv", "rival-state.pt", "x-state.pt"):
        (out / name).write_text(f"old {name}")
    (out.parent / "out.1").symlink_to("nowhere")        # taken
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    with Run("x.py", []) as run:
        run.begin(link, {}, {}, files=["base.pt"], anew=True)
        assert {path.name for path in out.iterdir()} == {"state.pt"} and link.is_symlink()
        with pytest.raises(ValueError, match="another run writes to"):
            Run("y.py", []).begin(out, {}, {})
        run.finish()
    moved = out.parent / "out.2"
    assert {path.name: path.read_bytes() for path in moved.iterdir()} == before


@pytest.mark.parametrize("name", ["log.csv", "summary.json", "base.pt", "state.pt", "notes.txt"])
@pytest.mark.parametrize("resume", [False, True])
def test_a_new_run_writes_over_nothing_of_an_old_one_whatever_is_left_of_it(name, resume, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    if name == "state.pt":      # of a run that is finished
        with Run("x.py", []) as run:
            run.begin(out, {}, {})
            run.finish()
    else:
        (out / name).write_text("old")
    before = contents(out)
    with Run("x.py", []) as run:
        run.begin(out, {"log": ["a"]}, {}, resume=resume, files=["base.pt"], anew=True)
    if name == "notes.txt" or (name == "state.pt" and resume):      # nothing of a run; this run
        assert before.items() <= contents(out).items()
        assert not (tmp_path / "out.1").exists()
    else:
        assert [*contents(tmp_path / "out.1").values()] == [*before.values()]


@pytest.mark.parametrize("where", [".", "..", "in/deep", "mount", "parent"])
def test_a_run_that_cannot_be_moved_is_left_alone(where, tmp_path, monkeypatch):
    out = tmp_path / "out"
    (out / "in" / "deep").mkdir(parents=True)
    (out / "base.pt").write_text("mine")
    monkeypatch.chdir({".": out, "..": out / "in", "in/deep": out / "in" / "deep"}.get(where, tmp_path))
    if where in ("mount", "parent"):
        def rename(self, new):
            raise OSError(16, "Device or resource busy")
        monkeypatch.setattr("pathlib.Path.rename", rename)
    before = contents(out)
    refused(train.main, *FEW, "--out", os.path.relpath(out), about=["moved away", "another --out"])
    assert contents(tmp_path) == {str(out): None, **before}


# ------------------------------------------------------------------ J. what is the whole process's

def in_threads(*calls):
    """Each call in a thread; what they raised."""
    found = []

    def work(call):
        try:
            call()
        except BaseException as error:
            found.append(error)
    threads = [threading.Thread(target=work, args=[call]) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def test_every_program_runs_in_a_thread(checkpoint, tmp_path):
    out = str(tmp_path / "out")
    with no_matplotlib():
        assert in_threads(lambda: train.main([*FEW, "--stage", "pretrain", "--out", out])) == []
        assert in_threads(lambda: arms.main(["fork", *FEW_RL, "--out", out])) == []
    for main in (sample.main, eval_gsm8k.main):
        flags = ["--checkpoint", str(checkpoint)] + ["--limit", "1"] * (main is eval_gsm8k.main)
        assert in_threads(lambda main=main, flags=flags: main(flags)) == []


def test_two_trainings_at_once_have_the_bytes_of_one_and_leave_torch_as_it_was(tmp_path):
    before = torch.Tensor.bfloat16
    flags = [*FEW, "--steps", "6", "--stage", "pretrain", "--out"]
    folders = [str(tmp_path / name) for name in "abc"]
    assert in_threads(*[lambda out=out: train.main([*flags, out]) for out in folders[:2]]) == []
    assert torch.Tensor.bfloat16 is before
    train.main([*flags, folders[2]])
    assert len({open(f"{out}/base.pt", "rb").read() for out in folders}) == 1


# ---------------------------------------------------------------------------- K. a closed pipe

class ClosedPipe(io.TextIOWrapper):
    """A stream whose reader has gone."""

    def __init__(self):
        reader, writer = os.pipe()
        os.close(reader)
        super().__init__(os.fdopen(writer, "wb"), write_through=True)


@pytest.mark.parametrize("main, flags", [
    (sample.main, []), (eval_gsm8k.main, ["--limit", "1"]), (train.main, None)])
def test_without_any_stdout_or_on_a_full_one_there_is_no_traceback(main, flags, checkpoint,
                                                                   tmp_path, monkeypatch):
    flags = [*FEW, "--out", str(tmp_path)] if flags is None else [
        *flags, "--checkpoint", str(checkpoint)]
    with no_matplotlib(), monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", None)      # >&-
        main(flags)
    monkeypatch.setattr(sys, "stdout", open("/dev/full", "w"))
    monkeypatch.setattr(sys, "stderr", open(tmp_path / "err", "w", buffering=1))
    with pytest.raises(SystemExit) as stop:
        main([*flags, "--stage", "trap"] if main is train.main else flags)
    sys.stdout.close(), sys.stderr.close()
    assert stop.value.code == 1
    lines = (tmp_path / "err").read_text().splitlines()
    assert "Traceback" not in lines and "No space left" in lines[-1]


@pytest.mark.parametrize("closed", ["stdout", "both"])
@pytest.mark.parametrize("command", [
    "sample --watch --samples 60 --temperature 1", "sample --help", "eval_gsm8k --limit 2",
    "train --stage pretrain", "train --help", "arms fork"])
def test_a_closed_pipe_ends_a_program_quietly(command, closed, checkpoint, tmp_path, monkeypatch):
    name, *flags = command.split()
    main = {"sample": sample, "eval_gsm8k": eval_gsm8k, "train": train, "arms": arms}[name].main
    if name in ("train", "arms"):
        save_checkpoint(tmp_path / "base.pt", network(TOY), TOY, stage="base", seed=0)
        flags += FEW if name == "train" else FEW_RL
        flags += ["--out", str(tmp_path / "out" if name == "train" else tmp_path)]
    else:
        flags += ["--checkpoint", str(checkpoint)]
    err = ClosedPipe() if closed == "both" else io.TextIOWrapper(open(tmp_path / "err", "wb"))
    # tqdm keeps its lock when it can't write: here another, so that the next test has it.
    monkeypatch.setattr(tqdm, "_lock", threading.RLock(), raising=False)
    monkeypatch.setattr(sys, "stdout", ClosedPipe())
    monkeypatch.setattr(sys, "stderr", err)
    with pytest.raises(SystemExit) as stop:
        main(flags)
    sys.stdout.flush()      # as Python does at its end
    sys.stderr.flush()
    assert stop.value.code == 128 + 13
    if closed == "stdout":
        text = (tmp_path / "err").read_text()
        assert "Traceback" not in text and "error" not in text


# --------------------------------------------------------------- L. one sentence for one cause

def rows_file(path, *questions):
    path.write_text("".join(as_row(question) for question in questions), encoding="utf-8")
    return path


def gsm8k(tmp_path, questions, tests=("t?",)):
    """The task of files with these questions."""
    files = [rows_file(tmp_path / "a.jsonl", *questions), rows_file(tmp_path / "b.jsonl", *tests)]
    return GSM8K.from_files(*files, n_merges=0, prompt_length=20, completion_length=20)


@pytest.mark.parametrize("n", [1, 2, 5, 8, 11])
def test_too_few_rows_to_hold_one_in_twenty_out_are_called_too_few(n, tmp_path):
    with pytest.raises(ValueError, match=rf"a\.jsonl has {n} rows with {n} questions, too few"):
        gsm8k(tmp_path, [f"few {i}?" for i in range(40) if i in FEW_HELD_IN][:n])


def test_many_rows_of_few_questions_are_few(tmp_path):
    with pytest.raises(ValueError, match="has 150 rows with 1 questions, too few"):
        gsm8k(tmp_path, [f"few {FEW_HELD_IN[0]}?"] * 150)


FEW_HELD_IN = [i for i in range(40)
               if __import__("zlib").crc32(f"few {i}?".encode(), 1) % 20]


def test_rows_that_are_too_long_are_called_too_long_and_a_missing_file_missing(tmp_path):
    many = [f"q{i}?" for i in range(100)]
    task = gsm8k(tmp_path, many, ["t" * 21, "u" * 99])
    with pytest.raises(ValueError, match="none of the 2 test rows fits the task: .* at most 20 tokens"):
        try_task(task)
    task = gsm8k(tmp_path, ["x" * 30 + question for question in many])
    with pytest.raises(ValueError, match="none of the .* train rows fits"):
        try_task(task)
    with pytest.raises(ValueError, match="no test problem: name a file of them with --data"):
        GSM8K("", 20, 20).problem("test", 0)


# ------------------------------------------------------------------------- what users asked for

@pytest.mark.parametrize("end, line", [
    ("\n\n\n", None), ("\n \t\r\n", None), ("\r\n\r\n", None), ("", None),
    ("\n\n" + as_row("z?"), 3), ("\n  \n" + as_row("z?"), 3), ("\n{\n" + as_row("z?"), 3),
    ("\n" + as_row("z?") + "\n\n\n" + as_row("y?"), 4), ("\n{]", 3), ('\n{"question": 1}', 3)])
def test_blank_lines_at_the_end_are_no_rows_and_elsewhere_an_error_with_one_number(end, line, tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes((as_row("a?") + as_row("b?")[:-1] + end).encode())
    if line is None:
        assert len(read_jsonl(path)) == 2
        return
    with pytest.raises(ValueError) as error:
        read_jsonl(path)
    assert f"rows.jsonl, line {line}: " in str(error.value)
    assert str(error.value).count("line") == 1 + str(tmp_path).count("line") + (
        "an empty line" in str(error.value))


def test_repeated_rows_are_counted_named_and_evaluated_once(checkpoint, tmp_path):
    path = rows_file(tmp_path / "rows.jsonl", "a?", "b?", "a?", "c?", "b?", "a?")
    out = done(eval_gsm8k.main, "--checkpoint", checkpoint, "--data", path)
    assert "3 test rows are repeated and evaluated once: lines 3, 5, 6\n" in out
    assert "3 problems x 1" in out
    path.write_text(as_row("a?") + as_row("a?", "#### 6"))      # says something else
    assert "2 problems x 1" in done(eval_gsm8k.main, "--checkpoint", checkpoint, "--data", path)


def without_times(out):
    return [line.split(" run here")[0].rsplit(", ", 1)[0] for line in out.splitlines()]


@pytest.mark.parametrize("flags", ["", "--order random --samples 3 --temperature 1 --k 1,3",
                                   "--order confidence --temperature 0.6 --samples 2",
                                   "--order top_probability --select threshold=.3"])
def test_texts_are_kept_line_by_line_and_a_restart_goes_on_to_the_same_bytes(
        flags, checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr(eval_gsm8k, "batch_size", lambda *_: 2)
    flags = ["--checkpoint", checkpoint, "--limit", 7, *flags.split()]
    plain = done(eval_gsm8k.main, *flags)
    path = tmp_path / "texts.jsonl"
    out = done(eval_gsm8k.main, *flags, "--texts", path)
    assert without_times(out) == without_times(plain)
    whole = path.read_bytes()
    lines = [json.loads(line) for line in whole.splitlines()]
    n = len(lines) // 7
    assert [(line["index"], line["sample"]) for line in lines] == [
        (i, j) for i in range(7) for j in range(n)]
    for line in lines:
        problem = TOY.problem("test", line["index"])
        assert (line["prompt"], line["gold"]) == (problem["question"], problem["answer"])
        assert line["right"] == TOY.is_right(line["text"], line["gold"])
        found = extract_answer(line["text"])
        assert line["extracted"] == (None if found is None else str(found))
    assert np.mean([line["nfe"] for line in lines]) == pytest.approx(
        float(out.split(" forward evaluations")[0].split()[-1]), abs=0.05)
    # Stopped after any line, and in the midst of one.
    cuts = [0, 1, whole.index(b"\n") + 1, len(whole) // 2, len(whole) - 1, len(whole)]
    for cut in cuts:
        path.write_bytes(whole[:cut])
        again = done(eval_gsm8k.main, *flags, "--texts", path)
        assert path.read_bytes() == whole and without_times(again) == without_times(plain)


def test_a_restart_does_not_sample_again_what_is_there(checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr(eval_gsm8k, "batch_size", lambda *_: 2)
    flags = ["--checkpoint", checkpoint, "--limit", 6, "--texts", tmp_path / "texts.jsonl"]
    done(eval_gsm8k.main, *flags)
    lines = (tmp_path / "texts.jsonl").read_bytes().splitlines(True)
    (tmp_path / "texts.jsonl").write_bytes(b"".join(lines[:5]) + b'{"run')
    batches = []
    real = eval_gsm8k.generate

    def generate(model, prompts, *args):
        batches.append(len(prompts))
        return real(model, prompts, *args)
    monkeypatch.setattr(eval_gsm8k.evaluate, "__defaults__", tuple(
        generate if value is real else value for value in eval_gsm8k.evaluate.__defaults__))
    done(eval_gsm8k.main, *flags)
    assert batches == [2]
    assert (tmp_path / "texts.jsonl").read_bytes() == b"".join(lines)


@pytest.mark.parametrize("content", [
    b"my notes", b"my notes\n", b"{}\n", b'{"index": 0}\n', b"[]\n", b"\xff\xfe\n", b"\n",
    b'{"run": "000000000000"}\n', "flags", "checkpoint"])
def test_texts_of_something_else_are_refused_and_left_as_they_are(content, checkpoint, tmp_path):
    path = tmp_path / "texts.jsonl"
    flags = ["--checkpoint", checkpoint, "--limit", 2, "--texts", path]
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        done(eval_gsm8k.main, *flags)
    if content == "flags":
        flags += ["--seed", 1]
    if content == "checkpoint":
        save_checkpoint(checkpoint, network(TOY, seed=1), TOY, stage="base", seed=0)
    before = path.read_bytes()
    refused(eval_gsm8k.main, *flags, about=["texts.jsonl", "another --texts"])
    assert path.read_bytes() == before


@pytest.mark.parametrize("change", [
    lambda lines: lines[1:], lambda lines: lines[::-1], lambda lines: [*lines[:1], *lines],
    lambda lines: [line.replace('"nfe"', '"mfe"') for line in lines],
    lambda lines: [line.replace('"sample": 0', '"sample": 1') for line in lines],
    lambda lines: [re.sub('"nfe": ([0-9]+)', r'"nfe": "\1"', line) for line in lines],
    lambda lines: [re.sub('"text": "[^"]*"', '"text": null', line) for line in lines],
    lambda lines: [re.sub('"measures": .*', '"measures": {}}', line) for line in lines],
    lambda lines: [re.sub('"bypass_fork"', '"bypass"', line) for line in lines[:1]] + lines[1:],
    lambda lines: [lines[0], "", *lines[1:]]])
def test_texts_that_were_changed_are_refused_and_left_as_they_are(change, checkpoint, tmp_path):
    path = tmp_path / "texts.jsonl"
    flags = ["--checkpoint", checkpoint, "--limit", 4, "--texts", path]
    done(eval_gsm8k.main, *flags)
    path.write_text("\n".join(change(path.read_text().splitlines())) + "\n")
    before = path.read_bytes()
    refused(eval_gsm8k.main, *flags, about=["texts.jsonl, line ", "another --texts"])
    assert path.read_bytes() == before


def test_of_two_evaluations_that_keep_their_texts_in_one_file_the_second_is_refused(checkpoint,
                                                                                   tmp_path):
    path = tmp_path / "texts.jsonl"
    flags = ["--checkpoint", checkpoint, "--limit", 2, "--texts", path]
    path.touch()
    holder = lock(path)
    refused(eval_gsm8k.main, *flags, about=["another run", "another --texts"])
    assert path.read_bytes() == b""
    unlock(holder)
    done(eval_gsm8k.main, *flags)


def test_a_pipe_is_no_file_of_texts(checkpoint, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    refused(eval_gsm8k.main, "--checkpoint", checkpoint, "--texts", tmp_path / "pipe", about="pipe")


@pytest.mark.parametrize("main", [sample.main, eval_gsm8k.main])
def test_ctrl_c_ends_in_one_line(main, checkpoint, tmp_path, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt
    monkeypatch.setattr(sample, "look", stop)
    monkeypatch.setattr(sample, "try_device", lambda device: None)
    flags = ["--checkpoint", checkpoint]
    if main is eval_gsm8k.main:
        flags += ["--texts", tmp_path / "texts.jsonl"]
    status, _, err = run(main, *flags)
    assert status == 128 + 2 and "Traceback" not in err
    assert "stopped" in err and ("the same command goes on from" in err) == (len(flags) > 2)


def test_two_samples_at_once_are_those_of_one(checkpoint, capsys):
    flags = ["--checkpoint", str(checkpoint), "--samples", "8", "--temperature", "1", "--seed", "3"]
    sample.main(flags)
    alone = sorted(capsys.readouterr().out.splitlines())
    assert in_threads(*[lambda: sample.main(flags)] * 2) == []
    assert sorted(capsys.readouterr().out.splitlines()) == sorted(alone * 2)


@pytest.mark.parametrize("flags", [
    "--samples 2", "--samples 8 --order confidence", "--samples 2 --temperature 0.0",
    "--samples 3 --order top_probability --select threshold", "--samples 2 --order exploratory"])
def test_equal_samples_are_refused_with_the_reason(flags, checkpoint):
    for main in (sample.main, eval_gsm8k.main):
        refused(main, "--checkpoint", checkpoint, *flags.split(), about=["all equal", "--samples"])


def test_samples_in_random_order_are_not_equal_at_temperature_0(checkpoint):
    done(sample.main, "--checkpoint", checkpoint, "--samples", 2, "--order", "random")


@pytest.mark.parametrize("ks, rows", [("1,1", "1"), ("2,1,2,1", "21"), ("1, 2,1", "12"), ("3,3,3", "3")])
def test_a_k_asked_for_twice_is_one_row(ks, rows, checkpoint, tmp_path):
    done(eval_gsm8k.main, "--checkpoint", checkpoint, "--limit", 2, "--samples", 3, "--temperature",
         1, "--k", ks, "--csv", tmp_path / "rows.csv")
    assert "".join(row["k"] for row in read_csv(tmp_path / "rows.csv")) == rows


@pytest.mark.parametrize("index, works", [(0, True), (1, True), (2, False), (77, False), (-1, False)])
def test_an_index_beyond_the_files_end_is_refused(index, works, checkpoint, tmp_path):
    flags = ["--checkpoint", checkpoint, "--data", rows_file(tmp_path / "rows.jsonl", "a?", "b?"),
             f"--index={index}"]
    if works:
        assert "ab"[index] + "?" in done(sample.main, *flags)
    else:
        refused(sample.main, *flags, about=[f"--index {index}", "2 test problems"])
    done(sample.main, "--checkpoint", checkpoint, "--index", 10**12)    # the toy has no end
    refused(sample.main, "--checkpoint", checkpoint, "--index=-3", about="--index -3")


@pytest.mark.parametrize("name", ["mine.jsonl", "gsm8k_test.jsonl", "train.jsonl", "rows"])
def test_a_download_never_advises_to_remove_a_file(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows_file(tmp_path / name, "mine?")
    _, err = refused(eval_gsm8k.main, "--download", "--data", name, about=[name, "another --data"])
    assert "remove" not in err and "mine?" in (tmp_path / name).read_text()


# ---------------------------------------------------------------- a GPU that knows no float64

@pytest.fixture
def no_float64(monkeypatch):
    """A Mac's GPU, as far as numbers go."""
    def refuse(self, *_):
        raise TypeError("Cannot convert a MPS Tensor to float64 dtype")
    monkeypatch.setattr(torch.Tensor, "double", refuse)
    return refuse


@pytest.mark.parametrize("T", [0, 0.3, 1.0, 4.0])
@pytest.mark.parametrize("n, m", [(1, 500), (40, 1000), (700, 700)])
def test_without_float64_the_same_tokens_are_drawn(T, n, m, request):
    generator = torch.Generator().manual_seed(n)
    logp = (torch.randn(n, 300, generator=generator) * 3).log_softmax(-1)
    logp[:, 7] = -torch.inf
    which, u = torch.randint(n, (m,), generator=generator), torch.rand(m, generator=generator)
    before = draw(logp, T, which, u)
    request.getfixturevalue("no_float64")
    assert draw(logp, T, which, u).equal(before)


def test_without_float64_a_gpu_is_used_all_the_same_and_a_note_says_what_differs(no_float64, capsys):
    assert sample.pick_device("cpu") == "cpu"
    assert "note: cpu has no float64" in capsys.readouterr().out
    model, problems = network(TOY), TOY.problems("train", 0, 4)
    prompt = TOY.prompts([problem["question"] for problem in problems])
    out = generate(model, prompt, 22, Decoder(temperature=1.0))
    weight = torch.randn(4, 22)
    kept = sum(len(row) for row, _, _ in log_probs(model, prompt, out.tokens, out.rank, weight))
    assert kept == (out.rank < 22).sum()


def test_with_float64_nothing_is_said(capsys):
    assert sample.pick_device("auto") and capsys.readouterr().out == ""
