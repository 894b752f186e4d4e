"""Forked children: what may end a process by a signal is tried in one."""

import os
import signal
import sys
import time
import traceback


def child(work):
    """Run a function in a forked child; its exit code is 0 where it returned."""
    process = os.fork()
    if process == 0:
        code = 1
        try:
            work()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)
    return process


def exit_code(process, seconds=120):
    """Wait for a child; one that hangs fails the test."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        done, status = os.waitpid(process, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)
    raise AssertionError(f"a child hung for {seconds} s")
