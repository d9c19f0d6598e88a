from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluice.compressor import OPENAI_CHAT, ToolCall
from sluice.compressor.provenance import Kind, Origins, Provenance, read_call, read_command, same_path
from tests.compressor.conversations import call, encode, result


def of(name: str, **arguments: object) -> Provenance:
    return read_call(ToolCall("c", name, json.dumps(arguments)))


@pytest.mark.parametrize(
    ("name", "arguments", "kind", "path", "first", "last"),
    [
        ("Read", {"file_path": "/r/a.py", "offset": 70, "limit": 10}, Kind.READ, "/r/a.py", 70, 79),
        ("read", {"filePath": "/r/a.ts"}, Kind.READ, "/r/a.ts", 1, None),
        ("read_file", {"target_file": "a.rs", "start_line": 5, "end_line": 9}, Kind.READ, "a.rs", 5, 9),
        ("str_replace_editor", {"command": "view", "path": "a.py", "view_range": [3, -1]}, Kind.READ, "a.py", 3, None),
        ("str_replace_editor", {"command": "create", "path": "a.py"}, Kind.EDIT, "a.py", None, None),
        ("view", {"path": "package.json"}, Kind.READ, "package.json", 1, None),
        ("Grep", {"pattern": "x", "path": "src"}, Kind.SEARCH, "src", None, None),
        ("rg", {"pattern": "x", "paths": ["src"]}, Kind.SEARCH, None, None, None),
        ("Glob", {"pattern": "**/*.py"}, Kind.LISTING, None, None, None),
        ("WebFetch", {"url": "https://example.org"}, Kind.WEB, None, None, None),
        ("Edit", {"file_path": "a.py", "old_string": "x"}, Kind.EDIT, "a.py", None, None),
        ("mcp__linear__get_issue", {"id": "1"}, Kind.OTHER, None, None, None),
        ("exec_command", {"cmd": "sed -n '1,220p' docs/a.md", "workdir": "/r"}, Kind.READ, "docs/a.md", 1, 220),
        ("shell", {"command": ["bash", "-lc", "cat a.py"]}, Kind.READ, "a.py", 1, None),
        ("bash", {"command": "pytest -q"}, Kind.RUN, None, None, None),
    ],
)  # fmt: skip
def test_tools_of_the_agents_in_the_field(
    name: str, arguments: dict[str, object], kind: Kind, path: str | None, first: int | None, last: int | None
) -> None:
    found = of(name, **arguments)
    assert (found.kind, found.path, found.first_line, found.last_line) == (kind, path, first, last)


@pytest.mark.parametrize(
    ("command", "kind", "path", "first"),
    [
        ("sed -n 10,80p src/a.py", Kind.READ, "src/a.py", 10),
        ("cd /r && cat src/a.py", Kind.READ, "/r/src/a.py", 1),
        ("nl -ba src/a.py | sed -n '10,20p'", Kind.READ, "src/a.py", 10),
        ("cat -n a.py | head -50", Kind.READ, "a.py", 1),
        ("tail -n +40 a.py", Kind.READ, "a.py", 40),
        ("cat a.py | tail -5", Kind.READ, "a.py", None),
        ("cat a.py | head -40 | tail -n 5", Kind.READ, "a.py", None),
        ("head -n 40 a.py | tail -5", Kind.READ, "a.py", None),
        ("sed -n 10,80p a.py | tail -5", Kind.READ, "a.py", None),
        ("sed -n 10,80p a.py | head -20", Kind.READ, "a.py", 10),
        ("cat a.py | sed -n '10,80p' | tail -5", Kind.READ, "a.py", None),
        ("cat a.py | sort", Kind.READ, "a.py", None),
        ("cat a.py | cat -A | head -5", Kind.READ, "a.py", 1),
        ("cat a.py 2>&1 | head -5", Kind.READ, "a.py", 1),
        ("head -n 20 a.py", Kind.READ, "a.py", 1),
        ("grep -n 'def x' src/a.py", Kind.SEARCH, "src/a.py", None),
        ("cat a.py | grep -n foo", Kind.SEARCH, "a.py", None),
        ("rg -n 'foo|bar' | head -20", Kind.SEARCH, None, None),
        ("rg --files src", Kind.LISTING, None, None),
        ("ls -la && git status", Kind.LISTING, None, None),
        ("git diff HEAD~1 -- a.py", Kind.DIFF, None, None),
        ("git log --oneline | head", Kind.LOG, None, None),
        ("FOO=1 timeout 60 python -m pytest tests 2>&1 | tail -5", Kind.RUN, None, None),
        ("bash -lc 'cat a.py'", Kind.READ, "a.py", 1),
        ("curl -s https://example.org", Kind.WEB, None, None),
        ("jq .name package.json", Kind.JSON, None, None),
        ("cat a.py b.py", Kind.READ, None, None),
        ("cat 'unbalanced", Kind.RUN, None, None),
    ],
)  # fmt: skip
def test_shell_commands(command: str, kind: Kind, path: str | None, first: int | None) -> None:
    found = read_command(command)
    assert (found.kind, found.path, found.first_line) == (kind, path, first)


