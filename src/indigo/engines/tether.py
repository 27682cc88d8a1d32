"""Ties a process to its parent's life; `python -m indigo.engines.tether PARENT SIGNAL COMMAND...` a command.

Standard library only; it runs before anything else in a child.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time

PR_SET_PDEATHSIG = 1


def die_with(parent: int, by: int = signal.SIGKILL) -> None:
    """From now on the kernel sends `by` to this process when `parent` ends; exits if it has ended already.

    Where the kernel has no such thing (anything but Linux), a thread looks twice a second.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, by, 0, 0, 0)
    else:
        threading.Thread(target=_watch, args=(parent, by), daemon=True).start()
    if os.getppid() != parent:
        os._exit(1)


def _watch(parent: int, by: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os.kill(os.getpid(), by)


def main() -> None:
    parent, by, *command = sys.argv[1:]
    die_with(int(parent), int(by))
    try:
        os.execvp(command[0], command)  # the signal stays set over an exec (prctl(2))
    except OSError as error:
        sys.exit(f"{command[0]}: {error.strerror}")


if __name__ == "__main__":
    main()
