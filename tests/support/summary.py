"""Adds up what `make test` left in its results folder and prints the last line.

Takes meson's testlog.json files (counting cmocka's own cases where a program prints them), pytest's JUnit files,
and NAME.build files that say "passed" or "failed". A part without a result is a failure, never a silence.
"""

import json
import os
import re
import sys
import xml.etree.ElementTree as ElementTree
from collections import Counter
from pathlib import Path

CMOCKA_CASE = re.compile(r"^\[ +(OK|FAILED|SKIPPED|ERROR) +\] ([^\s:]+)(?![^\n]*listed below)", re.MULTILINE)
PYTEST_END = re.compile(r"^=*\s*((?:\d+ [a-z]+(?:, )?)+) in [0-9.]+s", re.MULTILINE)
CMOCKA_END = re.compile(r"^\[==========\] .*test\(s\) run", re.MULTILINE)


def count_pytest(line):
    """The cases in pytest's last line, "1 failed, 177 passed in 20.60s"."""
    counts = Counter()
    kinds = {"passed": "passed", "skipped": "skipped", "failed": "failed", "error": "failed", "errors": "failed"}
    for number, word in re.findall(r"(\d+) ([a-z]+)", line):
        if word in kinds:
            counts[kinds[word]] += int(number)
    return counts


def count_program(record):
    """The cases of one test program that meson ran."""
    counts = Counter()
    output = record.get("stdout", "") + "\n" + record.get("stderr", "")
    ends = PYTEST_END.findall(output)
    if ends and not CMOCKA_END.search(output):
        counts = count_pytest(ends[-1])
        if record.get("result") != "OK":
            print(f"failed: {record.get('name')} ({record.get('result')})")
            counts["failed"] = max(counts["failed"], 1)
        return counts
    cases = {}
    for state, name in CMOCKA_CASE.findall(output):
        # cmocka names a failed case once more in its summary.
        if not name.isdigit() and cases.get(name) not in ("FAILED", "ERROR"):
            cases[name] = state
    for state in cases.values():
        counts[{"OK": "passed", "SKIPPED": "skipped"}.get(state, "failed")] += 1
    result = record.get("result")
    if not cases or not CMOCKA_END.search(output):
        # Not cmocka, or it ended in the middle.
        if result == "OK":
            counts["passed"] += 0 if cases else 1
        elif result == "SKIP":
            counts["skipped"] += 1
        else:
            counts["failed"] += 1
    elif result not in ("OK", "SKIP", "EXPECTEDFAIL") and not counts["failed"]:
        # Every case passed, and yet the program failed: a leak, a crash at the end.
        counts["failed"] += 1
    if result not in ("OK", "SKIP"):
        print(f"failed: {record.get('name')} ({result})")
    return counts


def count_meson(path):
    counts = Counter()
    lines = [line for line in path.read_text().splitlines() if line.strip()]
    for line in lines:
        counts += count_program(json.loads(line))
    if not lines:
        counts["failed"] += 1
    return counts


def count_junit(path):
    counts = Counter()
    for case in ElementTree.parse(path).getroot().iter("testcase"):
        name = f"{case.get('classname')}::{case.get('name')}"
        if case.find("failure") is not None or case.find("error") is not None:
            counts["failed"] += 1
            print(f"failed: {name} ({path.stem})")
        elif case.find("skipped") is not None:
            counts["skipped"] += 1
            print(f"skipped: {name} ({case.find('skipped').get('message')})")
        else:
            counts["passed"] += 1
    return counts


def main():
    folder = Path(sys.argv[1])
    counts = Counter()
    for path in sorted(folder.iterdir()):
        if path.suffix == ".json":
            counts += count_meson(path)
        elif path.suffix == ".xml":
            counts += count_junit(path)
        elif path.suffix == ".build":
            failed = path.read_text().strip() != "passed"
            counts["failed" if failed else "passed"] += 1
            if failed:
                print(f"failed: {path.stem}")
        elif path.suffix == ".expected" and not path.with_suffix(".xml").exists():
            counts["failed"] += 1
            print(f"failed: {path.stem} wrote no result")
    no_skips = os.environ.get("CI") == "true" or os.environ.get("GPUMGR_NO_SKIPS", "") not in ("", "0")
    failed = counts["failed"] > 0 or counts["passed"] == 0
    if no_skips and counts["skipped"]:
        print("skipped tests count as failures here (CI=true or GPUMGR_NO_SKIPS=1)")
        failed = True
    print(f"{counts['passed']} passed, {counts['failed']} failed, {counts['skipped']} skipped")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
