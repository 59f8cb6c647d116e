"""python -m gpumgr.compat install DIR [--undo]: see install.py."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import List, Optional

from .install import Installation, InstallError

_HELP = """
DIR is the package that the old manager's modules are imported from (the folder with gpu_manager_v2.py).
Its four modules are replaced by files that hand on the names of gpumgr.compat, and a copy of gpumgr is put
beside them; the old ones are kept as NAME.before-gpumgr. Nothing else in DIR is touched.
"""


def main(arguments: Optional[List[str]] = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m gpumgr.compat")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    install = commands.add_parser(
        "install", help="put gpumgr into the place of a hand-written manager", description=_HELP
    )
    install.add_argument("folder", metavar="DIR", type=Path)
    install.add_argument("--undo", action="store_true", help="put the old files back")
    asked = parser.parse_args(arguments)
    installation = Installation(asked.folder)
    try:
        installation.undo() if asked.undo else installation.install()
    except (InstallError, OSError) as error:
        for line in installation.said:
            print(line)
        print(f"python -m gpumgr.compat: {error}", file=sys.stderr)
        return 1
    for line in installation.said:
        print(line)
    if not asked.undo:
        print(f"to take it back: python -m gpumgr.compat install --undo {asked.folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
