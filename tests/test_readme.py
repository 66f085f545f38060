"""README.md's and experiments/README.md's numbers are those of the committed rows."""
from pathlib import Path

import pytest

from eval_gsm8k import read_csv
from experiments import rl_verdicts, tables, verdicts

README = Path(__file__).resolve().parents[1] / "README.md"
PAGE = verdicts.PAGE


@pytest.mark.parametrize("path, made, script", [
    (README, tables.all_tables, "tables.py"), (README, rl_verdicts.readme_tables, "rl_verdicts.py"),
    (PAGE, verdicts.tables, "verdicts.py"), (PAGE, rl_verdicts.tables, "rl_verdicts.py")])
def test_every_table_of_both_pages_is_what_the_rows_say(path, made, script):
    text, made = path.read_text(encoding="utf-8"), made()
    for name, table in made.items():
        assert f"<!-- {name} -->\n\n{table}\n\n<!-- /{name} -->" in text, (
            f"run: python experiments/{script} --write ({name} differs)")
    assert tables.fill(text, made) == text      # wherever else a table stands, too


@pytest.mark.parametrize("path, phrases", [
    (README, verdicts.headlines), (PAGE, verdicts.page_headlines),
    (README, rl_verdicts.headlines), (PAGE, rl_verdicts.page_headlines)])
def test_the_numbers_in_the_prose_of_both_pages_are_those_of_the_rows(path, phrases):
    text = " ".join(path.read_text(encoding="utf-8").replace("*", "").split())
    for phrase in phrases():
        assert phrase in text, phrase


def test_a_second_run_of_the_benchmark_gave_medians_within_15_percent():
    one, two = (read_csv(README.parent / "assets" / f"{name}.csv")
                for name in ("bench", "bench-again"))
    assert [row["what"] for row in one] == [row["what"] for row in two]
    for a, b in zip(one, two):
        assert abs(float(a["ratio_median"]) / float(b["ratio_median"]) - 1) < 0.15, a["what"]
