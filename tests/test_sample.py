"""Every decoder: python -m pytest tests/test_sample.py"""
import functools
import itertools
import math
from collections import Counter
from types import SimpleNamespace

import pytest
import torch

import grpo
import sample as sample_py
from model import chunks
from sample import (ORDERS, SELECTIONS, Decoder, draw, generate, is_finished,
                    select, text_length)
from tests.test_model import EOS, MASK, tiny_model, watch

L = 5
PROMPTS = torch.tensor([[0, 1, 3], [EOS, EOS, 5], [3, 3, 0], [0, 1, 3], [EOS, 1, 1], [5, 0, 3]])
CERTAINTY = [("threshold", 0.7), ("factor", 1.5), ("entropy_bound", 0.6), ("fork", 0.7)]


def valid_decoders(orders=ORDERS, blocks=(None, 2), temperatures=(0, 0.6, 1.0)):
    """Every order with every selection that goes with it."""
    return [Decoder(order, name, value, block, T) for order, (name, value), block, T in
            itertools.product(orders, [("k", 1), ("k", 2), *CERTAINTY], blocks, temperatures)
            if name == "k" or order == "top_probability" or (order == "confidence" and T == 0)]


def describe(decoder):
    """A name for a decoder among the tests' parameters."""
    return f"{decoder.order}-{decoder.selection}-B{decoder.block_length}-T{decoder.temperature}"


def each_decoder(*choice, **choices):
    return pytest.mark.parametrize("decoder", valid_decoders(*choice, **choices), ids=describe)


def noise(seed, rows=slice(None), n_rows=len(PROMPTS), length=L):
    """uniform() for generate: the same numbers each time, of these rows only."""
    generator = torch.Generator().manual_seed(seed)
    return lambda: torch.rand(n_rows, length, generator=generator)[rows]


def same(a, b):
    return a.tokens.equal(b.tokens) and a.rank.equal(b.rank) and a.nfe.equal(b.nfe)


class Table:
    """Stands in for a network: probabilities (L, V) that depend on the prompt's last token only.
    The last token of the vocabulary is MASK, the one before it end-of-text."""

    def __init__(self, *tables):
        self.logits = torch.tensor(tables).log()                              # (n, L, V)
        n_tokens = self.logits.shape[2]
        self.config = SimpleNamespace(mask_id=n_tokens - 1, eos_id=n_tokens - 2, n_layer=1,
                                      n_embd=1)

    def __call__(self, canvas, wanted):
        last = canvas[:, canvas.shape[1] - self.logits.shape[1] - 1]
        n_prompt = canvas.shape[1] - self.logits.shape[1]
        prompt = torch.zeros(len(canvas), n_prompt, self.logits.shape[2])
        return torch.cat([prompt, self.logits[last]], dim=1)[wanted]

    def generate(self, decoder, prompts=((0,),), **more):
        return generate(self, torch.tensor(prompts), self.logits.shape[1], decoder, **more)


def likelihood(model, prompts, sample):
    """grpo.log_probs of a sample, (B, L), 0 where nothing was committed."""
    out = torch.zeros(sample.tokens.shape)
    with torch.no_grad():
        for row, position, logp in grpo.log_probs(model, prompts, sample.tokens, sample.rank):
            out[row, position] = logp
    return out


def assert_frequencies(counts, expected):
    """Chi-square: the statistic has mean df and variance 2 df; the seed is fixed, so 4 sigma will
    do. Cells that expect fewer than 5 are taken together."""
    impossible = [cell for cell in counts if expected.get(cell, 0) == 0]
    assert not impossible, impossible
    cells = [(counts[c], e) for c, e in expected.items() if e >= 5]
    rest = [(counts[c], e) for c, e in expected.items() if 0 < e < 5]
    cells += [(sum(n for n, _ in rest), sum(e for _, e in rest))] if rest else []
    statistic, df = sum((n - e) ** 2 / e for n, e in cells), len(cells) - 1
    assert statistic < df + 4 * math.sqrt(2 * df), (statistic, df)


@pytest.fixture(scope="module")
def model():
    return tiny_model().requires_grad_(False)


# ----------------------------------------------------------------------------------------------
# facts about every decoder

