"""Images as files: a PNG and an OME-TIFF for each row, in one folder."""

from collections.abc import Sequence
from pathlib import Path

from deepgps.files import remove_temporary_files, temporary_path
from deepgps.results.names import FileNames
from deepgps.results.records import read_records
from deepgps.results.rows import Row
from deepgps.results.table import Record

IMAGES = "images"
EXTENSIONS = (".png", ".ome.tif")


class ImageFiles:
    """The folder ``images/`` of a run.

    Parameters
    ----------
    folder
        The run's folder.
    nuclei
        How many nuclei each protein is drawn into.
    """

    def __init__(self, folder: Path, nuclei: int) -> None:
        self._folder = folder / IMAGES
        self._folder.mkdir(exist_ok=True)
        remove_temporary_files(self._folder)
        self._several = nuclei > 1
        self._names = FileNames()

    @property
    def room(self) -> int:
        """Rows to write at once."""
        return 1

    def pass_over(self, record: Record) -> None:
        """Take note of a row whose images are there; call it once per row, in order."""
        self._name(record)

    def write(self, rows: Sequence[Row]) -> None:
        """Write the images of further rows, and name them in the records."""
        for record, content in rows:
            name = self._name(record)
            for extension, data in zip(EXTENSIONS, content or (), strict=True):
                path = self._folder / f"{name}{extension}"
                temporary_path(path).write_bytes(data)
                temporary_path(path).replace(path)
            record["images"] = name

    def _name(self, record: Record) -> str:
        return self._names.name(record["protein_id"], record["nucleus"] if self._several else None)


def remove_images(folder: Path, records: Path) -> None:
    """Remove the images that records name, and no others, from a run's folder."""
    images = folder / IMAGES
    for record in read_records(records):
        if name := record.get("images"):
            for extension in EXTENSIONS:
                # The name comes from a file that anyone may have edited: it must stay in its folder.
                (images / Path(name + extension).name).unlink(missing_ok=True)
    if images.is_dir():
        remove_temporary_files(images)
        try:
            images.rmdir()
        except OSError:
            # Somebody keeps files of their own there.
            return
