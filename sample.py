"""Every decoder, as one loop; and a look at a canvas being filled.

    python sample.py --checkpoint out/justgrpo.pt --watch --order top_probability --select threshold=0.9

Each step runs the model once on the canvas, *scores* the masked positions (the order), *selects* how
many of the best to commit, and draws their tokens. What comes out is the tokens and, for every
position, its `rank`: the step at which it was committed. Left to right, confidence first, parallel:
all of them are choices of rank, and grpo.log_probs gives the probability of any of them.

Legend: B rows, P prompt length, L completion length, V vocabulary, U distinct canvases in a step.
Rows with the same canvas share one evaluation of the model, which changes nothing but the time.
"""
import argparse
import sys
from dataclasses import dataclass

import torch

from data import load_task
from model import load_checkpoint

ORDERS = ("left_to_right", "confidence", "top_probability", "margin", "entropy", "random", "exploratory")
SELECTIONS = {"k": 1, "threshold": 0.9, "factor": 1.0, "entropy_bound": 0.1, "fork": 0.9}   # defaults


@dataclass(frozen=True)
class Decoder:
    """Orders (p untempered, T the temperature; the best is committed first, ties go to the left):
      left_to_right    the leftmost mask. JustGRPO's rollouts
      confidence       draw a token at every mask, keep the draw with the highest p. LLaDA's "low-
                       confidence remasking" (LCR), and the paper's arbitrary order
      top_probability  the position with the highest max p, then draw there (TPP; Kim et al. 2025)
      margin, entropy  the largest p(1st) - p(2nd); the lowest entropy; then draw there
      random           one random permutation a row
      exploratory      the highest entropy for the first commit, then top_probability (2609.34509)
    Selections, how many a step:
      k=1              the k best (LLaDA)
      threshold=0.9    all with max p >= it, at least the best (Fast-dLLM, arXiv 2505.22618)
      factor=1         the largest n with (n+1)(1 - n-th highest max p) < it (Fast-dLLM)
      entropy_bound=.1 by rising entropy, while sum - max <= it (EB-Sampler, arXiv 2505.24857)
      fork=0.9         all with max p >= it; if there is none, the leftmost mask (Fork-dLLM, 2609.39859)
    block_length: blocks of that many positions are finished from left to right; None: one block.
    Raises ValueError for a combination that means nothing, with the reason.
    """
    order: str = "left_to_right"
    select: str = "k"
    value: float = 1
    block_length: int | None = None
    temperature: float = 0.0

    def __post_init__(self):
        if self.order not in ORDERS:
            raise ValueError(f"unknown order {self.order!r}; known: {', '.join(ORDERS)}")
        if self.select not in SELECTIONS:
            raise ValueError(f"unknown selection {self.select!r}; known: {', '.join(SELECTIONS)}")
        if not 0 <= self.temperature < float("inf"):
            raise ValueError(f"the temperature is {self.temperature}; it must be 0 or more")
        if not 0 <= self.value < float("inf"):
            raise ValueError(f"{self.select}={self.value}: the value must be 0 or more")
        if self.select == "k" and (self.value < 1 or self.value != int(self.value)):
            raise ValueError(f"k={self.value}: must be a whole number, 1 or more")
        if self.block_length is not None and self.block_length < 1:
            raise ValueError(f"the block length is {self.block_length}; it must be 1 or more")
        by_probability = self.order == "top_probability" or (
            self.order == "confidence" and self.temperature == 0)   # the same thing at T = 0
        if self.select != "k" and not by_probability:
            raise ValueError(f"{self.select} picks positions by the model's certainty, not in order "
                             f"{self.order}: use top_probability (or confidence at temperature 0)")

    @property
    def selection(self):
        return f"{self.select}={self.value:g}"


@dataclass
class Sample:
    """Committed positions have a rank below L; the others were left when their row was finished:
    rank L, filled with end-of-text, and zero in entropy and logp."""
    tokens: torch.Tensor    # (B, L)
    rank: torch.Tensor      # (B, L) the step of the commit
    entropy: torch.Tensor   # (B, L) nats, of the untempered distribution at the commit
    logp: torch.Tensor      # (B, L) untempered log-probability of the token at the commit
    is_top: torch.Tensor    # (B, L) the token was the most probable one
    nfe: torch.Tensor       # (B,) forward evaluations of that row while it was alive
    n_forward: int = 0      # canvases actually run, all rows together: each distinct one once


