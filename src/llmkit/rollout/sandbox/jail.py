"""Locks itself up and runs a Python program: a script of its own, which imports nothing of llmkit.

`python -I -S jail.py JOB PARENT STATUS`: the file JOB says what to run, PARENT is the process that asks, and JSON lines
go to the descriptor STATUS: `{"error": ...}` when the jail cannot be built, else `{"exit": ..., "timed_out": ...}`.

Protections, on Linux: namespaces of its own for processes, mounts, network, hostname and IPC (as root, and another
user for the program; else by a user namespace); a root directory of only Python and its libraries, read-only; no way
back to privileges; a filter of system calls; limits of the system for the rest. A watcher is process 1 of the
namespace: it ends with the program, or when the jail is killed, and then the kernel ends everything in there.
"""

import ctypes
import json
import os
import platform
import random
import resource
import signal
import struct
import sys
from typing import Any

CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC = 0x00020000, 0x04000000, 0x08000000
CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x10000000, 0x20000000, 0x40000000
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 1, 2, 4, 32, 4096, 16384, 1 << 18
MNT_DETACH = 2
AT_FDCWD, AT_RECURSIVE = -100, 0x8000
ATTR_RDONLY, ATTR_NOSUID, ATTR_NODEV = 1, 2, 4
SYS_MOUNT_SETATTR = 442
SYS_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
PR_SET_PDEATHSIG, PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS = 1, 22, 38
SECCOMP_MODE_FILTER = 2
INSTRUCTION_BYTES = 8
INNER_USER = 1000
FIRST_FREE_USER = 1 << 30
DEVICES = ("null", "zero", "random", "urandom")
MIB = 1 << 20
HOME = "/tmp"

libc = ctypes.CDLL(None, use_errno=True)


def main(job_path: str, parent: int, status: int) -> None:
    """Do the job and report."""
    with open(job_path, encoding="utf-8") as file:
        job = json.load(file)
    is_linux = sys.platform == "linux"
    if is_linux:
        die_with_parent()
        if os.getppid() != parent:
            os._exit(1)
    is_root = os.geteuid() == 0
    try:
        if job["isolate"]:
            if not is_linux:
                raise OSError("only Linux has the namespaces that isolate a program")
            enter_namespaces(is_root)
            build_root(job)
    except OSError as error:
        tell(status, {"error": f"{error.strerror or error}{f' ({error.filename})' if error.filename else ''}"})
        return
    first = os.fork()
    if first == 0:
        watch_program(job, status, is_root)
    os.waitpid(first, 0)


def enter_namespaces(is_root: bool) -> None:
    """Leave the system's processes, network, mounts and names behind."""
    user, group = os.geteuid(), os.getegid()
    spaces = CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWPID | CLONE_NEWNET
    check(libc.unshare(spaces if is_root else spaces | CLONE_NEWUSER), "namespaces")
    if not is_root:
        write("/proc/self/setgroups", "deny")
        write("/proc/self/uid_map", f"{INNER_USER} {user} 1")
        write("/proc/self/gid_map", f"{INNER_USER} {group} 1")
    # Nothing that is mounted here from now on is seen outside.
    mount(None, "/", None, MS_REC | MS_PRIVATE)


def build_root(job: dict[str, Any]) -> None:
    """A root directory with what Python needs, read-only, and a directory to write in."""
    root = job["root"]
    mount("tmpfs", root, "tmpfs", MS_NOSUID | MS_NODEV, "size=4m,mode=755")
    home = root + HOME
    os.makedirs(home)
    mount("tmpfs", home, "tmpfs", MS_NOSUID | MS_NODEV, f"size={4 * job['max_file_mib']}m,mode=1777")
    # After it, since Python itself may be below such a directory.
    for path in job["readable"]:
        show(path, root)
    os.makedirs(f"{root}/dev")
    for device in DEVICES:
        place = f"{root}/dev/{device}"
        write(place, "")
        mount(f"/dev/{device}", place, None, MS_BIND)
    mount(None, root, None, MS_REMOUNT | MS_RDONLY | MS_NOSUID | MS_NODEV, "size=4m,mode=755")
    number = SYS_PIVOT_ROOT.get(platform.machine())
    if number is None:
        raise OSError(f"no isolation on processors of type {platform.machine()}")
    os.chdir(root)
    check(libc.syscall(number, b".", b"."), "root directory")
    check(libc.umount2(b".", MNT_DETACH), "root directory")
    os.chdir("/")


