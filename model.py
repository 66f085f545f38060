"""The network: a masked-diffusion language model (LLaDA in miniature), its loss, its checkpoints.

It is a GPT with three differences:
1. no causal mask: every position sees the whole canvas, left and right;
2. a MASK token: some tokens are hidden, and the output at position i is a distribution for position
   i itself, not for the next one. There is no time input: the number of masks says how far we are;
3. the loss: hide each completion token with probability t ~ U(0, 1] and weight the cross-entropy at
   the hidden ones by 1/t. In expectation that is the negative log-likelihood averaged over every
   order of filling in (LLaDA, arXiv 2502.09992, eq. 3; a test proves it).
Names are LLaDA's. Legend: B rows, P prompt, L completion, S = P + L, V vocabulary, C = n_embd."""
import io
import os
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

BUDGET = 2**21      # hidden values run at a time; with gradients, about 200 MB
FORMAT = "flexibility-trap checkpoint, version 1"

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

class Block(nn.Module):
    def __init__(self, config):
        super().__init__()
        c, h, self.n_head = config.n_embd, config.n_hidden, config.n_head
        self.attn_norm, self.ff_norm = (nn.RMSNorm(c, eps=config.norm_eps) for _ in range(2))
        self.q_proj, self.k_proj, self.v_proj, self.attn_out = (
            nn.Linear(c, c, bias=False) for _ in range(4))
        self.ff_proj, self.up_proj = (nn.Linear(c, h, bias=False) for _ in range(2))   # SwiGLU
        self.ff_out = nn.Linear(h, c, bias=False)
        for last in (self.attn_out, self.ff_out):       # each block starts as the identity
            nn.init.zeros_(last.weight)

    def forward(self, x, cos, sin, wanted=None):
        """(B, S, C) -> (B, S, C), or only the n positions `wanted` (B, S) of it, (n, C). They need
        keys and values of every position, but the rest only of their own."""
        h = self.attn_norm(x)
        k, v = (f(h).unflatten(-1, (self.n_head, -1)).transpose(1, 2)          # (B, H, S, C/H)
                for f in (self.k_proj, self.v_proj))
        k, real = rotate(k, cos, sin), ...      # an index: everything
        if wanted is not None:      # W = the most that a row wants; they come first
            n = wanted.sum(1, keepdim=True)
            at = wanted.int().argsort(dim=1, descending=True, stable=True)[:, :n.max()]  # (B, W)
            real = torch.arange(at.shape[1], device=x.device) < n
            x, h, cos, sin = x[wanted], h.take_along_dim(at[..., None], 1), cos[at], sin[at]
            cos, sin = cos[:, None], sin[:, None]                              # (B, 1, W, C/2H)
        q = rotate(self.q_proj(h).unflatten(-1, (self.n_head, -1)).transpose(1, 2), cos, sin)
        h = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(-2)[real]
        x = x + self.attn_out(h)                                               # (B, S, C), (n, C)
        h = self.ff_norm(x)
        return x + self.ff_out(F.silu(self.ff_proj(h)) * self.up_proj(h))

def rotate(x, cos, sin):  # rotary position embedding, half-split: pairs are (i, i + half)
    a, b = x.chunk(2, dim=-1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1)

class MaskedDiffusionLM(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.config = config
        self.wte = nn.Embedding(config.vocab_size, config.n_embd)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.n_layer))
        self.ln_f = nn.RMSNorm(config.n_embd, eps=config.norm_eps)
        self.ff_out = nn.Linear(config.n_embd, config.vocab_size, bias=False)
        half = config.n_embd // config.n_head // 2
        frequency = config.rope_theta ** (-torch.arange(half) / half)          # (half,)
        angle = torch.arange(config.max_length)[:, None] * frequency           # (max_length, half)
        self.register_buffer("cos", angle.cos(), persistent=False)
        self.register_buffer("sin", angle.sin(), persistent=False)
        nn.init.normal_(self.wte.weight, std=config.n_embd ** -0.5)
        nn.init.normal_(self.ff_out.weight, std=0.02)

    def forward(self, tokens, wanted=None):
        """(B, S) token ids -> (B, S, V) logits; with `wanted` (B, S) for those n only, (n, V)."""
        n, most = tokens.shape[1], self.config.max_length
        if n > most:
            raise ValueError(f"a canvas of {n} tokens is longer than this model's {most}")
        cos, sin, x = self.cos[:n], self.sin[:n], self.wte(tokens)             # (B, S, C)
        for block in self.blocks:       # the last one is asked only for what is wanted
            x = block(x, cos, sin, wanted if block is self.blocks[-1] else None)
        logits = self.ff_out(self.ln_f(x)).float()                             # (B, S, V), (n, V)
        # The one place where MASK is forbidden: no decoder can draw it, no loss can reward it.
        logits[..., self.config.mask_id] = -torch.inf
        return logits