@torch.no_grad()
def generate(model, prompts, length, decoder, uniform=None):
    """Fill `length` masks after each prompt (B, P) -> Sample. uniform(): fresh (B, L) numbers in
    [0, 1), one call a step (and one before the first, in random order); default torch.rand."""
    config, device, B, L = model.config, prompts.device, len(prompts), length
    uniform = uniform or (lambda: torch.rand(B, L))
    zeros = torch.zeros(B, L, device=device)
    out = Sample(torch.full((B, L), config.mask_id, device=device), torch.full_like(prompts[:, :1], L)
                 .repeat(1, L), zeros, zeros.clone(), zeros > 0, torch.zeros_like(prompts[:, 0]))
    permutation = uniform().to(device) if decoder.order == "random" else zeros
    alive, step = torch.arange(B, device=device), 0
    while len(alive):
        tokens = out.tokens[alive]                                             # (A, L) rows still alive
        canvas = torch.cat([prompts[alive], tokens], dim=1)                    # (A, P+L)
        canvas, state = canvas.unique(dim=0, return_inverse=True)              # (U, P+L), (A,)
        logp = evaluate_states(model, canvas, L)                               # (U, L, V)
        p = logp.exp()
        entropy = torch.special.entr(p).sum(-1)                                # (U, L)
        drawn = draw(logp, decoder.temperature, state, uniform().to(device)[alive])  # (A, L)
        drawn_logp = logp[state[:, None], torch.arange(L, device=device), drawn]     # (A, L)
        masked = tokens == config.mask_id
        score = position_score(decoder.order, step, p, entropy, state, drawn_logp, permutation[alive])
        chosen = select(decoder, score, p.amax(-1)[state], entropy[state], in_block(masked, decoder))

        row, position = chosen.nonzero(as_tuple=True)
        at = alive[row], position
        out.tokens[at], out.logp[at] = drawn[chosen], drawn_logp[chosen]
        out.rank[at], out.entropy[at] = step, entropy[state][chosen]
        out.is_top[at] = drawn[chosen] == p.argmax(-1)[state][chosen]
        out.nfe[alive] += 1
        out.n_forward += len(canvas)
        alive, step = alive[~is_finished(out.tokens[alive], config)], step + 1
    out.tokens[out.tokens == config.mask_id] = config.eos_id
    return out


def evaluate_states(model, canvas, length, chunk_size=512):
    """(U, P+L) -> log-probabilities of the completion's positions, (U, L, V), untempered."""
    return torch.cat([model(c)[:, -length:].log_softmax(-1) for c in canvas.split(chunk_size)])


def draw(logp, temperature, state, u):
    """One token a position from p^(1/T), by inverting the cumulative distribution at u.
    logp (U, L, V), state (A,) which of the U each row is in, u (A, L) -> (A, L)."""
    if temperature == 0:
        return logp.argmax(-1)[state]
    cdf = (logp / temperature).softmax(-1).cumsum(-1)
    cdf = cdf / cdf[..., -1:]       # ends at exactly 1, so that u < 1 always falls inside
    return (cdf[state] <= u[..., None]).sum(-1)


def position_score(order, step, p, entropy, state, drawn_logp, permutation):
    """What each order prefers: (A, L), the highest is committed first."""
    if order == "left_to_right":
        return -torch.arange(p.shape[1], device=p.device).float().expand(len(state), -1)
    if order == "confidence":       # of the token that was drawn: the draws choose the position
        return drawn_logp
    if order == "random":
        return permutation
    if order == "margin":
        best, second = p.topk(2, dim=-1).values.unbind(-1)
        return (best - second)[state]
    if order == "entropy":
        return -entropy[state]
    if order == "exploratory" and step == 0:
        return entropy[state]
    return p.amax(-1)[state]        # top_probability


