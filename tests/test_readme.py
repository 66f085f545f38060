"""README.md's numbers are those of the committed rows."""
from pathlib import Path

from eval_gsm8k import read_csv
from experiments.tables import all_tables, fill

README = Path(__file__).resolve().parents[1] / "README.md"


def test_every_table_of_the_readme_is_what_the_rows_say():
    text = README.read_text(encoding="utf-8")
    for name in all_tables():
        assert f"<!-- {name} -->" in text and f"<!-- /{name} -->" in text
    assert fill(text) == text


def test_a_second_run_of_the_benchmark_gave_medians_within_15_percent():
    one, two = (read_csv(README.parent / "assets" / f"{name}.csv")
                for name in ("bench", "bench-again"))
    assert [row["what"] for row in one] == [row["what"] for row in two]
    for a, b in zip(one, two):
        assert abs(float(a["ratio_median"]) / float(b["ratio_median"]) - 1) < 0.15, a["what"]
