"""4x4 Sudoku, a task as data.py's: for experiments/sudoku.py."""
import functools
import random
import zlib
from itertools import permutations, product

from data import Task, make_tokenizer

ROWS = ["".join(row) for row in permutations("1234")]
HALVES = [a + b for a, b in product(ROWS, ROWS)     # two rows whose 2x2 boxes have all four digits
          if len({*a[:2], *b[:2]}) == len({*a[2:], *b[2:]}) == 4]
GRIDS = [a + b for a, b in product(HALVES, HALVES)  # and no column has a digit twice
         if all(len(set((a + b)[i::4])) == 4 for i in range(4))]
WITH = {(i, v): sum(1 << n for n, grid in enumerate(GRIDS) if grid[i] == v)    # a set, as bits
        for i in range(16) for v in "1234"}

class Sudoku(Task):
    """The question is the puzzle, row by row, "." for an empty cell; the solution is the full grid.
    Every puzzle has one solution, and no clue too many (4 to 6 are left). The splits share no
    grid: 288 could be learned by heart."""
    name, prompt_length, completion_length = "sudoku", 16, 16
    tokenizer = make_tokenizer([], r"[\s\S]")       # bytes

    def problem(self, split, index):
        rng = random.Random(f"{split} {index}")
        buckets = {"test": [0], "validation": [1], "train": range(2, 10)}[split]
        grid = rng.choice([g for g in GRIDS if zlib.crc32(g.encode()) % 10 in buckets])
        puzzle = list(grid)
        for cell in rng.sample(range(16), 16):
            clues = [WITH[i, v] for i, v in enumerate(puzzle) if v != "." and i != cell]
            if functools.reduce(int.__and__, clues).bit_count() == 1:      # still one solution
                puzzle[cell] = "."
        return {"question": "".join(puzzle), "solution": grid, "answer": grid}
    def reward(self, text, answer):
        return float(text == answer)