@pytest.mark.parametrize(
    ("command", "edited"),
    [
        ("cat > src/a.py <<'EOF'\nimport os\nrm -rf b.py\nEOF", ("src/a.py",)),
        ("cd pkg && sed -i 's/a/b/' a.py", ("pkg/a.py",)),
        ("echo x >> log.txt", ("log.txt",)),
        ("pytest 2>&1 > /dev/null", ()),
        ("git checkout -- a.py", ("a.py",)),
        ("make | tee out.txt", ()),
        ("mv a.py b.py", ("a.py", "b.py")),
    ],
)
def test_files_that_a_command_changes(command: str, edited: tuple[str, ...]) -> None:
    assert read_command(command).edited_paths == edited


def test_here_documents_are_no_part_of_the_command() -> None:
    written = "cat > a.py <<'EOF'\nx << 1\nrm c.py\n  EOF\n\ncat > b.py <<-\"END\"\nEOF\nEND\ncat a.py"
    assert (read_command(written).edited_paths, read_command(written).kind) == (("a.py", "b.py"), Kind.READ)
    assert read_command("echo $((1 << bits)) > a.txt\nb").edited_paths == ("a.txt",), "nothing ends it"


@pytest.mark.parametrize(
    "command",
    [
        "cat <<'EOF' > a.py\nx = 1\nEOF",
        "cat <<EOF >a.py\nx = 1\nEOF\n",
        "cat <<-'EOF' > a.py\n\tx = 1\n\tEOF",
        "cat > a.py <<'EOF'\nx = 1\nEOF",
        "tee a.py <<'EOF'\nx = 1\nEOF",
        "tee a.py <<'EOF' > /dev/null\nx = 1\nEOF",
        "cat <<'EOF' | tee a.py\nx = 1\nEOF",
        "cat <<'EOF' | sudo tee -a a.py > /dev/null\nx = 1\nEOF",
        "cd . && cat <<'EOF' > a.py\nrm b.py > c.py\nEOF",
    ],
)
def test_a_here_document_that_is_written_to_a_file_is_an_edit(command: str) -> None:
    found = read_command(command)
    assert (found.kind, found.path, found.edited_paths) == (Kind.EDIT, "a.py", ("a.py",))


def test_what_stands_behind_a_here_document_on_its_line_is_part_of_the_command() -> None:
    both = read_command("cat <<A > a.py; cat <<B > b.py\n1 <<A\nA\n2\nB\nrm c.py")
    assert both.edited_paths == ("a.py", "b.py", "c.py")
    assert read_command("cat <<'EOF' > a.py && cat b.py\nx\nEOF") == Provenance(
        Kind.READ,
        path="b.py",
        first_line=1,
        command="cat <<'EOF' > a.py && cat b.py\nx\nEOF",
        edited_paths=("a.py",),
    )
    assert read_command("cat <<A > a.py <<B\nA\nB is said\nB").edited_paths == ("a.py",)
    assert read_command("cat a.py | tee b.py").kind is Kind.READ, "no here-document"