@functools.cache    # the tests below look at the same runs
def run(decoder):
    """-> the sample of one batch, and every canvas that the network saw meanwhile."""
    model = tiny_model()
    canvases = watch(model)
    sample = generate(model, PROMPTS, L, decoder, noise(1))
    return sample, torch.cat(canvases)


@each_decoder()
def test_no_mask_is_left_or_drawn_and_the_prompt_is_not_touched(decoder):
    sample, canvases = run(decoder)
    assert not (sample.tokens == MASK).any()
    assert {tuple(c) for c in canvases[:, :-L].tolist()} == {tuple(p) for p in PROMPTS.tolist()}


@each_decoder()
def test_the_recorded_log_prob_is_the_likelihood_of_the_tokens_under_the_rank(decoder, model):
    sample, _ = run(decoder)
    assert torch.allclose(sample.logp, likelihood(model, PROMPTS, sample), atol=1e-5)


@each_decoder()
def test_entropy_and_is_top_are_of_the_untempered_distribution_at_the_commit(decoder, model):
    s, _ = run(decoder)
    for b, i in itertools.product(range(len(PROMPTS)), range(L)):
        if s.rank[b, i] == L:
            assert s.tokens[b, i] == EOS and s.entropy[b, i] == s.logp[b, i] == 0
            continue
        visible = torch.where(s.rank[b] < s.rank[b, i], s.tokens[b], MASK)
        p = model(torch.cat([PROMPTS[b], visible])[None])[0, i - L].softmax(-1)
        entropy = -sum(q * math.log(q) for q in p.tolist() if q > 0)
        assert float(s.entropy[b, i]) == pytest.approx(entropy, abs=1e-5)
        assert s.is_top[b, i] == (s.tokens[b, i] == p.argmax())
        assert float(s.top[b, i]) == pytest.approx(float(p.max()), abs=1e-5)


@each_decoder()
def test_each_step_commits_something_and_costs_the_row_one_evaluation(decoder):
    sample, _ = run(decoder)
    for rank, nfe in zip(sample.rank.tolist(), sample.nfe.tolist()):
        commits = Counter(r for r in rank if r < L)
        assert set(commits) == set(range(nfe))
        assert decoder.select != "k" or max(commits.values()) <= decoder.value


@each_decoder(blocks=(1, 2, 3))
def test_blocks_are_finished_from_left_to_right_and_no_step_reaches_past_one(decoder):
    sample, _ = run(decoder)
    blocks = sample.rank.split(decoder.block_length, dim=1)
    for left, right in zip(blocks, blocks[1:]):
        assert ((right > left.amax(1, keepdim=True)) | (right == L)).all()


@each_decoder()
def test_a_row_leaves_when_everything_before_its_first_end_of_text_is_there(decoder):
    sample, _ = run(decoder)
    for tokens, rank, nfe in zip(sample.tokens, sample.rank, sample.nfe.tolist()):
        for step in range(nfe + 1):     # not a step sooner, nor later
            visible = torch.where(rank < min(step, L), tokens, MASK).tolist()
            text = visible[:visible.index(EOS)] if EOS in visible else visible
            assert (MASK in text) == (step < nfe)


@each_decoder()
def test_equal_canvases_are_run_once_a_step_and_finished_rows_not_at_all(decoder):
    s, canvases = run(decoder)
    n = 0
    for step in range(int(s.nfe.max())):
        canvas = torch.cat([PROMPTS, torch.where(s.rank < step, s.tokens, MASK)], dim=1)
        n += len({tuple(c) for c in canvas[s.nfe > step].tolist()})
    assert len(canvases) == n < int(s.nfe.sum())     # two prompts are the same


# ----------------------------------------------------------------------------------------------
# decoders that are one another

@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("temperature", [0, 1.0])
def test_blocks_of_one_are_left_to_right_token_for_token(model, order, temperature):
    plain = generate(model, PROMPTS, L, Decoder(temperature=temperature), noise(2))
    uniform = noise(2)
    if order == "random":       # asks once more, before the first step, for its permutation
        uniform = itertools.chain([torch.zeros(len(PROMPTS), L)], iter(noise(2), None)).__next__
    if order == "redrawn":      # draws once for the place, where there is no choice, then again
        uniform = itertools.chain.from_iterable((u, u) for u in iter(noise(2), None)).__next__
    blocks = Decoder(order, block_length=1, temperature=temperature)
    assert same(generate(model, PROMPTS, L, blocks, uniform), plain)


