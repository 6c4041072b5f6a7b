"""The page lists the files and columns that a comparison writes."""

import re

from documents import document, rows, section

from deepgps.comparison.differences import ComparedModel, difference_columns
from deepgps.comparison.folder import DIFFERENCE_TABLES
from deepgps.results.folder import REJECTED_FILE, REPORT_FILE
from deepgps.results.image_storage import IMAGE_FOLDER
from deepgps.results.run import RUN_FILE

PAGE = section(document("docs/reference/files.md"), "## A comparison of models")


def documented(part):
    return [name for row in rows(part) for name in re.findall(r"`([\w/.]+?)/?`", row[0])]


def test_the_columns_are_those_documented():
    models = [ComparedModel(name, name, "1", "", "", ("CLASS",), False, 208, 0.2) for name in "AB"]
    assert documented(PAGE.partition("Columns of the table")[2]) == difference_columns(models)


def test_the_files_are_those_documented():
    files = {*DIFFERENCE_TABLES, IMAGE_FOLDER, REPORT_FILE, "models", RUN_FILE, REJECTED_FILE}
    assert set(documented(PAGE.partition("Columns of the table")[0])) == files