def show(path: str, root: str) -> None:
    """Let a file or directory be seen at its place, read-only; a link stays one."""
    place = root + path
    os.makedirs(os.path.dirname(place), exist_ok=True)
    if os.path.islink(path):
        os.symlink(os.readlink(path), place)
        return
    if os.path.isdir(path):
        os.makedirs(place, exist_ok=True)
    else:
        write(place, "")
    mount(path, place, None, MS_BIND | MS_REC)
    wanted = (ctypes.c_uint64 * 4)(ATTR_RDONLY | ATTR_NOSUID | ATTR_NODEV, 0, 0, 0)
    size = ctypes.sizeof(wanted)
    check(libc.syscall(SYS_MOUNT_SETATTR, AT_FDCWD, place.encode(), AT_RECURSIVE, wanted, size), f"read-only {path}")


def watch_program(job: dict[str, Any], status: int, is_root: bool) -> None:
    """In the namespace's first process, which no signal from inside reaches: start the program and see it end."""
    try:
        if job["isolate"]:
            os.chdir(HOME)
            if is_root:
                drop_user()
            die_with_parent()
            check(libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "privileges")
        program = os.fork()
        if program == 0:
            run_program(job, status)
        ended, state, usage = os.wait4(-1, 0)
        while ended != program:  # an orphan of the program
            ended, state, usage = os.wait4(-1, 0)
        code = os.waitstatus_to_exitcode(state)
        # A program that takes no notice of the signal is killed a second later.
        out_of_time = code == -signal.SIGXCPU or usage.ru_utime + usage.ru_stime >= job["cpu_seconds"]
        tell(status, {"exit": code, "timed_out": out_of_time})
    except BaseException as error:  # noqa: BLE001 - it must not go on as a second jail
        tell(status, {"error": f"{type(error).__name__}: {error}"})
    finally:
        os._exit(1)


def run_program(job: dict[str, Any], status: int) -> None:
    """Become the program, within limits."""
    try:
        write("main.py", job["code"])
        os.set_inheritable(status, False)  # the program must not speak for the jail
        limit(job)
        if job["isolate"] and job["call_filter"]:
            filter_calls(bytes.fromhex(job["call_filter"]))
        os.execve(job["python"], [job["python"], "-I", "main.py"], job["environment"])
    except BaseException as error:  # noqa: BLE001 - it must not go on as a second watcher
        tell(status, {"error": f"{type(error).__name__}: {error}"})
    finally:
        os._exit(1)


def drop_user() -> None:
    """Become a user that nobody else is, so that limits by user are the program's own."""
    user = FIRST_FREE_USER + random.SystemRandom().randrange(1 << 29)
    os.setgroups([])
    os.setresgid(user, user, user)
    os.setresuid(user, user, user)


def limit(job: dict[str, Any]) -> None:
    """What the system's own limits are good for."""
    memory, size = job["max_memory_mib"] * MIB, job["max_file_mib"] * MIB
    resource.setrlimit(resource.RLIMIT_CPU, (job["cpu_seconds"], job["cpu_seconds"] + 1))
    limits = [
        (resource.RLIMIT_FSIZE, size),
        (resource.RLIMIT_NOFILE, 64),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_AS, memory),
    ]
    if job["isolate"]:  # else it would count everything that the user runs
        limits.append((resource.RLIMIT_NPROC, job["max_processes"]))
    for kind, most in limits:
        resource.setrlimit(kind, (most, most))


def filter_calls(instructions: bytes) -> None:
    """Let the kernel refuse some system calls from now on."""
    kept = ctypes.create_string_buffer(instructions)
    program = struct.pack("@HP", len(instructions) // INSTRUCTION_BYTES, ctypes.addressof(kept))
    check(libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, program, 0, 0), "filter of system calls")


def die_with_parent() -> None:
    """Be killed by the kernel when the parent ends."""
    check(libc.prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0), "end with its parent")


def mount(source: str | None, place: str, kind: str | None, flags: int, options: str | None = None) -> None:
    """As mount(2)."""
    arguments = [part and part.encode() for part in (source, place, kind)]
    check(libc.mount(*arguments, ctypes.c_ulong(flags), options and options.encode()), f"mount {place}")


def check(result: int, what: str) -> None:
    """Raise the error of a call of the C library."""
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), what)


def write(path: str, text: str) -> None:
    """Make a file."""
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)


def tell(status: int, message: dict[str, Any]) -> None:
    """Send a line to the process that asked."""
    os.write(status, json.dumps(message).encode() + b"\n")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
