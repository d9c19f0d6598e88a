from __future__ import annotations

import pytest

from sluice.compressor import OPENAI_RESPONSES
from sluice.compressor.provenance import Origins
from sluice.compressor.provenance.heads import num_head_lines
from tests.compressor.conversations import encode

CODEX = "Chunk ID: 7d01f2\nWall time: 0.0512 seconds\nProcess exited with code 0\nOriginal token count: 7\nOutput:\n"
SCRIPT = "Script running with cell ID 7\nWall time 10.0 seconds\nOutput:\n"


@pytest.mark.parametrize(
    ("text", "num_lines"),
    [
        (CODEX + "import os\n", 5),
        (CODEX, 5),
        ("Wall time: 0.02 seconds\nProcess running with session ID 12\nOutput:\nx", 3),
        ("Exit code: 1\nWall time: 0 seconds\nTotal output lines: 900\nOutput:\nx", 4),
        ("Script completed\nWall time 0.2 seconds\nOutput:\n", 3),
        (SCRIPT, 3),
        ("Script failed\nOutput:\nx", 2),
        ("Script failed: see above\nOutput:\nx", 0),
        ("<returncode>0</returncode>\n<output>\nimport os", 2),
        ("OBSERVATION:\nimport os", 1),
        ("EXECUTION RESULT of [execute_bash]:\nimport os", 1),
        ("[execute_command for 'cat a.py'] Result:\nimport os", 1),
        ("", 0),
        ("import os\n", 0),
        ("Output:\nx", 0),
        ("Wall time: 0.02 seconds\nimport os\nOutput:\n", 0),
        ("as said:\n" + CODEX, 0),
    ],
)
def test_a_head_is_counted_where_it_is_whole_and_first(text: str, num_lines: int) -> None:
    assert num_head_lines(text) == num_lines


def test_only_what_shows_a_file_has_its_head_counted() -> None:
    for command, head, first in (("sed -n '40,80p' a.py", 5, 40), ("cat a.py", 5, 1), ("make", 0, None)):
        origins = Origins()
        origins.add(
            OPENAI_RESPONSES.parse(
                encode(
                    {
                        "type": "function_call",
                        "call_id": "c",
                        "name": "exec_command",
                        "arguments": encode({"cmd": command}).decode(),
                    }
                )
            )
        )
        output = {"type": "function_call_output", "call_id": "c", "output": CODEX + "x\ny\n"}
        (segment,) = origins.segments(OPENAI_RESPONSES.parse(encode(output)))
        assert (segment.provenance.num_head_lines, segment.provenance.first_line) == (head, first)


@pytest.mark.parametrize("command", ["cat a.py", "make"])
def test_a_head_that_is_a_text_of_its_own_is_one_whatever_it_stands_before(command: str) -> None:
    origins = Origins()
    script = f'const r = await tools.exec_command({{cmd: "{command}"}}); text(r.output);'
    origins.add(
        OPENAI_RESPONSES.parse(
            encode({"type": "custom_tool_call", "call_id": "c", "name": "exec", "input": script}),
        )
    )
    parts = [{"type": "input_text", "text": text} for text in (SCRIPT, "import os\n")]
    output = {"type": "custom_tool_call_output", "call_id": "c", "output": parts}
    head, shown = origins.segments(OPENAI_RESPONSES.parse(encode(output)))
    assert (head.provenance.num_head_lines, shown.provenance.num_head_lines) == (3, 0)
