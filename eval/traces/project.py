"""The small program that the made-up conversations are about, and the two edits that repair it. Only text."""

from __future__ import annotations

ROOT = "/home/dev/tally"

REPORT = '''"""Monthly reports over a ledger of entries."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from datetime import date
from decimal import Decimal

from tally.dates import month_range, parse_month


@dataclass(frozen=True)
class Entry:
    """One line of the ledger."""

    day: date
    account: str
    amount: Decimal
    note: str = ""


def entries_in_month(entries: list[Entry], month: str) -> list[Entry]:
    """Entries whose day lies in the month, in the order of the ledger."""
    year, number = parse_month(month)
    first, last = month_range(year, number)
    return [entry for entry in entries if first <= entry.day < last]


def totals_by_account(entries: list[Entry], month: str) -> dict[str, Decimal]:
    """Sum of the amounts of each account in the month."""
    totals: dict[str, Decimal] = defaultdict(Decimal)
    for entry in entries_in_month(entries, month):
        totals[entry.account] += entry.amount
    return dict(totals)


def format_report(entries: list[Entry], month: str, width: int = 32) -> str:
    """Render a month's totals as a table, the largest account first."""
    totals = totals_by_account(entries, month)
    ranked = sorted(totals.items(), key=lambda item: item[1])
    lines = [f"{account:<{width}}{amount:>12.2f}" for account, amount in ranked]
    grand_total = sum(totals.values(), Decimal())
    lines.append("-" * (width + 12))
    lines.append(f"{'total':<{width}}{grand_total:>12.2f}")
    return "\\n".join(lines)
'''

DATES = '''"""Calendar arithmetic for reports."""

from __future__ import annotations

import calendar
from datetime import date


class MonthFormatError(ValueError):
    """A month is not written as YYYY-MM."""


def parse_month(text: str) -> tuple[int, int]:
    """Read a month written as YYYY-MM."""
    try:
        year, number = (int(part) for part in text.split("-"))
    except ValueError as error:
        raise MonthFormatError(f"expected YYYY-MM, got {text!r}") from error
    if not 1 <= number <= 12:
        raise MonthFormatError(f"no month has the number {number}")
    return year, number


def month_range(year: int, number: int) -> tuple[date, date]:
    """First and last day of a month, both inside it."""
    num_days = calendar.monthrange(year, number)[1]
    return date(year, number, 1), date(year, number, num_days)
'''

TESTS = """from datetime import date
from decimal import Decimal

from tally.report import Entry, entries_in_month, format_report, totals_by_account

LEDGER = [
    Entry(date(2026, 1, 31), "groceries", Decimal("41.20")),
    Entry(date(2026, 2, 1), "rent", Decimal("900.00")),
    Entry(date(2026, 2, 14), "groceries", Decimal("63.75")),
    Entry(date(2026, 2, 28), "groceries", Decimal("18.05")),
]


def test_last_day_belongs_to_the_month():
    assert entries_in_month(LEDGER, "2026-02") == LEDGER[1:]


def test_totals_by_account():
    assert totals_by_account(LEDGER, "2026-01") == {"groceries": Decimal("41.20")}


def test_largest_account_comes_first():
    assert format_report(LEDGER, "2026-02").splitlines()[0].startswith("rent")
"""

FILES = {"tally/report.py": REPORT, "tally/dates.py": DATES, "tests/test_report.py": TESTS}

TASK = (
    "`tally report 2026-02` leaves out what was booked on the last day of the month. Find out why and repair it. "
    "Run the tests, and show me the diff when they pass."
)

FIRST_EDIT = (
    "    return [entry for entry in entries if first <= entry.day < last]",
    "    return [entry for entry in entries if first <= entry.day <= last]",
)
SECOND_EDIT = (
    "    ranked = sorted(totals.items(), key=lambda item: item[1])",
    "    ranked = sorted(totals.items(), key=lambda item: item[1], reverse=True)",
)

HEADER = [
    "============================= test session starts ==============================",
    "platform linux -- Python 3.12.7, pytest-9.0.1, pluggy-1.6.0",
    f"rootdir: {ROOT}",
    "configfile: pyproject.toml",
    "collecting ... ",
    "collecting 1 item",
    "collecting 2 items",
    "collecting 3 items",
    "collected 3 items",
    "",
]


def _failure(name: str, lines: list[str]) -> list[str]:
    pad = "_" * ((78 - len(name)) // 2)
    return [f"{pad} {name} {pad}", "", *lines, ""]


LAST_DAY_FAILURE = _failure(
    "test_last_day_belongs_to_the_month",
    [
        "    def test_last_day_belongs_to_the_month():",
        '>       assert entries_in_month(LEDGER, "2026-02") == LEDGER[1:]',
        "E       AssertionError: assert 2 == 3",
        "E         Right contains one more item: Entry(day=datetime.date(2026, 2, 28), account='groceries')",
        "",
        "tests/test_report.py:15: AssertionError",
    ],
)
ORDER_FAILURE = _failure(
    "test_largest_account_comes_first",
    [
        "    def test_largest_account_comes_first():",
        '>       assert format_report(LEDGER, "2026-02").splitlines()[0].startswith("rent")',
        "E       AssertionError: assert False",
        "E        +  where False = 'groceries                              81.80'.startswith('rent')",
        "",
        "tests/test_report.py:23: AssertionError",
    ],
)
FAILURES = "=================================== FAILURES ==================================="
SUMMARY = "=========================== short test summary info ============================"

FIRST_RUN = [
    *HEADER,
    "tests/test_report.py F.F                                                 [100%]",
    "",
    FAILURES,
    *LAST_DAY_FAILURE,
    *ORDER_FAILURE,
    SUMMARY,
    "FAILED tests/test_report.py::test_last_day_belongs_to_the_month - AssertionError: assert 2 == 3",
    "FAILED tests/test_report.py::test_largest_account_comes_first - AssertionError: assert False",
    "========================= 2 failed, 1 passed in 0.05s ==========================",
]
SECOND_RUN = [
    *HEADER,
    "tests/test_report.py ..F                                                 [100%]",
    "",
    FAILURES,
    *ORDER_FAILURE,
    SUMMARY,
    "FAILED tests/test_report.py::test_largest_account_comes_first - AssertionError: assert False",
    "========================= 1 failed, 2 passed in 0.04s ==========================",
]
THIRD_RUN = [
    *HEADER,
    "tests/test_report.py ...                                                 [100%]",
    "",
    "============================== 3 passed in 0.03s ===============================",
]
