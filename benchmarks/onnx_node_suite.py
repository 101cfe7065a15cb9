"""All node tests of the ONNX backend test suite as networks: a table of how many agree and how many are refused.

    python benchmarks/onnx_node_suite.py [--reasons]

Needs the tests folder beside it. `--reasons` lists each refused test with what the user is told.
"""

import argparse
import sys
from pathlib import Path

import machine
import onnx

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import node_suite


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reasons", action="store_true", help="list the refused tests")
    options = parser.parse_args()
    outcomes = {
        operator: {case.name: node_suite.outcome(case) for case in cases}
        for operator, cases in node_suite.cases().items()
    }
    print(f"ONNX {onnx.__version__}, {machine.describe()['processor']}\n")
    print("| Operator | Tests | Agree | Refused |\n| --- | ---: | ---: | ---: |")
    for operator, found in outcomes.items():
        print(_row(operator, list(found.values())))
    print(_row("all", [outcome for found in outcomes.values() for outcome in found.values()]))
    for operator, found in outcomes.items() if options.reasons else ():
        for name, outcome in found.items():
            if not outcome.agrees:
                print(f"- {operator}, `{name}`: {outcome.message}")


def _row(name: str, outcomes: list[node_suite.Outcome]) -> str:
    agree = sum(outcome.agrees for outcome in outcomes)
    return f"| {name} | {len(outcomes)} | {agree} | {len(outcomes) - agree} |"


if __name__ == "__main__":
    main()
