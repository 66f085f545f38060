"""The network: a masked-diffusion language model (LLaDA in miniature), and its loss.

It is a GPT with three differences:
1. no causal mask: every position sees the whole canvas, left and right;
2. a MASK token: some tokens are hidden, and the output at position i is a distribution
   for position i itself, not for the next one. There is no time input: the number of
   masks says how far we are;
3. the loss: hide each completion token with probability t ~ U(0, 1] and weight the
   cross-entropy at the hidden ones by 1/t. In expectation that is the negative
   log-likelihood averaged over every order of filling in (LLaDA, arXiv 2502.09992, eq.
   3; a test proves it).

Names are LLaDA's. Legend: B rows, P prompt, L completion, S = P + L, V vocabulary,
C = n_embd, H heads, n positions that somebody wants to know.
"""
import threading
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

BUDGET = 2**21      # hidden values, or logits, run at a time; with gradients, about 200 MB
# Threads share torch's own generator and its classes: who seeds the one, or patches the
# other, holds this meanwhile.
ALONE = threading.Lock()


@dataclass
class ModelConfig:
    vocab_size: int
    mask_id: int            # never predicted: its logit is -inf
    eos_id: int             # ends a completion and fills the rest of it
    max_length: int = 64    # longest canvas, P + L
    n_layer: int = 3
    n_head: int = 4
    n_embd: int = 128
    n_hidden: int = 384     # width of the MLP; LLaDA uses 3 * n_embd as well
    rope_theta: float = 100.0   # wavelengths of 6 to 500 tokens: the canvas is short
    norm_eps: float = 1e-5
    n_padding: int = 0      # unused rows at the end of embedding and head


class Block(nn.Module):
    """One layer: x + attention(norm(x)), then x + SwiGLU(norm(x))."""

    def __init__(self, config):
        super().__init__()
        width, hidden = config.n_embd, config.n_hidden
        self.n_head = config.n_head
        self.attn_norm = nn.RMSNorm(width, eps=config.norm_eps)
        self.ff_norm = nn.RMSNorm(width, eps=config.norm_eps)
        self.q_proj = nn.Linear(width, width, bias=False)
        self.k_proj = nn.Linear(width, width, bias=False)
        self.v_proj = nn.Linear(width, width, bias=False)
        self.attn_out = nn.Linear(width, width, bias=False)
        self.ff_proj = nn.Linear(width, hidden, bias=False)     # SwiGLU's gate,
        self.up_proj = nn.Linear(width, hidden, bias=False)     # and what passes it
        self.ff_out = nn.Linear(hidden, width, bias=False)
        for last in (self.attn_out, self.ff_out):   # each block starts as the identity
            nn.init.zeros_(last.weight)

    def forward(self, x, cos, sin, wanted=None):
        """(B, S, C) -> (B, S, C). With wanted (B, S), only its n positions: (n, C)."""
        attended = self.attn_out(self.attention(self.attn_norm(x), cos, sin, wanted))
        x = (x if wanted is None else x[wanted]) + attended        # (B, S, C) or (n, C)
        return x + self.feed_forward(self.ff_norm(x))

    def attention(self, x, cos, sin, wanted=None):
        """Every position looks at every position: (B, S, C) -> (B, S, C).

        With wanted, keys and values are those of every position all the same, but only
        the wanted ones ask: (n, C).
        """
        k = rotate(self.heads(self.k_proj(x)), cos, sin)                # (B, H, S, C/H)
        v = self.heads(self.v_proj(x))                                  # (B, H, S, C/H)
        if wanted is None:
            q = rotate(self.heads(self.q_proj(x)), cos, sin)            # (B, H, S, C/H)
            return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(-2)
        # The wanted positions of each row come first; W is the most that a row wants.
        count = wanted.sum(1, keepdim=True)                             # (B, 1)
        first = wanted.int().argsort(dim=1, descending=True, stable=True)
        first = first[:, :count.max()]                                  # (B, W)
        asking = x.take_along_dim(first[..., None], 1)                  # (B, W, C)
        cos, sin = cos[first][:, None], sin[first][:, None]            # (B, 1, W, C/2H)
        q = rotate(self.heads(self.q_proj(asking)), cos, sin)           # (B, H, W, C/H)
        out = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(-2)
        is_real = torch.arange(first.shape[1], device=x.device) < count    # (B, W)
        return out[is_real]                                             # (n, C)

    def heads(self, x):
        """(B, S, C) -> (B, H, S, C/H)"""
        return x.unflatten(-1, (self.n_head, -1)).transpose(1, 2)

    def feed_forward(self, x):
        return self.ff_out(F.silu(self.ff_proj(x)) * self.up_proj(x))