@pytest.mark.parametrize("cut_off", ["cout << endl;\n", "\n"])
def test_a_here_document_that_was_cut_off_is_read_once(cut_off: str) -> None:
    assert read_command("cat > a.cpp <<EOF\n" + cut_off * 20_000).edited_paths == ("a.cpp",)


def test_patches_name_their_files() -> None:
    patch = "*** Begin Patch\n*** Update File: a.py\n@@\n-x\n+y\n*** Add File: b.py\n+z\n*** End Patch"
    assert of("apply_patch", input=patch).edited_paths == ("a.py", "b.py")
    assert of("shell", command=["apply_patch", patch]).kind is Kind.EDIT
    assert read_call(ToolCall("c", "apply_patch", patch)).edited_paths == ("a.py", "b.py")


def test_a_path_is_read_to_its_last_letter_once() -> None:
    path = "a" + " " * 100_000 + "b.py"
    patch = f"*** Begin Patch\n*** Update File: {path} \n@@\n+x\n*** End Patch"
    assert of("apply_patch", input=patch).edited_paths == (path,)


def test_commands_in_codex_scripts() -> None:
    script = 'const r = await tools.exec_command({cmd:"sed -n \'1,240p\' a.md", workdir: "/r"}); text(r);'
    assert (of("exec", input=script).kind, of("exec", input=script).path) == (Kind.READ, "a.md")


@given(st.text())
def test_any_text_is_read_as_a_command(command: str) -> None:
    assert read_command(command).command == command


@given(st.text(), st.text())
def test_any_call_is_read(name: str, arguments: str) -> None:
    assert read_call(ToolCall("c", name, arguments)).kind in Kind


def test_paths_are_the_same_by_their_tail() -> None:
    assert same_path("/repo/src/a.py", "src/a.py")
    assert not same_path("/repo/src/a.py", "rc/a.py")


def test_results_find_their_calls() -> None:
    origins = Origins()
    origins.add(OPENAI_CHAT.parse(encode(call("c1", "Read", file_path="a.py"))))
    (segment,) = origins.segments(OPENAI_CHAT.parse(encode(result("c1", "x"))))
    assert segment.provenance.path == "a.py"
    (stray,) = origins.segments(OPENAI_CHAT.parse(encode(result("c9", "x"))))
    assert stray.provenance.kind is Kind.OTHER


@pytest.mark.parametrize(
    ("asked", "observed"),
    [
        ("Let me look.\n```bash\ncat a.py\n```", "<returncode>0</returncode>\n<output>\nx\n</output>"),
        ("<function=bash>\n<parameter=command>cat a.py</parameter>\n</function>", "OBSERVATION:\nx"),
        (
            "```\nopen a.py\n```",
            "[File: /a.py (1 lines total)]\n1:x\n(Open file: /a.py)\n(Current directory: /)\nbash-$",
        ),
        ("<read_file>\n<path>a.py</path>\n</read_file>", "[read_file for 'a.py'] Result:\n\nx"),
    ],
)
def test_text_only_agents(asked: str, observed: str) -> None:
    origins = Origins()
    origins.add(OPENAI_CHAT.parse(encode({"role": "assistant", "content": asked})))
    (segment,) = origins.segments(OPENAI_CHAT.parse(encode({"role": "user", "content": observed})))
    assert (segment.provenance.kind, segment.provenance.path) == (Kind.READ, "a.py")


def test_what_a_person_writes_is_no_observation() -> None:
    origins = Origins()
    origins.add(OPENAI_CHAT.parse(encode({"role": "assistant", "content": "```bash\nls\n```"})))
    pasted = {"role": "user", "content": "It printed <returncode>0</returncode> and <output>x</output>"}
    assert origins.segments(OPENAI_CHAT.parse(encode(pasted))) == []
    first = Origins()
    framed = {"role": "user", "content": "OBSERVATION:\nx"}
    assert first.segments(OPENAI_CHAT.parse(encode(framed))) == [], "nothing was asked before it"
