"""What every page of results has: its head, escaped text, images embedded."""

import base64
import html
import io
from pathlib import Path

from deepgps.results.style import STYLE

_JPEG_QUALITY = 88


def page_head(title: str) -> str:
    """Begin a page, down to its heading; nothing on it is loaded from elsewhere."""
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{text(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n"
        f"<h1>{text(title)}</h1>\n"
    )


def text(value: object) -> str:
    """Escape for HTML, attributes included."""
    return html.escape(str(value), quote=True)


def embedded(path: Path, alt: str) -> str:
    """Embed an image of ``images/``, or say that it is not there."""
    try:
        data = _jpeg(path)
    except OSError:
        return f'<p class="note">The image images/{text(path.name)} is not there.</p>\n'
    return f'<img alt="{text(alt)}" loading="lazy" src="data:image/jpeg;base64,{data}">\n'


def _jpeg(path: Path) -> str:
    """Shrink a PNG to a JPEG for the page: a quarter of the size, and the PNG stays in the folder."""
    from PIL import Image

    buffer = io.BytesIO()
    with Image.open(path) as image:
        image.convert("RGB").save(buffer, format="JPEG", quality=_JPEG_QUALITY)
    return base64.b64encode(buffer.getvalue()).decode()