def rotations(config):
    """cos and sin of every position's angles, (max_length, C/2H) each. On the CPU: they
    are numbers also where the weights are still to come (llada.py)."""
    half = config.n_embd // config.n_head // 2
    frequency = config.rope_theta ** (-torch.arange(half, device="cpu") / half)  # (C/2H,)
    position = torch.arange(config.max_length, device="cpu")
    angle = position[:, None] * frequency                       # (max_length, C/2H)
    return angle.cos(), angle.sin()


def rotate(x, cos, sin):
    """Rotary position embedding (RoPE), half-split: pairs are (i, i + half). In float32,
    as cos and sin are, whatever x is."""
    a, b = x.chunk(2, dim=-1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1).type_as(x)


class MaskedDiffusionLM(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.config = config
        self.wte = nn.Embedding(config.vocab_size, config.n_embd)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.n_layer))
        self.ln_f = nn.RMSNorm(config.n_embd, eps=config.norm_eps)
        self.ff_out = nn.Linear(config.n_embd, config.vocab_size, bias=False)
        cos, sin = rotations(config)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)
        nn.init.normal_(self.wte.weight, std=config.n_embd ** -0.5)
        nn.init.normal_(self.ff_out.weight, std=0.02)

    def forward(self, tokens, wanted=None):
        """What belongs at each position.

        tokens (B, S) -> logits (B, S, V). With wanted (B, S), a bool for each position,
        only for those: (n, V), row by row. Raises ValueError for a canvas that is too
        long.
        """
        length, longest = tokens.shape[1], self.config.max_length
        if length > longest:
            raise ValueError(
                f"a canvas of {length} tokens is longer than this model's {longest}")
        cos, sin = self.cos[:length], self.sin[:length]                 # (S, C/2H)
        x = self.wte(tokens)                                            # (B, S, C)
        for block in self.blocks[:-1]:
            x = block(x, cos, sin)                                      # (B, S, C)
        x = self.blocks[-1](x, cos, sin, wanted)                   # (B, S, C) or (n, C)
        logits = self.ff_out(self.ln_f(x)).float()                 # (B, S, V) or (n, V)
        # The one place where MASK is forbidden: no decoder draws it, no loss rewards it.
        logits[..., self.config.mask_id] = -torch.inf
        if self.config.n_padding:
            logits[..., -self.config.n_padding:] = -torch.inf
        return logits


def draw_masks(n_rows, length, generator=None):
    """The forward process: t (B,) in (0, 1]; is_masked (B, L), each with probability t.

    t is stratified: one draw in each of B equal slices, which evens out the loss.
    """
    t = (torch.arange(n_rows) + (1 - torch.rand(n_rows, generator=generator))) / n_rows
    return t, torch.rand(n_rows, length, generator=generator) < t[:, None]


def diffusion_loss(model, prompt, completion, t, is_masked):
    """Cross-entropy at the masks, weighted by 1/t, over B * L (LLaDA, eq. 3).

    prompt (B, P), never masked; completion (B, L), t (B,), is_masked (B, L). Returns nats
    per completion token.
    """
    t, is_masked = t.to(prompt.device), is_masked.to(prompt.device)
    noisy = completion.masked_fill(is_masked, model.config.mask_id)     # (B, L)
    wanted = F.pad(is_masked, (prompt.shape[1], 0))                     # (B, P+L)
    logits = model(torch.cat([prompt, noisy], dim=1), wanted)           # (n, V)
    nll = F.cross_entropy(logits, completion[is_masked], reduction="none")     # (n,)
    return (nll / t.repeat_interleave(is_masked.sum(1))).sum() / completion.numel()


