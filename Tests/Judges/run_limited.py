#!/usr/bin/env python3
# Relight: recovery environment toolkit.
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs a command and says what it cost: run_limited.py SECONDS COMMAND [ARGUMENT...]

Prints its exit status (negative for a signal, 999 when it was stopped after SECONDS), the processor time it took in
milliseconds, and the most memory it had, in KiB. Its output goes to standard error.
"""
import os
import resource
import subprocess
import sys

with subprocess.Popen(sys.argv[2:], stdin=subprocess.DEVNULL, stdout=sys.stderr) as child:
    try:
        status = child.wait(timeout=float(sys.argv[1]))
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
        status = 999
usage = resource.getrusage(resource.RUSAGE_CHILDREN)
print(status, int((usage.ru_utime + usage.ru_stime) * 1000), usage.ru_maxrss)
