"""Commands one after the other in one process, for importing torch takes longer than what is tested: python -m tests.commands < JSON

Standard input is a list of [program, environment, arguments]; standard output ends with a list of [exit code, what it printed, errors].
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import runpy
import sys
from typing import Any

from tests.conftest import ROOT


def called(program: str, environment: dict[str, str], arguments: list[str]) -> tuple[Any, str, str]:
    out, err = io.StringIO(), io.StringIO()
    before = dict(os.environ)
    os.environ.update(environment)
    sys.argv = [program, *arguments]
    code: Any = 0
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            runpy.run_path(str(ROOT / f"{program}.py"), run_name="__main__")
    except SystemExit as leaving:
        code = leaving.code
    finally:
        os.environ.clear()
        os.environ.update(before)
    return code, out.getvalue(), err.getvalue()


if __name__ == "__main__":
    answers = [called(*command) for command in json.load(sys.stdin)]
    print(json.dumps(answers))
