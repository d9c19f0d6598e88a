"""What the scripted model does in a small repository: some files are read twice, one is changed and read again."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path


class Action(StrEnum):
    READ = "read"
    """A file, with the agent's own tool."""
    SHOW = "show"
    """A file, with the shell."""
    SEARCH = "search"
    EDIT = "edit"
    RUN = "run"


@dataclass(frozen=True)
class Step:
    action: Action
    what: str
    """A path; what to search for; a command."""
    old: str = ""
    new: str = ""


FILES = ("alpha", "beta", "gamma")
OLD, NEW = "    return value_7 * 7", "    return value_7 * 77"
FINAL = "ALL DONE: alpha is mended."
TASK = "Mend step 7 in app/alpha.py; read app/beta.py and app/gamma.py first."
SCRIPT = (
    Step(Action.READ, "app/alpha.py"),
    Step(Action.READ, "app/beta.py"),
    Step(Action.SEARCH, "def step_7"),
    Step(Action.SHOW, "app/alpha.py"),
    Step(Action.READ, "app/gamma.py"),
    Step(Action.SHOW, "app/beta.py"),
    Step(Action.EDIT, "app/alpha.py", OLD, NEW),
    Step(Action.READ, "app/alpha.py"),
    Step(Action.SHOW, "app/gamma.py"),
    Step(Action.RUN, "python3 -m app.alpha"),
    Step(Action.SHOW, "app/alpha.py"),
    Step(Action.READ, "app/beta.py"),
)


def make_repository(root: Path) -> None:
    """Write the files."""
    (root / "app").mkdir(parents=True)
    (root / "README.md").write_text("# A repository to try agents on\n")
    for name in FILES:
        lines = [f'"""Steps of {name}."""', ""]
        for number in range(40):
            lines += ["", f"def step_{number}(value_{number}: int) -> int:"]
            lines += [f'    """Step {number} of {name}."""', f"    return value_{number} * {number}", ""]
        lines += ["", 'if __name__ == "__main__":', "    print(step_7(1))"]
        (root / "app" / f"{name}.py").write_text("\n".join(lines) + "\n")
