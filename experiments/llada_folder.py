"""Write a folder of LLaDA's layout: a checkpoint of train.py, or random weights of any
size, to try what docs/llada.md describes without a download.

    python experiments/llada_folder.py FOLDER --checkpoint out/justgrpo.pt
    python experiments/llada_folder.py FOLDER                       104 thousand parameters
    python experiments/llada_folder.py FOLDER --layers 24 --width 896 --heads 14 \
        --hidden 2688 --rows 126464 --max-length 4096 --dtype bfloat16          0.5 billion

Random folders have the tokenizer of tests/fixtures/llada/tokenizer: 1,208 tokens. With
more --rows the rest of the embedding is padding, as in a vocabulary of a rounder size.
"""
import argparse
import math
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from tqdm import tqdm

from model import ModelConfig, weight_shapes
from runs import ends_quietly, plain
from sample import folder, import_llada, load_checkpoint, positive, seed

TOKENIZER = Path(__file__).resolve().parents[1] / "tests/fixtures/llada/tokenizer"


def write_random(folder, n_layer=2, n_embd=32, n_head=4, n_hidden=96, max_length=512,
                 n_rows=None, dtype=torch.float32, seed=0, most=None):
    """Random weights, drawn as they are written, in files of `most` bytes: no more than one
    file's are in memory. Returns how many."""
    llada = import_llada()
    vocabulary = llada.Vocabulary(TOKENIZER)
    mask_id, eos_id = vocabulary.encode("<|mdm_mask|><|endoftext|>")
    n_rows = n_rows or vocabulary.n_vocab
    config = ModelConfig(n_rows, mask_id, eos_id, max_length, n_layer, n_head, n_embd,
                         n_hidden, rope_theta=500000.0,
                         n_padding=n_rows - vocabulary.n_vocab)
    shapes = dict(weight_shapes(config))
    generator = torch.Generator().manual_seed(seed)
    with tqdm(total=len(shapes), desc="tensors", leave=False) as bar:
        def weight_of(name):
            bar.update()
            shape = shapes[name]
            if len(shape) == 1:     # of a norm
                return torch.ones(shape, dtype=dtype)
            scale = 1.0 if name == "wte.weight" else 1 / math.sqrt(shape[1])
            return torch.randn(shape, generator=generator).mul_(scale).to(dtype)

        llada.write_llada(folder, config, weight_of, dtype,
                          llada.read_companions(TOKENIZER), most or llada.SHARD)
    return sum(math.prod(shape) for shape in shapes.values())


@ends_quietly
def main(argv=None):
    parser = argparse.ArgumentParser(
        description="Write a folder of LLaDA's layout.", usage=argparse.SUPPRESS,
        allow_abbrev=False,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    add = parser.add_argument
    add("folder", type=folder, help="to write; it holds no model yet")
    add("--checkpoint", help="made by train.py; without one the weights are random")
    add("--layers", type=positive(int), default=2, help="of a random one")
    add("--width", type=positive(int), default=32, help="of its network")
    add("--heads", type=positive(int), default=4, help="a layer")
    add("--hidden", type=positive(int), default=96, help="width of its MLPs")
    add("--max-length", type=positive(int), default=512, help="longest canvas")
    add("--rows", type=positive(int), help="of the embedding; without, as many as there are tokens")
    add("--dtype", default="float32", choices=["float32", "bfloat16"], help="of the weights")
    add("--seed", type=seed, default=0, help="of the weights")
    args = parser.parse_args(argv)
    try:
        if args.checkpoint:
            model, _, _ = load_checkpoint(args.checkpoint)
            import_llada().export_llada(model, args.folder)
            n = sum(p.numel() for p in model.parameters())
        else:
            n = write_random(args.folder, args.layers, args.width, args.heads, args.hidden,
                             args.max_length, args.rows, getattr(torch, args.dtype),
                             args.seed)
    except (OSError, ValueError) as error:
        parser.error(plain(str(error)))
    print(f"{args.folder}: {n:,} parameters")


if __name__ == "__main__":
    main()
