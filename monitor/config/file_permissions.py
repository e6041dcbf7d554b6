"""Files that hold a secret: may anybody else read them? The one place of that rule.

Enters: a path. Leaves: what is wrong with it, and the fix; None = nothing. Law: owner and group at most, and the group
only reads (0640), as ssh and PostgreSQL want it of a key.
"""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

TOO_MUCH = stat.S_IRWXO | stat.S_IWGRP | stat.S_IXGRP


def insecure_mode(path: Path) -> str | None:
    """Say what is wrong with the mode of a file that holds a secret: "has mode 0644, so …". Raises OSError."""
    mode = stat.S_IMODE(path.stat().st_mode)
    if not mode & TOO_MUCH:
        return None
    return f"has mode {mode:04o}, so others can read or change it; chmod 640 {path}"
