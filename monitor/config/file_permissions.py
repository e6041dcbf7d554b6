"""The mode of files that hold a secret.

Input: a path. Output: the problem and its fix, or None. Invariant: owner and group may read the file and only the owner
may write it (0640), as ssh and PostgreSQL require of a key.
"""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

FORBIDDEN = stat.S_IRWXO | stat.S_IWGRP | stat.S_IXGRP


def insecure_mode(path: Path) -> str | None:
    """Return the problem with a secret file's mode, such as "has mode 0644, so …", or None. Raises OSError."""
    mode = stat.S_IMODE(path.stat().st_mode)
    if not mode & FORBIDDEN:
        return None
    return f"has mode {mode:04o}, so others can read or change it; chmod 640 {path}"
