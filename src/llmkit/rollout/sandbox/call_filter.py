"""A filter for system calls that programs do not need and break-outs begin with: mounts, tracing, keys, modules, ...

It is classic BPF over `struct seccomp_data`; numbers are those of the kernel's tables for each processor.
"""

import errno
import platform
import struct

ALLOW, FAIL, KILL = 0x7FFF0000, 0x00050000, 0x80000000
"""What the filter returns; the low 16 bits of `FAIL` are the error."""
LOAD, EQUAL, AT_LEAST, ANY_BIT, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
NUMBER, ARCHITECTURE, FIRST_ARGUMENT = 0, 4, 16
"""Places in `struct seccomp_data`."""
NEW_NAMESPACES = 0x7E020080
"""Flags of clone(2): user, PID, network, IPC, hostname, cgroup, mounts and time."""
X32 = 0x40000000
"""From here on x86-64 has a second numbering of the same calls."""

# Numbers from 424 on are the same everywhere: clone3, io_uring, the new mount calls, pidfd_getfd, mount_setattr.
CLONE3 = 435
EVERYWHERE = (425, 426, 427, 428, 429, 430, 431, 432, 433, 438, 442)
ARCHITECTURES = {
    # AUDIT_ARCH_*, clone, and: ptrace, syslog, pivot_root, chroot, acct, mount, umount2, swapon, swapoff, reboot,
    # init_module, delete_module, quotactl, kexec_load, add_key, request_key, keyctl, unshare, perf_event_open,
    # name_to_handle_at, open_by_handle_at, setns, process_vm_readv, process_vm_writev, finit_module, kexec_file_load,
    # bpf, userfaultfd.
    "x86_64": (
        0xC000003E,
        56,
        (101, 103, 155, 161, 163, 165, 166, 167, 168, 169, 175, 176, 179, 246, 248, 249, 250, 272, 298, 303, 304, 308,
         310, 311, 313, 320, 321, 323),
    ),
    "aarch64": (
        0xC00000B7,
        220,
        (117, 116, 41, 51, 89, 40, 39, 224, 225, 142, 105, 106, 60, 104, 217, 218, 219, 97, 241, 264, 265, 268, 270,
         271, 273, 294, 280, 282),
    ),
}  # fmt: skip


def call_filter() -> bytes:
    """The filter's instructions for this processor; empty where its numbers are not known."""
    if platform.machine() not in ARCHITECTURES:
        return b""
    architecture, clone, denied = ARCHITECTURES[platform.machine()]
    program = [
        _instruction(LOAD, ARCHITECTURE),
        _instruction(EQUAL, architecture, then=1),
        _instruction(RETURN, KILL),
        _instruction(LOAD, NUMBER),
        *_when(AT_LEAST, X32, FAIL | errno.ENOSYS),
        # Its flags are in memory, where no filter sees them; the C library then uses clone.
        *_when(EQUAL, CLONE3, FAIL | errno.ENOSYS),
        *(part for number in (*denied, *EVERYWHERE) for part in _when(EQUAL, number, FAIL | errno.EPERM)),
        _instruction(EQUAL, clone, otherwise=3),
        _instruction(LOAD, FIRST_ARGUMENT),
        *_when(ANY_BIT, NEW_NAMESPACES, FAIL | errno.EPERM),
        _instruction(RETURN, ALLOW),
    ]
    return b"".join(program)


def _when(test: int, value: int, result: int) -> tuple[bytes, bytes]:
    """Return `result` if what was loaded passes the test."""
    return _instruction(test, value, otherwise=1), _instruction(RETURN, result)


def _instruction(code: int, value: int, *, then: int = 0, otherwise: int = 0) -> bytes:
    """One `struct sock_filter`; `then` and `otherwise` are instructions to leave out."""
    return struct.pack("=HBBI", code, then, otherwise, value)
