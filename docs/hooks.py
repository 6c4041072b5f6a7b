"""What the documentation site does differently from the files in the repository."""

import re
from typing import Any

_LINK = re.compile(r"\[([^\]]+)\]\(((?:\.\./)+)[^)]*\)")


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Turn links that leave docs/, such as the one to the changelog, into plain text."""
    depth = page.file.src_uri.count("/")
    return _LINK.sub(lambda link: link[1] if link[2].count("../") > depth else link[0], markdown)