def in_block(masked, decoder):
    """The masked positions of each row's current block, the one that holds its leftmost mask."""
    if decoder.block_length is None:
        return masked
    block = torch.arange(masked.shape[1], device=masked.device) // decoder.block_length
    return masked & (block == block[masked.int().argmax(1)][:, None])


def select(decoder, score, top, entropy, candidate):
    """Which candidates to commit now, at least one a row. All arguments and the result are (A, L)."""
    key = -entropy if decoder.select == "entropy_bound" else score
    if decoder.select == "fork":    # where nothing is certain: leftmost
        certain = ((top >= decoder.value) & candidate).any(1, keepdim=True)
        leftmost = -torch.arange(key.shape[1], device=key.device).float()
        key = torch.where(certain, key, leftmost)
    order = key.masked_fill(~candidate, -torch.inf).argsort(dim=1, descending=True, stable=True)
    is_real = candidate.gather(1, order)                  # candidates come first
    top, entropy = top.gather(1, order), entropy.gather(1, order)
    n = torch.arange(1, key.shape[1] + 1, device=key.device)     # committing the first n
    if decoder.select == "k":
        take = n <= decoder.value
    elif decoder.select in ("threshold", "fork"):
        take = top >= decoder.value
    elif decoder.select == "factor":    # the largest n that passes, also where a smaller one fails
        passes = (n + 1) * (1 - top) < decoder.value
        take = (passes & is_real).int().flip(1).cummax(1).values.flip(1).bool()
    else:                               # entropies rise, so the n-th is the largest of the first n
        take = entropy.cumsum(1) - entropy <= decoder.value
    take = ((take | (n == 1)) & is_real)
    return torch.zeros_like(candidate).scatter(1, order, take)


def text_length(tokens, eos_id):
    """(B, L) -> (B,): tokens up to and including the first end-of-text (L if there is none)."""
    return ((tokens == eos_id).long().cumsum(1) == 0).sum(1).add(1).clamp(max=tokens.shape[1])


def is_finished(tokens, config):
    """(A, L) -> (A,): every position before the leftmost end-of-text is committed."""
    masked, end = tokens == config.mask_id, tokens == config.eos_id
    return ~(masked & (end.long().cumsum(1) == 0)).any(1)


# ----------------------------------------------------------------------------------------------
# the command line; eval_gsm8k.py and train.py share the parser and these flags

class Parser(argparse.ArgumentParser):
    """Shows defaults in --help, and says what is wrong in one line, exit status 2."""

    def __init__(self, description):
        super().__init__(description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter)

    def error(self, message):
        self.exit(2, f"{self.prog}: error: {message}\n")


def add_decoder_flags(parser):
    parser.add_argument("--order", default="left_to_right", help=", ".join(ORDERS))
    parser.add_argument("--select", default="k=1", metavar="NAME[=VALUE]", help="how many tokens a step: "
                        + ", ".join(f"{name}={value}" for name, value in SELECTIONS.items()))
    parser.add_argument("--block-length", type=int, help="finish blocks of this many tokens from left "
                        "to right; none: the whole completion is one block")
    parser.add_argument("--temperature", type=float, default=0.0, help="0 takes the likeliest token")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or mps")
    parser.add_argument("--seed", type=int, default=0, help="of the draws")


def decoder_from(args, length):
    """-> Decoder, from the flags above. Raises ValueError."""
    name, _, value = args.select.partition("=")
    try:
        value = float(value or SELECTIONS.get(name, 1))
    except ValueError:
        raise ValueError(f"--select {args.select}: {value!r} is not a number") from None
    if args.block_length is not None and args.block_length > length:
        print(f"note: blocks of {args.block_length} clamped to the completion's {length} tokens")
        args.block_length = length
    return Decoder(args.order, name, value, args.block_length, args.temperature)