@each_decoder(["confidence"], blocks=(None, 2, 3), temperatures=[0])
def test_without_temperature_confidence_is_top_probability(model, decoder):
    other = Decoder("top_probability", decoder.select, decoder.value, decoder.block_length)
    assert same(generate(model, PROMPTS, L, decoder), generate(model, PROMPTS, L, other))


def test_a_tie_of_probabilities_is_one_for_confidence_and_top_probability_alike():
    # Log-probabilities one float apart, whose exponentials are the same float: both go to the left.
    logits = torch.randn(50_000, 4, generator=torch.Generator().manual_seed(0))
    logits[:, 3], logits[:, 0] = -torch.inf, logits[:, :3].amax(1)
    logp, row = logits.log_softmax(-1)[:, 0].sort()
    pair = ((logp[1:] > logp[:-1]) & (logp[1:].exp() == logp[:-1].exp())).nonzero()[0, 0]
    table = Table([[0.5, 0.5, 0.0, 0.0]] * 2)
    table.logits = logits[row[pair:pair + 2]][None]
    for order in ("confidence", "top_probability"):
        assert table.generate(Decoder(order)).rank.tolist() == [[0, 1]], order


@pytest.mark.parametrize("temperature", [0, 1.0])
def test_a_threshold_above_one_is_one_token_a_step(model, temperature):
    one = Decoder("top_probability", temperature=temperature)
    never = Decoder("top_probability", "threshold", 1.01, temperature=temperature)
    assert same(generate(model, PROMPTS, L, one, noise(3)),
                generate(model, PROMPTS, L, never, noise(3)))


def test_k_as_long_as_the_completion_is_one_step_of_mean_field(model):
    sample = generate(model, PROMPTS, L, Decoder("margin", "k", L, temperature=1.0), noise(4))
    assert (sample.rank == 0).all() and (sample.nfe == 1).all()


def test_the_same_seed_draws_the_same_sample_and_another_seed_another(model):
    decoder, samples = Decoder("confidence", temperature=1.0), []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        samples.append(generate(model, PROMPTS, L, decoder))
    assert same(samples[0], samples[1]) and not same(samples[0], samples[2])


@each_decoder(blocks=[None], temperatures=[0.6])
def test_under_fixed_noise_a_row_does_not_notice_what_else_is_in_its_batch(model, decoder):
    together = generate(model, PROMPTS, L, decoder, noise(5))
    assert len(set(together.nfe.tolist())) > 1      # rows left while others went on
    for b in range(len(PROMPTS)):       # rows 1 and 4 are left-padded
        alone = generate(model, PROMPTS[[b]], L, decoder, noise(5, rows=[b]))
        assert alone.tokens[0].equal(together.tokens[b]) and alone.rank[0].equal(together.rank[b])
        assert torch.allclose(alone.logp[0], together.logp[b], atol=1e-5)


@torch.no_grad()
def plain_generate(model, prompt, length, decoder, uniform):
    """The oracle for one token a step: one row, the whole canvas at every step, nothing shared.
    -> tokens and ranks of the row, lists; what is left at the end of the text is not filled in."""
    tokens, rank = [MASK] * length, [length] * length
    size = decoder.block_length or length
    for step in range(length):
        u, text = uniform(), tokens[:(tokens + [EOS]).index(EOS)]
        if MASK not in text:
            break
        p = model(torch.tensor([prompt + tokens]))[0, -length:].softmax(-1)
        q = p ** (1 / (decoder.temperature or 1))
        cdf = q.cumsum(-1) / q.sum(-1, keepdim=True)
        start = tokens.index(MASK) // size * size
        best = None
        for i in range(start, min(start + size, length)):
            if tokens[i] == MASK:
                token = int((cdf[i] <= u[i]).sum()) if decoder.temperature else int(p[i].argmax())
                first, second = p[i].topk(2).values.tolist()
                score = {"left_to_right": -i, "confidence": float(p[i, token]),
                         "redrawn": float(p[i, token]), "top_probability": first,
                         "margin": first - second,
                         "entropy": -float(torch.special.entr(p[i]).sum()),
                         "exploratory": first if step else float(torch.special.entr(p[i]).sum()),
                         }[decoder.order]
                if best is None or score > best[0] + 1e-6:
                    best = score, i, token
        _, i, token = best
        if decoder.order == "redrawn":
            again = uniform()[i]
            token = int((cdf[i] <= again).sum()) if decoder.temperature else token
        tokens[i], rank[i] = token, step
    return tokens, rank


