from __future__ import annotations

from sluice.compressor.patches import new_side


def hunks(text: str) -> list[tuple[str, ...]]:
    return [lines.texts for lines in new_side(text)]


def test_a_unified_diff_shows_what_the_file_is_afterwards() -> None:
    diff = "--- a/x.py\n+++ b/x.py\n@@ -1,3 +1,3 @@\n one\n-two\n+2\n three\n@@ -9 +9 @@\n+nine"
    assert hunks(diff) == [("one", "2", "three"), ("nine",)]


def test_the_patch_form_of_codex() -> None:
    added = "*** Begin Patch\n*** Add File: a.py\n+import os\n+\n+print(os)\n"
    assert hunks(added + "*** Update File: b.py\n@@\n-x\n+y\n*** End Patch") == [("import os", "", "print(os)"), ("y",)]


def test_other_text_shows_nothing() -> None:
    assert hunks("+ a list\n+ of points\n - more") == []