def pick_device(name):
    """auto: cuda if there, mps if it really runs this network, else cpu. Raises ValueError."""
    if name == "auto" and torch.cuda.is_available():
        return "cuda"
    if name in ("auto", "mps") and torch.backends.mps.is_available():
        try:    # mps lacks some operations in some versions
            torch.rand(4, 4, device="mps").argsort(dim=1, descending=True, stable=True).unique(dim=0)
            return "mps"
        except (RuntimeError, NotImplementedError) as error:
            if name == "mps":
                raise ValueError(f"--device mps does not work here ({error}); use --device cpu") from None
    if name == "auto":
        return "cpu"
    if name not in ("cpu", "cuda") or name == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"--device {name} is not available here; use --device cpu, or leave it out")
    return name


def token_text(task, token):
    """One token as a reader can see it: masks, end-of-text and control characters made visible."""
    if token in (task.mask_id, task.eos_id):
        return "__" if token == task.mask_id else "."
    text = task.tokenizer.decode_single_token_bytes(token).decode("utf-8", "replace").strip(" ")
    return "".join(ch if ch.isprintable() else ch.encode("unicode_escape").decode() for ch in text) or "'_'"


def show(task, tokens, rank, watch):
    """Print one canvas: with `watch` after each step, replayed from the ranks; at the end with them."""
    words = [token_text(task, int(t)) for t in tokens]
    width = [max(len(w), 2) for w in words]
    bright = ("\033[7m", "\033[0m") if sys.stdout.isatty() else ("", "")
    n_steps = int(rank[rank < len(rank)].max()) + 1
    for step in range(n_steps if watch else 0):
        cells = [(f"{bright[0]}{w:>{n}}{bright[1]}" if r == step else f"{w if r < step else '__':>{n}}")
                 for w, n, r in zip(words, width, rank.tolist())]
        print(f"step {step:3d}  " + " ".join(cells))
    print("text      " + " ".join(f"{w:>{n}}" for w, n in zip(words, width)))
    print("rank      " + " ".join(f"{'-' if r == len(rank) else r:>{n}}"
                                  for r, n in zip(rank.tolist(), width)))


def main(argv=None):
    parser = Parser("Fill one problem's canvas, in any order.")
    parser.add_argument("--checkpoint", default="out/justgrpo.pt", help="made by train.py")
    parser.add_argument("--index", type=int, default=0, help="which test problem")
    parser.add_argument("--prompt", help="a question of your own instead, in the task's words")
    parser.add_argument("--data", help="a GSM8K file to take the problem from")
    parser.add_argument("--samples", type=int, default=1, help="how many completions")
    parser.add_argument("--watch", action="store_true", help="show the canvas after every step")
    add_decoder_flags(parser)
    args = parser.parse_args(argv)
    try:
        if args.samples < 1 or args.index < 0:
            raise ValueError("--samples must be 1 or more, --index 0 or more")
        model, description, _ = load_checkpoint(args.checkpoint, pick_device(args.device))
        task = load_task(description, args.data)
        decoder = decoder_from(args, task.completion_length)
        problem = {"question": args.prompt, "answer": None} if args.prompt else (
            task.problem("test", args.index))
        n_tokens = len(task.tokenizer.encode_ordinary(problem["question"]))
        longest = model.config.max_length - task.completion_length
        # Beyond the length seen in training the network still runs, it has only never been there.
        prompt = task.prompts([problem["question"]], min(max(n_tokens, task.prompt_length), longest))
    except (OSError, ValueError) as error:
        parser.error(str(error))
    torch.manual_seed(args.seed)
    prompts = prompt.repeat(args.samples, 1).to(next(model.parameters()).device)
    sample = generate(model, prompts, task.completion_length, decoder)
    lengths = text_length(sample.tokens, task.eos_id)
    print("question  " + problem["question"].strip())
    for i in range(args.samples):
        show(task, sample.tokens[i], sample.rank[i], args.watch)
        text, nfe, n_tokens = task.text(sample.tokens[i]), int(sample.nfe[i]), int(lengths[i])
        verdict = "" if problem["answer"] is None else (
            "right" if task.reward(text, problem["answer"]) else f"wrong, it is {problem['answer']}")
        print(f"          {nfe} forward evaluations, {n_tokens / nfe:.2f} tokens per evaluation, "
              f"log-prob {float(sample.logp[i].sum()):.3f}  {verdict}")


if __name__ == "__main__":
    main()
