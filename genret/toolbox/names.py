"""A readable name of a picture that was found."""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from genret.api import Hit


def name_of(hit: Hit) -> str:
    """A readable name of the image: a name or caption in its metadata, else its file's name."""
    for key in ("name", "title", "caption"):
        if value := hit.metadata.get(key):
            return str(value)
    # `emoji.tar:1f431.png`: the name in the archive; other colons are part of a name
    return PurePosixPath(re.sub(r".*\.(tar|tgz|zip)(\.\w+)?:", "", hit.uri)).stem or hit.image_id