@pytest.mark.parametrize("order", [order for order in ORDERS if order != "random"])
@pytest.mark.parametrize("block, temperature", [(None, 0), (None, 0.6), (2, 1.0), (3, 0.6)])
@pytest.mark.parametrize("length", [1, 4, 9])
def test_the_sampler_gives_the_tokens_and_ranks_of_the_plain_loop(order, block, temperature,
                                                                  length):
    model, decoder = tiny_model(), Decoder(order, block_length=block, temperature=temperature)
    prompts = PROMPTS[:, 1:].repeat_interleave(4, 0)        # siblings share their first states
    sample = generate(model, prompts, length, decoder, noise(6, n_rows=24, length=length))
    for b, prompt in enumerate(prompts.tolist()):
        tokens, rank = plain_generate(model, prompt, length, decoder,
                                      noise(6, rows=b, n_rows=24, length=length))
        assert sample.rank[b].tolist() == rank
        assert sample.tokens[b].tolist() == [EOS if t == MASK else t for t in tokens]


def test_the_size_of_the_chunks_changes_no_sample(model, monkeypatch):
    decoder = Decoder("confidence", temperature=1.0)
    whole = generate(model, PROMPTS, L, decoder, noise(7))
    canvases = watch(model)
    monkeypatch.setattr(sample_py, "chunks", functools.partial(chunks, budget=1))
    assert same(generate(model, PROMPTS, L, decoder, noise(7)), whole)
    assert max(map(len, canvases)) == 1


def test_siblings_share_their_states_and_n_forward_counts_what_was_run(model):
    canvases, prompts = watch(model), PROMPTS[:2].repeat_interleave(16, 0)
    sample = generate(model, prompts, L, Decoder(temperature=1.0), noise(8, n_rows=32))
    assert sample.n_forward == len(torch.cat(canvases)) < sample.nfe.sum() / 2
    assert len(canvases[0]) == 2        # two prompts, and nothing written yet


def test_from_left_to_right_only_one_position_of_a_state_is_asked_for(model):
    asked = []
    model.register_forward_hook(lambda module, args, logits: asked.append(args[1].sum(1)))
    generate(model, PROMPTS, L, Decoder(temperature=1.0), noise(9))
    assert (torch.cat(asked) == 1).all()


# ----------------------------------------------------------------------------------------------
# orders and selections, worked by hand

def chosen(name, value, certainty=None, entropy=None, score=None, candidate=None):
    """The positions that `select` commits in one row."""
    certainty = torch.tensor([certainty or [0.0] * len(entropy or score)])
    entropy = torch.zeros_like(certainty) if entropy is None else torch.tensor([entropy])
    score = certainty if score is None else torch.tensor([score])
    candidate = torch.ones_like(certainty) if candidate is None else torch.tensor([candidate])
    decoder = Decoder("top_probability", name, value)
    return select(decoder, score, certainty, entropy, candidate.bool())[0].nonzero()[:, 0].tolist()


def test_k_takes_the_k_best_scores_of_the_candidates():
    score = [0.2, 0.9, 0.5, 0.7]
    assert chosen("k", 1, score=score) == [1]
    assert chosen("k", 3, score=score) == [1, 2, 3]
    assert chosen("k", 2, score=score, candidate=[1, 0, 1, 0]) == [0, 2]
    assert chosen("k", 3, score=score, candidate=[1, 0, 1, 0]) == [0, 2]     # not more than all


def test_threshold_takes_all_that_reach_it_and_at_least_the_best():
    certainty = [0.5, 0.75, 0.25, 0.625]
    assert chosen("threshold", 0.5, certainty) == [0, 1, 3]
    assert chosen("threshold", 0.75, certainty) == [1]
    assert chosen("threshold", 0.9, certainty) == [1]
    assert chosen("threshold", 0.5, certainty, candidate=[1, 0, 1, 0]) == [0]
    assert chosen("threshold", 0.9, certainty, candidate=[1, 0, 1, 0]) == [0]


