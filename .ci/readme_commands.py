"""Print a set-up command of the README, exactly as it stands there: the first block below the heading that is named."""

import re
import sys
from pathlib import Path


def command(heading: str) -> str:
    text = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    found = re.search(rf"^## {re.escape(heading)}\n.*?```bash\n(.*?)```", text, re.MULTILINE | re.DOTALL)
    if found is None:
        sys.exit(f"README.md: no command below '## {heading}'")
    return found.group(1).strip()


if __name__ == "__main__":
    print(command(sys.argv[1]))
