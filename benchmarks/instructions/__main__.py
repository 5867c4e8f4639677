"""Counts instructions and compares the counts with the recorded ones.

    python -m benchmarks.instructions [--tool stepping|callgrind] [--capability avx2] [--write]

Exit status: 0 passed or no record to compare with, 1 more instructions than recorded, 2 cannot
count.
"""

from __future__ import annotations

import argparse
import sys

from . import gate


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.instructions",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--tool", choices=list(gate.TOOLS), default="stepping")
    parser.add_argument("--capability", default="", help="baseline, avx2 or avx512")
    parser.add_argument("--write", action="store_true", help="record the counts")
    args = parser.parse_args()
    why = gate.TOOLS[args.tool].why_not()
    if why is not None:
        print(f"not counted: {why}", file=sys.stderr)
        return 2
    record = gate.measure(args.tool, args.capability)
    width = max(map(len, record["counts"]))
    print(f"{record['compiler']}, {record['machine']}, {record['capability']}")
    for name, count in record["counts"].items():
        print(f"  {name:{width}} {count:8}")
    if args.write:
        gate.save(record)
        print(f"recorded in {gate.COUNTS.name}")
        return 0
    passed, said = gate.compare(record, gate.load())
    print("\n".join(said) or f"all counts are within {gate.TOLERANCE:.0%} of the record")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
