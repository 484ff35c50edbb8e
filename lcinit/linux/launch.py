"""Starting a program without a copy of anything: clone3(2) with CLONE_VM, and a table of calls that the child makes.

A fork copies page tables, and then what either side writes to, page by page. vfork(2) does not, but holds the parent
until the exec, and whoever owns the program's file can hold that up. Here the child has the parent's memory and the
parent goes on: so the child may run nothing of the interpreter's. It runs the few instructions below, which make one
system call after the other out of a table, and go to the entry that is named for it when one fails.

The table stands in memory that nobody changes before the exec; the child writes the result of a call that failed just
before the table, and nothing else, and it uses no stack. Not for a child that changes its ids or its oom_score_adj:
both would be the parent's too (fs.suid_dumpable, proc_pid_oom_score_adj(5)).
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import struct

from .calls import by_machine, check, failure, libc
from .clone import CLONE_PARENT_SETTID
from .namespaces import CLONE_INTO_CGROUP, CLONE_PARENT
from .prepared import EXECVE, EXIT_GROUP, WRITE, lay_out, syscall

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .prepared import Step

CLONE_VM = 0x00000100

RESULT = struct.Struct("=Qq")  # the entry of a call that failed, and minus its errno: just before the table
_ENTRY = struct.Struct("=8Q")  # the call's number, six arguments, and the address of the entry to go to if it fails
_CLONE_ARGS = struct.Struct("=11Q")  # struct clone_args, CLONE_ARGS_SIZE_VER2 (Linux 5.7)
_ALL = (1 << 64) - 1

# launch(struct clone_args *, size_t, table): the PID, or minus an errno. The bytes are what as(1) makes of the text
# beside them; tests/unit/test_launch.py has it do so again.
_X86_64 = """
f30f1efa        launch: endbr64
b8b3010000              mov     $435, %eax              # clone3
0f05                    syscall
4885c0                  test    %rax, %rax
7401                    jz      child
c3                      ret
4889d3          child:  mov     %rdx, %rbx              # the entry
4989d4                  mov     %rdx, %r12              # the table
488b03          next:   mov     (%rbx), %rax
488b7b08                mov     8(%rbx), %rdi
488b7310                mov     16(%rbx), %rsi
488b5318                mov     24(%rbx), %rdx
4c8b5320                mov     32(%rbx), %r10
4c8b4328                mov     40(%rbx), %r8
4c8b4b30                mov     48(%rbx), %r9
0f05                    syscall
483d01f0ffff            cmp     $-4095, %rax
7306                    jae     failed
4883c340                add     $64, %rbx
ebd5                    jmp     next
49895c24f0      failed: mov     %rbx, -16(%r12)
49894424f8              mov     %rax, -8(%r12)
488b5b38                mov     56(%rbx), %rbx
ebc5                    jmp     next
"""
_AARCH64 = """
683680d2        launch: mov     x8, #435                // clone3
010000d4                svc     #0
400000b4                cbz     x0, child
c0035fd6                ret
f30302aa        child:  mov     x19, x2                 // the entry
f40302aa                mov     x20, x2                 // the table
680240a9        next:   ldp     x8, x0, [x19]
610a41a9                ldp     x1, x2, [x19, #16]
631242a9                ldp     x3, x4, [x19, #32]
651a40f9                ldr     x5, [x19, #48]
010000d4                svc     #0
1ffc3fb1                cmn     x0, #4095
62000054                b.hs    failed
73020191                add     x19, x19, #64
f8ffff17                b       next
93023fa9        failed: stp     x19, x0, [x20, #-16]
731e40f9                ldr     x19, [x19, #56]
f5ffff17                b       next
"""

_mprotect = libc.mprotect
_mprotect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)


def code() -> bytes:
    """The instructions for this machine."""
    listing = (_X86_64, _AARCH64)[by_machine(0, 1)]
    return bytes.fromhex("".join(line.split()[0] for line in listing.split("\n") if line))


class Pad:
    """Where programs are launched from. Children are the parent's (CLONE_PARENT), as those of `clone.Siblings`."""

    def __init__(self) -> None:
        """Raises OSError where memory may not be made executable (SELinux, seccomp filters)."""
        self._memory = mmap.mmap(-1, mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self._memory.write(code())
        address = ctypes.addressof(ctypes.c_char.from_buffer(self._memory))
        check("mprotect", _mprotect(address, mmap.PAGESIZE, mmap.PROT_READ | mmap.PROT_EXEC))
        prototype = ctypes.PYFUNCTYPE(ctypes.c_long, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p)
        self._launch = prototype(address)
        self._arguments = ctypes.create_string_buffer(_CLONE_ARGS.size)

    def launch(self, table: int, pid_at: int, cgroup: int | None = None) -> int:
        """Have a child make the calls of the table at this address: its PID. Raises OSError.

        `cgroup` is the directory of a cgroup2 that it is born in. The kernel writes the PID to the 32 bits at the
        address `pid_at` before the child runs. Every signal must be blocked, and none have a handler.
        """
        flags = CLONE_VM | CLONE_PARENT | CLONE_PARENT_SETTID
        if cgroup is not None:
            flags |= CLONE_INTO_CGROUP
        _CLONE_ARGS.pack_into(self._arguments, 0, flags, 0, 0, pid_at, 0, 0, 0, 0, 0, 0, cgroup or 0)
        pid: int = self._launch(self._arguments, _CLONE_ARGS.size, table)
        if pid < 0:
            raise failure("clone3", -pid)
        return pid


class Kind:
    """Tables of programs that differ in nothing but their words and variables: what is the same in all is made once.

    In memory stand what the steps' arguments point to, the end (a report and _exit(2)), RESULT, and from `start` on the
    table: the steps, then what executes one of the program's paths, and its strings.
    """

    def __init__(self, steps: Sequence[Step], report: int) -> None:
        """`steps` are calls of `prepared` alone, else ValueError. What fails is written to the descriptor `report`."""
        self.steps = steps
        self._report = report
        memory = bytearray()
        rows: list[tuple[int, ...]] = []
        marks: list[tuple[int, ...]] = []  # 1 for what is an address, and so relative to where all of this will stand
        for _, function, arguments in steps:
            if function is not syscall:
                raise ValueError("a step that is not a system call")
            row = []
            for argument in arguments:
                if isinstance(argument, bytes):
                    row.append(len(memory))
                    memory += argument.ljust(len(argument) + 7 & ~7, b"\0")
                else:
                    row.append(argument & _ALL)
            rows.append(tuple(row))
            marks.append(tuple([int(isinstance(argument, bytes)) for argument in arguments]))
        self._failed = len(memory)
        self._result = self._failed + 2 * _ENTRY.size
        self.start = self._result + RESULT.size
        end = self._failed + _ENTRY.size
        parts = [bytes(memory), _ENTRY.pack(WRITE, report, self._result, RESULT.size, 0, 0, 0, end)]
        parts += [_ENTRY.pack(EXIT_GROUP, 126, 0, 0, 0, 0, 0, 0), bytes(RESULT.size)]
        parts += [_ENTRY.pack(*row, self._failed) for row in rows]
        addresses = [bytes(len(memory)), _ENTRY.pack(0, 0, 1, 0, 0, 0, 0, 1), bytes(_ENTRY.size + RESULT.size)]
        addresses += [_ENTRY.pack(*row, 1) for row in marks]
        whole = b"".join(parts)
        self._size = len(whole)
        # as one number each, so that an address is added to all at once: no sum reaches into the next 64 bits
        self._whole = int.from_bytes(whole, "little")
        self._addresses = int.from_bytes(b"".join(addresses), "little")

    def table(self, paths: Sequence[str], argv: Sequence[str], environment: Mapping[str, str], base: int) -> bytes:
        """What is to stand at the address `base` for a program: the child executes the first of `paths` that it can.

        For each thing that fails the child writes a RESULT. OSError as `prepared.lay_out`.
        """
        place = base + self._size + _ENTRY.size * (2 * len(paths) - 1)
        strings, path_addresses, words, variables = lay_out(paths, argv, environment, place)
        parts = [(self._whole + base * self._addresses).to_bytes(self._size, "little")]
        after = base + self._size
        for path in path_addresses[:-1]:
            # what fails is told, and then the next one is tried
            after += 2 * _ENTRY.size
            parts.append(_ENTRY.pack(EXECVE, path, words, variables, 0, 0, 0, after - _ENTRY.size))
            parts.append(_ENTRY.pack(WRITE, self._report, base + self._result, RESULT.size, 0, 0, 0, after))
        parts.append(_ENTRY.pack(EXECVE, path_addresses[-1], words, variables, 0, 0, 0, base + self._failed))
        parts.append(strings)
        return b"".join(parts)

    def why_not(self, report: bytes, paths: int, base: int) -> tuple[str, int] | None:
        """What the results mean that a child has written: the words of the step that failed, and its errno.

        None for a child that was executed. Of the attempts at `paths` the first error counts that says more than that
        there is nothing.
        """
        told = errno.ENOENT
        for entry, result in RESULT.iter_unpack(report):
            number = (entry - base - self.start) // _ENTRY.size
            if number < len(self.steps):
                return self.steps[number][0], -result
            if told == errno.ENOENT and -result != errno.ENOTDIR:
                told = -result
            if number == len(self.steps) + 2 * paths - 2:
                return "exec", told
        return None
