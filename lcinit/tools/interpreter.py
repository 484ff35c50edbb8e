"""Keeping this program's own file out of the hands of who shares its root's rights.

A program of a guest that begins with `#!/proc/self/exe` makes the kernel run, in the guest, the file of the process
that executes it: the interpreter that enters the guest. The guest's root can then open that file again through
/proc/PID/exe and, once it is not running any more, write to it (CVE-2019-5736). With an id map the file belongs to an
id that the guest has not. Without one this process starts itself anew from a mount of its file that is read-only.
"""

from __future__ import annotations

import os
import sys

from lcinit.errors import SystemFailure
from lcinit.linux import mount
from lcinit.linux.calls import AT_FDCWD
from lcinit.linux.namespaces import CLONE_NEWUSER

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lcinit.guest.target import Target

_EXE = "/proc/self/exe"


def protect_from(target: Target) -> None:
    """Return if a guest cannot write to the interpreter; else begin again from one that is read-only.

    That is when it has an id map, or the interpreter lies on a read-only mount. The arguments stay the same.

    The mount is nowhere attached and ends with its descriptor at the exec: nobody can make it writable again.
    Raises SystemFailure where that cannot be done.
    """
    if target.flags & CLONE_NEWUSER or os.statvfs(_EXE).f_flag & os.ST_RDONLY:
        return
    try:
        file = mount.open_tree(AT_FDCWD, os.readlink(_EXE), mount.OPEN_TREE_CLONE | mount.OPEN_TREE_CLOEXEC)
        read_only = mount.MOUNT_ATTR_RDONLY | mount.MOUNT_ATTR_NOSUID | mount.MOUNT_ATTR_NODEV
        mount.mount_setattr(file, "", 0, attr_set=read_only)
        os.execve(file, [sys.executable, *sys.orig_argv[1:]], os.environ)
    except OSError as error:
        hint = "a guest without an id map could write to it; mount its file system read-only"
        raise SystemFailure.from_os_error("start from a read-only interpreter", error, hint=hint) from error
