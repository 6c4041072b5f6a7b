"""``opengps``: what an operator runs beside ``deepgps serve``: check, backup, restore.

Exit codes are those of ``deepgps``.
"""

from pathlib import Path

from cyclopts import App

from deepgps import __version__

app = App(
    name="opengps",
    help="Check, back up and restore an openGPS website; 'deepgps serve' runs it.",
    version=__version__,
    suppress_keyboard_interrupt=False,
)


@app.command
def check(*, data: Path | None = None) -> int:
    """Print what to look at before the site is public: limits, proxy, disk, database, versions.

    The exit code is 1 if something is wrong.

    Parameters
    ----------
    data
        Folder of the website; ``OPENGPS_DATA`` if not given.
    """
    from opengps.checks import check_site
    from opengps.settings import Settings

    settings, wrong = Settings.load(data=data), 0
    for finding in check_site(settings):
        wrong += finding.level == "wrong"
        print(f"{finding.level:8}{finding.topic}: {finding.text}")
    return int(wrong > 0)


@app.command
def backup(folder: Path, *, data: Path | None = None) -> None:
    """Copy the database and the submissions, also while the site runs.

    Parameters
    ----------
    folder
        Where to write the copy; it must not exist.
    data
        Folder of the website; ``OPENGPS_DATA`` if not given.
    """
    from opengps.backups import back_up
    from opengps.settings import Settings

    copied = back_up(Settings.load(data=data), folder)
    print(f"Copied the database and {copied:,} files of submissions to {folder}.")


@app.command
def restore(folder: Path, *, data: Path | None = None) -> None:
    """Put a copy back; the site must not run.

    Parameters
    ----------
    folder
        What ``opengps backup`` has written.
    data
        Folder of the website; ``OPENGPS_DATA`` if not given.
    """
    from opengps.backups import restore as put_back
    from opengps.settings import Settings

    settings = Settings.load(data=data)
    kept = put_back(settings, folder)
    print(f"Restored '{settings.data}' from {folder}; what was there before is in {kept}.")