def test_fork_takes_all_that_reach_it_and_else_the_leftmost():
    certainty = [0.5, 0.75, 0.25, 0.625]
    assert chosen("fork", 0.625, certainty) == [1, 3]
    assert chosen("fork", 0.9, certainty) == [0]
    assert chosen("fork", 0.625, certainty, candidate=[0, 0, 1, 1]) == [3]
    assert chosen("fork", 0.7, certainty, candidate=[0, 0, 1, 1]) == [2]     # 1 is no candidate


def test_factor_by_hand():
    # falling: .95 .9 .8 .6; (n+1)(1-c): 2 * .05 = .1, 3 * .1 = .3, 4 * .2 = .8, 5 * .4 = 2
    certainty = [0.8, 0.95, 0.6, 0.9]
    assert chosen("factor", 0.05, certainty) == [1]
    assert chosen("factor", 0.2, certainty) == [1]
    assert chosen("factor", 0.5, certainty) == [1, 3]
    assert chosen("factor", 1, certainty) == [0, 1, 3]
    assert chosen("factor", 2.1, certainty) == [0, 1, 2, 3]
    assert chosen("factor", 1, certainty, candidate=[1, 0, 1, 1]) == [0, 3]  # .2, then 3 * .2 = .6
    assert chosen("factor", 1.5, [0.5, 0.5]) == [0]                          # 3 * .5 is not below


def test_factor_takes_the_largest_n_that_passes():
    generator = torch.Generator().manual_seed(0)
    for value in (0.25, 1, 2, 4):
        for _ in range(20):
            certainty = torch.rand(6, generator=generator).pow(0.2).tolist()
            best = sorted(certainty, reverse=True)
            passing = [n for n in range(1, 7) if (n + 1) * (1 - best[n - 1]) < value]
            assert len(chosen("factor", value, certainty)) == max(passing, default=1)


def test_entropy_bound_by_hand():
    entropy = [1.0, 0.25, 2.0, 0.5]     # rising: .25 .5 1 2; sum - max: 0, .25, .75, 1.75
    assert chosen("entropy_bound", 0, entropy=entropy) == [1]
    assert chosen("entropy_bound", 0.2, entropy=entropy) == [1]
    assert chosen("entropy_bound", 0.25, entropy=entropy) == [1, 3]          # the bound is included
    assert chosen("entropy_bound", 0.75, entropy=entropy) == [0, 1, 3]
    assert chosen("entropy_bound", 1.75, entropy=entropy) == [0, 1, 2, 3]
    assert chosen("entropy_bound", 1, entropy=entropy, candidate=[1, 0, 1, 0]) == [0, 2]
    # its own order, whatever the score prefers
    assert chosen("entropy_bound", 0, entropy=entropy, score=[9.0, 1.0, 8.0, 7.0]) == [1]


@pytest.mark.parametrize("name", SELECTIONS)
def test_ties_go_to_the_leftmost(name):
    value = {"k": 1, "threshold": 0.9, "factor": 0, "entropy_bound": 0.5, "fork": 0.9}[name]
    n = 40      # an unstable sort shows from 17 on
    candidate = [i > 2 for i in range(n)]
    assert chosen(name, value, [0.5] * n, [1.0] * n, candidate=candidate) == [3]


@pytest.mark.parametrize("order", [o for o in ORDERS if o != "random"])
def test_on_a_flat_distribution_every_order_goes_from_left_to_right(order):
    flat = Table([[0.5, 0.5, 0.0, 0.0]] * 20)
    assert flat.generate(Decoder(order)).rank[0].tolist() == list(range(20))


def test_the_orders_by_hand():
    table = Table([[0.50, 0.50, 0.00, 0.0, 0.0],    # margin 0    entropy  .69
                   [0.60, 0.20, 0.20, 0.0, 0.0],    #        .4            .95
                   [0.55, 0.45, 0.00, 0.0, 0.0],    #        .1            .69-
                   [0.40, 0.30, 0.30, 0.0, 0.0]])   #        .1-          1.09
    for order, rank in {"left_to_right": [0, 1, 2, 3], "confidence": [2, 0, 1, 3],
                        "top_probability": [2, 0, 1, 3], "margin": [3, 0, 1, 2],
                        "entropy": [1, 2, 0, 3], "exploratory": [3, 1, 2, 0]}.items():
        if order == "margin":   # keep .55 - .45 clear of .40 - .30
            table.logits[0, 2, :2] = torch.tensor([0.58, 0.42]).log()
        assert table.generate(Decoder(order)).rank[0].tolist() == rank, order