def from_weights(config, weights):
    """A model of these saved weights (name -> tensor), in eval mode.

    Raises ValueError unless names and shapes are exactly those of a network of this
    config, before any memory is taken for it.
    """
    if not (0 < config.n_layer <= len(weights) and 0 < config.max_length <= 2**14):
        raise ValueError("layers are missing, or the canvas is beyond all bounds")
    if not 0 < config.norm_eps < 1 or config.n_head < 1 or config.n_embd % config.n_head:
        raise ValueError("a config that no network has")
    n_tokens = config.vocab_size - config.n_padding
    if config.n_padding < 0 or not 0 <= max(config.mask_id, config.eos_id) < n_tokens:
        raise ValueError("MASK or end-of-text are no tokens")
    shapes = {name: tuple(weight.shape) for name, weight in weights.items()}
    if shapes != dict(weight_shapes(config)):
        raise ValueError("weights are missing, or not of this size")
    with ALONE:     # draws weights, which are then replaced
        model = MaskedDiffusionLM(config).eval()
    model.load_state_dict(weights)
    return model


def weight_shapes(config):
    """Yields name, shape of every weight."""
    V, C, H = config.vocab_size, config.n_embd, config.n_hidden
    yield "wte.weight", (V, C)
    for i in range(config.n_layer):
        for name in ("attn_norm", "ff_norm"):
            yield f"blocks.{i}.{name}.weight", (C,)
        for name in ("q_proj", "k_proj", "v_proj", "attn_out"):
            yield f"blocks.{i}.{name}.weight", (C, C)
        for name in ("ff_proj", "up_proj"):
            yield f"blocks.{i}.{name}.weight", (H, C)
        yield f"blocks.{i}.ff_out.weight", (C, H)
    yield "ln_f.weight", (C,)
    yield "ff_out.weight", (V, C)

# ----------------------------------------------------------------------------------------
# running it no more often than needed


def distinct(rows):
    """Distinct rows: (B, N) int64 -> (U, N), in any order; and which of them each is, (B,).

    rows.unique(dim=0, return_inverse=True) does so too, but sorts N numbers a row, not
    one.
    """
    generator = torch.Generator().manual_seed(0)
    factors = torch.randint(2**62, rows.shape[1:], generator=generator)
    hashes = (rows * factors.to(rows.device)).sum(1)                    # (B,)
    _, which = hashes.unique(return_inverse=True)
    example = which.new_empty(int(which.max()) + 1 if len(rows) else 0)     # (U,)
    example.scatter_(0, which, torch.arange(len(rows), device=rows.device))
    found = rows[example]
    if not found[which].equal(rows):    # two rows with the same hash, some day
        return rows.unique(dim=0, return_inverse=True)
    return found, which


def has_float64(device):
    """Whether a device knows float64; a Mac's GPU does not."""
    try:
        torch.zeros(1, device=device).double()
    except TypeError:
        return False
    return True


def numbered(wanted):
    """wanted (U, S) bool -> (U, S): at a wanted position, which of all these it is, row
    by row. So it finds its own among the n logits that the network gives for them."""
    return wanted.flatten().cumsum(0).view_as(wanted) - 1


def chunks(model, canvas, wanted, budget=BUDGET):
    """Split both, U rows each, into pieces small enough for the memory: of hidden values,
    or, where the vocabulary is large, of logits."""
    config = model.config
    width = config.n_layer * config.n_embd * canvas.shape[1]
    if len(canvas):
        width = max(width, int(wanted.sum(1).max()) * config.vocab_size)
    size = max(1, budget // width)
    for start in range(0, len(canvas), size):
        yield canvas[start:start + size], wanted[start:start + size]
