"""README.md's numbers are those of the committed rows."""
from pathlib import Path

from experiments.tables import all_tables, fill

README = Path(__file__).resolve().parents[1] / "README.md"


def test_every_table_of_the_readme_is_what_the_rows_say():
    text = README.read_text(encoding="utf-8")
    for name in all_tables():
        assert f"<!-- {name} -->" in text and f"<!-- /{name} -->" in text
    assert fill(text) == text
