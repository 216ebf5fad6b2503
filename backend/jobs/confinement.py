"""What a worker may not do to its machine; only the standard library.

Limits of the system hold for the whole process. The network is taken away where the system permits
it (Linux, where users may make spaces of their own); elsewhere a worker could reach it, without any
secret.
"""

from __future__ import annotations

import errno
import os
import sys
from contextlib import suppress
from pathlib import Path

try:
    import resource
except ImportError:  # Windows
    resource = None

NICENESS = 5
FILES_LIMIT = 4096  # open at a time
FILE_LIMIT = 64 << 30  # bytes of one file
SHARE_OF_MEMORY = 0.9  # of what is available when a worker begins
_NEW_NETWORK = 0x40000000  # CLONE_NEWNET of Linux
_NEW_USERS = 0x10000000  # CLONE_NEWUSER
_FULL = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)


def confine(data_bytes: int | None, file_bytes: int | None) -> None:
    """Bound memory, the size of a file, open files and core dumps of this process for good.

    Args:
        data_bytes: memory it may hold, and never more than nine tenths of what is available now,
            which does not hold beside an accelerator: its driver reserves far more addresses than
            it fills.
        file_bytes: the largest file it may write; None for 64 GiB.
    """
    if resource is None:
        return
    _bound(resource.RLIMIT_CORE, 0)
    _bound(resource.RLIMIT_NOFILE, FILES_LIMIT)
    _bound(resource.RLIMIT_FSIZE, file_bytes or FILE_LIMIT)
    available = None if _has_accelerator() else _available()
    data = min(filter(None, (data_bytes, available)), default=None)
    if data is not None and sys.platform == "linux":
        _bound(resource.RLIMIT_DATA, data)


def give_way() -> None:
    """Let others, such as who answers the page, have the processor first."""
    if hasattr(os, "nice"):  # not on Windows
        os.nice(NICENESS)


def leave_network() -> bool:
    """Move into a network of this process's own, which leads nowhere; False if not permitted.

    A user without rights makes a space of users of its own first, in which it has them. Call it
    before any thread is started: only the calling one moves.
    """
    if sys.platform != "linux":
        return False
    import ctypes  # takes milliseconds, and only a worker needs it

    library = ctypes.CDLL(None, use_errno=True)
    if library.unshare(_NEW_NETWORK) == 0:
        return True
    user, group = os.getuid(), os.getgid()
    if library.unshare(_NEW_USERS | _NEW_NETWORK) != 0:
        return False
    with suppress(OSError):  # only names: files belong to the same user either way
        Path("/proc/self/uid_map").write_text(f"{user} {user} 1", encoding="ascii")
        Path("/proc/self/setgroups").write_text("deny", encoding="ascii")
        Path("/proc/self/gid_map").write_text(f"{group} {group} 1", encoding="ascii")
    return True


def shortage(error: BaseException) -> str:
    """The sentence for an error that means memory or disk ran out, else empty."""
    text = str(error)
    if isinstance(error, MemoryError) or "DefaultCPUAllocator: can't allocate" in text:
        return (
            "out_of_memory: the work needed more memory than was available when it began; close "
            "other programs, or take a smaller model or fewer calibration windows."
        )
    if type(error).__name__ == "OutOfMemoryError":  # torch's, which is not imported here
        return (
            "out_of_memory: the accelerator's memory did not suffice, nor for half of the batch; "
            "take a smaller model or a shorter text."
        )
    full = isinstance(error, OSError) and error.errno in _FULL
    if full or any(sign in text for sign in ("No space left on device", "File too large")):
        return "disk_full: a file could not be written whole; free some space and try again."
    return ""


def _bound(what: int, most: int) -> None:
    _, hard = resource.getrlimit(what)
    if hard != resource.RLIM_INFINITY:
        most = min(most, hard)
    with suppress(OSError, ValueError):
        resource.setrlimit(what, (most, most))


def _has_accelerator() -> bool:
    return any(Path(one).exists() for one in ("/dev/nvidiactl", "/dev/kfd"))


def _available() -> int | None:
    with suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        line = next(one for one in lines if one.startswith("MemAvailable:"))
        return int(SHARE_OF_MEMORY * 1024 * int(line.split()[1]))
    return None
