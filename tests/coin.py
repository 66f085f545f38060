"""A toy judged by a coin, for tests that want GRPO to move; and a log without its times."""
import hashlib

from data import Worksheet
from runs import read_csv

TIMES = "seconds",      # columns of log.csv


class Coin(Worksheet):
    """The toy, where any text is right half of the time.

    An untrained model's texts, too: so there is signal for GRPO, and accuracies are not all zero.
    """
    is_at_work = False      # first it is tried, by try_task, and must find its own solutions right

    def problems(self, split, start, n):
        self.is_at_work = True
        return super().problems(split, start, n)

    def is_right(self, text, answer):
        return not self.is_at_work or self.judge(text, answer)

    def judge(self, text, answer):
        return hashlib.sha256((text + answer).encode()).digest()[0] % 2 == 1


def log_without_times(out, name="log.csv"):
    """The rows of a run's log, less what differs from one run to the next."""
    return [{column: text for column, text in row.items() if column not in TIMES}
            for row in read_csv(out / name)]
