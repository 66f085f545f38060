"""A toy whose reward is a coin, for tests that want GRPO to move; and a log without its times."""
import hashlib

from data import Toy
from runs import read_csv

TIMES = "seconds",      # columns of log.csv


class Coin(Toy):
    """The toy with a reward that any text earns half of the time.

    An untrained model's texts, too: so there is signal for GRPO, and accuracies are not all zero.
    """

    def reward(self, text, answer):
        return float(hashlib.sha256((text + answer).encode()).digest()[0] % 2)


def log_without_times(out, name="log.csv"):
    """The rows of a run's log, less what differs from one run to the next."""
    return [{column: text for column, text in row.items() if column not in TIMES}
            for row in read_csv(out / name)]
