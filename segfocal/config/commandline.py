"""The words of a command line, before Hydra has seen them."""

from __future__ import annotations


def overrides_in(arguments: list[str]) -> list[str]:
    """What of a command line are overrides: not Hydra's own flags, nor what follows those that take a value.

    For tab completion there are none: the line is still being written.
    """
    if "-sc" in arguments or "--shell-completion" in arguments:
        return []
    with_value = {"--cfg", "-c", "--package", "-p", "--config-path", "-cp", "--config-name", "-cn", "--config-dir", "-cd", "--info", "-i"}
    found, skip = [], False
    for argument in arguments:
        if skip:
            skip = False
        elif argument in with_value:
            skip = True
        elif not argument.startswith("-"):
            found.append(argument)
    return found