def draw_masks(n_rows, length, generator=None):
    """The forward process. Returns t (B,) in (0, 1] and is_masked (B, L), each True with
    probability t. t is stratified: one draw in each of B equal slices, which evens out the loss."""
    t = (torch.arange(n_rows) + (1 - torch.rand(n_rows, generator=generator))) / n_rows
    return t, torch.rand(n_rows, length, generator=generator) < t[:, None]

def diffusion_loss(model, prompt, completion, t, is_masked):
    """Masked cross-entropy weighted by 1/t, over B * L (LLaDA, eq. 3). The prompt is never masked.
    prompt (B, P), completion (B, L), t (B,), is_masked (B, L) -> nats per completion token."""
    t, is_masked = t.to(prompt.device), is_masked.to(prompt.device)
    noisy = completion.masked_fill(is_masked, model.config.mask_id)
    wanted = F.pad(is_masked, (prompt.shape[1], 0))                            # (B, P+L)
    logits = model(torch.cat([prompt, noisy], dim=1), wanted)                  # (n, V)
    nll = F.cross_entropy(logits, completion[is_masked], reduction="none")     # (n,)
    return (nll / t.repeat_interleave(is_masked.sum(1))).sum() / completion.numel()

def distinct(rows):
    """Distinct rows: (B, N) int64 -> (U, N), in any order, and which (B,) of them each row is.
    rows.unique(dim=0, return_inverse=True) does so too, but sorts N numbers a row, not one."""
    factors = torch.randint(2**62, rows.shape[1:], generator=torch.Generator().manual_seed(0))
    _, which = (rows * factors.to(rows.device)).sum(1).unique(return_inverse=True)
    example = which.new_empty(int(which.max()) + 1 if len(rows) else 0)
    found = rows[example.scatter_(0, which, torch.arange(len(rows), device=rows.device))]
    if not found[which].equal(rows):    # two rows with the same sum, some day
        return rows.unique(dim=0, return_inverse=True)
    return found, which

def chunks(model, canvas, *others, budget=BUDGET):
    """Split tensors of U rows into pieces small enough for the memory, whatever the model."""
    size = max(1, budget // (model.config.n_layer * model.config.n_embd * canvas.shape[1]))
    for i in range(0, len(canvas), size):
        yield [x[i:i + size] for x in (canvas, *others)]

def write_whole(path, data):  # under a temporary name, then renamed: never half a file
    temporary = Path(f"{path}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(data)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)

def save_checkpoint(path, model, task, **info):
    """One dict of plain types. task: what data.load_task needs; info: plain values."""
    weights = {name: w.detach().cpu() for name, w in model.state_dict().items()}
    buffer = io.BytesIO()   # so that the bytes don't depend on the file's name
    torch.save({"format": FORMAT, "config": asdict(model.config), "model": weights, "task": task,
                "info": info}, buffer)
    write_whole(path, buffer.getvalue())

def load_checkpoint(path, device="cpu"):
    """-> model in eval mode, task dict, info dict. Raises OSError, or ValueError in one line."""
    if not os.path.exists(path):
        raise FileNotFoundError(f"{path} is missing; make one with: python train.py --out FOLDER")
    data = io.BytesIO(Path(path).read_bytes())
    try:
        saved = dict(torch.load(data, map_location="cpu", weights_only=True))
        if saved["format"] != FORMAT:
            raise ValueError(f"another format, {saved['format']!r:.60}")
        model = MaskedDiffusionLM(ModelConfig(**saved["config"]))
        model.load_state_dict(saved["model"])
        return model.eval().to(device), saved["task"], saved["info"]
    except Exception as error:          # torch raises half a dozen kinds; all mean the same here
        raise ValueError(f"{path} is damaged or no {FORMAT} ({type(error).__name__}: "
                         f"{str(error)[:60]!r}); make one with: python train.py") from None
