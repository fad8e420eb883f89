"""Files to records and back: one file here per format, one table of them in `files`."""

from prmkit.formats.base import Format, ReadSettings, Row
from prmkit.formats.files import (
    FORMATS,
    Converted,
    ConvertSettings,
    Skipped,
    convert,
    read_records,
    recognise,
    write_records,
)
from prmkit.formats.labels import LabelPolicy

__all__ = [
    "FORMATS",
    "ConvertSettings",
    "Converted",
    "Format",
    "LabelPolicy",
    "ReadSettings",
    "Row",
    "Skipped",
    "convert",
    "read_records",
    "recognise",
    "write_records",
]
