"""Commands one after the other in one process, for what surrounds them takes longer than what is tested: python -m tests.commands FILE

The file is a list of [program or module, environment, arguments]; beside it, with the ending .out, is written for each [exit code,
output, errors].
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import runpy
import sys
from pathlib import Path
from typing import Any

from tests.forked import ROOT


def called(program: str, environment: dict[str, str], arguments: list[str]) -> tuple[Any, str, str]:
    out, err = io.StringIO(), io.StringIO()
    before = dict(os.environ)
    os.environ.update(environment)
    sys.argv = [program, *arguments]
    code: Any = 0
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            if "." in program:
                runpy.run_module(program, run_name="__main__")
            else:
                runpy.run_path(str(ROOT / f"{program}.py"), run_name="__main__")
    except SystemExit as leaving:
        code = leaving.code
    finally:
        os.environ.clear()
        os.environ.update(before)
    return code, out.getvalue(), err.getvalue()


if __name__ == "__main__":
    asked = Path(sys.argv[1])
    answers = [called(*command) for command in json.loads(asked.read_text())]
    asked.with_suffix(".out").write_text(json.dumps(answers))
