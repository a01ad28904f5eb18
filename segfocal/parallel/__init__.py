"""Several processes for one run, one for each device.

`place` says which of them this process is, `launch` starts and ends those of one machine, `ending` lets one of them speak when a run fails:
these three import no torch. `team` is how the processes know of each other, `devices` and `strategies` what Lightning is told of them.
"""