def test_confidence_ranks_by_the_untempered_probability_of_what_was_drawn():
    table = Table([[0.9, 0.1, 0.0, 0.0], [0.6, 0.4, 0.0, 0.0]])
    unlikely = torch.tensor([[0.99, 0.0]])      # draws the .1 at 0 and the .6 at 1
    sample = table.generate(Decoder("confidence", temperature=1.0), uniform=lambda: unlikely)
    assert sample.rank.tolist() == [[1, 0]] and sample.tokens.tolist() == [[1, 0]]
    # the position first, the draw after: the same draws do not change where it goes
    sample = table.generate(Decoder("top_probability", temperature=1.0), uniform=lambda: unlikely)
    assert sample.rank.tolist() == [[0, 1]] and sample.tokens.tolist() == [[1, 0]]
    assert sample.is_top.tolist() == [[False, True]]
    assert sample.logp[0].exp().tolist() == pytest.approx([0.1, 0.6])


def test_random_order_is_one_permutation_for_the_whole_canvas():
    table = Table([[0.5, 0.5, 0.0, 0.0]] * 4)
    calls = iter([torch.tensor([[0.3, 0.9, 0.1, 0.5]])] + [torch.zeros(1, 4)] * 4)
    sample = table.generate(Decoder("random", temperature=1.0), uniform=lambda: next(calls))
    assert sample.rank.tolist() == [[2, 0, 3, 1]]


def test_exploratory_explores_once_a_canvas_not_once_a_block():
    sure, unsure = [0.9, 0.1, 0.0, 0.0], [0.6, 0.4, 0.0, 0.0]
    table = Table([sure, unsure, sure, unsure, unsure, sure])
    sample = table.generate(Decoder("exploratory", block_length=2))
    assert sample.rank.tolist() == [[1, 0, 2, 3, 5, 4]]


def test_fork_goes_on_with_the_leftmost_where_nothing_is_certain():
    table = Table([[0.6, 0.4, 0.0, 0.0], [0.95, 0.05, 0.0, 0.0], [0.8, 0.2, 0.0, 0.0],
                   [0.97, 0.03, 0.0, 0.0]])
    assert table.generate(Decoder("top_probability", "fork", 0.9)).rank.tolist() == [[1, 0, 2, 0]]


# ----------------------------------------------------------------------------------------------
# end of text

def test_end_of_text_in_any_order():
    #                 0    1    eos  mask
    table = Table([[0.70, 0.30, 0.00, 0.0],
                   [0.40, 0.60, 0.00, 0.0],
                   [0.05, 0.05, 0.90, 0.0],     # first: the length is decided
                   [0.50, 0.30, 0.20, 0.0],     # never committed: filled with end-of-text
                   [0.80, 0.20, 0.00, 0.0]])    # second, though after the end: it keeps its rank
    sample = table.generate(Decoder("top_probability"))
    assert sample.tokens.tolist() == [[0, 1, 2, 2, 0]]
    assert sample.rank.tolist() == [[2, 3, 0, 5, 1]]
    assert sample.nfe.tolist() == [4]
    assert sample.logp[0].exp().tolist() == pytest.approx([0.7, 0.6, 0.9, 1.0, 0.8])
    assert (sample.entropy[0] > 0).tolist() == [True, True, True, False, True]


def test_nfe_counts_the_evaluations_of_a_row_while_it_is_alive():
    short, long = [[0.1, 0.0, 0.9, 0.0]] * 4, [[0.6, 0.4, 0.0, 0.0]] * 4
    sample = Table(short, long).generate(Decoder(), prompts=((0,), (1,), (1,), (0,), (1,)))
    assert sample.nfe.tolist() == [1, 4, 4, 1, 4]
    assert sample.rank.tolist()[0] == [0, 4, 4, 4] and sample.rank.tolist()[1] == [0, 1, 2, 3]


