"""Fail where a source file is over 600 lines or a function over 80."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

LONGEST_FILE = 600
LONGEST_FUNCTION = 80


def faults(path: Path) -> list[str]:
    text = path.read_text(encoding="utf-8")
    found = []
    n_lines = text.count("\n")
    if n_lines > LONGEST_FILE:
        found.append(f"{path}: {n_lines} lines, at most {LONGEST_FILE} are allowed")
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            if length > LONGEST_FUNCTION:
                found.append(
                    f"{path}:{node.lineno}: {node.name} has {length} lines, "
                    f"at most {LONGEST_FUNCTION} are allowed"
                )
    return found


def main(folders: list[str]) -> int:
    paths = [path for folder in folders for path in sorted(Path(folder).rglob("*.py"))]
    if not paths:
        print(f"no Python file under {folders}: wrong folder?")
        return 1
    found = [fault for path in paths for fault in faults(path)]
    print("\n".join(found) or f"{len(paths)} files within the size limits")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