def test_is_finished_and_text_length_by_hand():
    config = SimpleNamespace(mask_id=9, eos_id=8)
    for tokens, finished, length in [([1, 2, 3], True, 3), ([1, 8, 9], True, 2),
                                     ([8, 9, 9], True, 1), ([8, 9, 8], True, 1),
                                     ([9, 8, 1], False, 2), ([1, 9, 8], False, 3),
                                     ([1, 2, 9], False, 3)]:
        assert is_finished(torch.tensor([tokens]), config).tolist() == [finished]
        assert text_length(torch.tensor([tokens]), 8).tolist() == [length]


# ----------------------------------------------------------------------------------------------
# draws and their probabilities

@pytest.mark.parametrize("temperature", [0, 1e-3, 0.6, 1.0, 50.0])
@pytest.mark.parametrize("u", [0.0, 0.5, 1 - 2 ** -24])     # 2^-24 is the step of torch.rand
def test_no_draw_is_of_a_token_without_probability(temperature, u):
    logp = torch.randn(300, 300, generator=torch.Generator().manual_seed(0)) * 5
    logp[:, [0, 1, 100, 101, 298, 299]] = -torch.inf
    logp[:6, :299] = -torch.inf         # a single token left, the last one
    logp[:6, 299] = 0
    logp = logp.log_softmax(-1)
    drawn = draw(logp, temperature, torch.arange(300), torch.full((300,), u))
    assert logp[torch.arange(300), drawn].isfinite().all()


@pytest.mark.parametrize("temperature", [0.6, 1.0])
@pytest.mark.parametrize("n, n_tokens, m", [(1, 5, 1000), (40, 300, 2000), (3000, 7, 3000)])
def test_the_binary_search_draws_what_counting_would(temperature, n, n_tokens, m):
    generator = torch.Generator().manual_seed(n)
    logp = (torch.randn(n, n_tokens, generator=generator) * 4).log_softmax(-1)
    which, u = torch.randint(n, (m,), generator=generator), torch.rand(m, generator=generator)
    cdf = (logp / temperature).softmax(-1).cumsum(-1)
    plain = (cdf[which] / cdf[which, -1:] <= u[:, None]).sum(1)
    drawn = draw(logp, temperature, which, u)
    assert (drawn != plain).sum() <= 1      # u can be within rounding of a border
    assert len(set(drawn.tolist())) > 1


@pytest.mark.parametrize("temperature", [0.6, 1.0])
def test_draws_follow_the_tempered_distribution(temperature):
    p = torch.tensor([0.3, 0.0, 0.45, 0.05, 0.2])
    u = (torch.arange(1000) + 0.5) / 1000       # an even grid: each token gets its share within 1
    drawn = draw(p.log()[None], temperature, torch.zeros(1000).long(), u)
    share = p ** (1 / temperature) / (p ** (1 / temperature)).sum()
    assert (drawn.bincount(minlength=5) - 1000 * share).abs().max() <= 1


def stopped_strings(eos_id, length):
    """Every completion over tokens 0 and 1 that ends at its first end-of-text, and its rank."""
    for tokens in itertools.product([0, 1, eos_id], repeat=length):
        n = tokens.index(eos_id) + 1 if eos_id in tokens else length
        if set(tokens[n:]) <= {eos_id}:
            yield tokens, [i if i < n else length for i in range(length)]


@pytest.mark.parametrize("can_end", [True, False])
def test_left_to_right_the_probabilities_of_all_strings_sum_to_one_and_are_the_frequencies(can_end):
    model = tiny_model(seed=3, vocab_size=4, mask_id=3, eos_id=2, sharpness=1.5)
    if not can_end:
        model.register_forward_hook(lambda m, args, logits: logits.index_fill(
            -1, torch.tensor([2]), -torch.inf))
    strings = [(t, r) for t, r in stopped_strings(2, 3) if can_end or 2 not in t]
    assert len(strings) == (15 if can_end else 8)
    tokens, rank = (torch.tensor(x) for x in zip(*strings))
    prompt, N = torch.tensor([[1, 0]]), 10_000
    sample = SimpleNamespace(tokens=tokens, rank=rank)
    p = likelihood(model, prompt.expand(len(tokens), -1), sample).sum(1).exp()
    assert float(p.sum()) == pytest.approx(1, abs=1e-5)
    torch.manual_seed(0)
    drawn = generate(model, prompt.expand(N, -1), 3, Decoder(temperature=1.0)).tokens
    expected = {t: N * float(q) for (t, _), q in zip(strings, p)}
    assert_frequencies(Counter(map(tuple, drawn.tolist())), expected)


def all_outcomes(order, select="k", value=1):
    """-> how often each (tokens, rank) came up in 3,000 samples, and its recorded probability."""
    model = tiny_model(seed=3, vocab_size=4, mask_id=3, eos_id=2, sharpness=1.5)
    torch.manual_seed(0)
    s = generate(model, torch.tensor([[1, 0]]).expand(3000, -1), 3,
                 Decoder(order, select, value, temperature=1.0))
    outcomes = [(tuple(t), tuple(r)) for t, r in zip(s.tokens.tolist(), s.rank.tolist())]
    return Counter(outcomes), dict(zip(outcomes, s.logp.sum(1).exp().tolist()))


@pytest.mark.parametrize("how", [("top_probability",), ("margin",), ("entropy",), ("exploratory",),
                                 ("margin", "k", 2), ("top_probability", "threshold", 0.6),
                                 ("top_probability", "fork", 0.6)], ids=str)
def test_where_draws_do_not_choose_positions_the_likelihood_is_the_policy(how):
    counts, p = all_outcomes(*how)
    assert sum(p.values()) == pytest.approx(1, abs=0.01)    # less only what 3,000 draws never hit
    assert_frequencies(counts, {outcome: 3000 * q for outcome, q in p.items()})


def test_in_confidence_order_the_likelihood_leaves_out_the_choice_of_the_position():
    _, p = all_outcomes("confidence")
    assert sum(p.values()) > 1.2


def test_the_law_of_confidence_order_sums_to_one_and_is_the_frequency_of_first_commits():
    model, N, T = tiny_model(seed=5, vocab_size=4, mask_id=3, eos_id=2, sharpness=1.0), 10_000, 0.6
    prompt = torch.tensor([[1, 0]])
    with torch.no_grad():
        logits = model(torch.tensor([[1, 0, 3, 3, 3]]))[0, 2:]
    p, q = logits.softmax(-1).tolist(), (logits / T).softmax(-1).tolist()
    law = {(i, v): q[i][v] * math.prod(     # all others drew something less probable
        sum(q[j][u] for u in range(3) if p[j][u] < p[i][v]) for j in range(3) if j != i)
        for i in range(3) for v in range(3)}
    assert sum(law.values()) == pytest.approx(1, abs=1e-6)
    torch.manual_seed(0)
    sample = generate(model, prompt.expand(N, -1), 3, Decoder("confidence", temperature=T))
    first = sample.rank.argmin(1)
    counts = Counter(zip(first.tolist(), sample.tokens[torch.arange(N), first].tolist()))
    assert_frequencies(counts, {cell: N * x for cell, x in law.items()})


# ----------------------------------------------------------------------------------------------
# combinations that mean nothing

@pytest.mark.parametrize("fields, reason", [
    (dict(order="right_to_left"), "left_to_right.*confidence.*top_probability.*exploratory"),
    (dict(order="top_probability", select="best"), "threshold.*factor.*entropy_bound.*fork"),
    *[(dict(order=order, select=name, value=0.9), f"{name}.*{order}")
      for order in ORDERS if order not in ("top_probability", "confidence")
      for name in SELECTIONS if name != "k"],
    (dict(order="confidence", select="threshold", value=0.9, temperature=0.6), "temperature 0"),
    (dict(temperature=-0.1), "temperature.*-0.1"), (dict(temperature=math.nan), "temperature.*nan"),
    (dict(temperature=math.inf), "temperature.*inf"),
    (dict(block_length=0), "block length.*0"), (dict(block_length=-1), "block length.*-1"),
    (dict(value=0), "k=0"), (dict(value=1.5), "k=1.5"), (dict(value=math.nan), "k=nan"),
    (dict(order="top_probability", select="threshold", value=-1), "threshold=-1")], ids=str)
def test_a_combination_that_means_nothing_is_refused_with_the_reason(fields, reason):
    with pytest.raises(ValueError, match=reason) as error:
        Decoder(**fields)
    assert len(str(error.value).splitlines()) == 1
