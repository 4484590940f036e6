"""Sheets, configurations, models and weights that are wrong, or look wrong, and the outcome of each."""

# ruff: noqa: E501 - one input a line, however long its sentence

import gzip
import json
import logging
import pickle
import zipfile
from collections.abc import Callable
from contextlib import chdir
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from atlas_xml import address, antibody, data_of, entry, whole
from bad_fields import slug
from stand_in_models import add_fusion

from hpaloc.atlas_planning import plan_atlas
from hpaloc.config import complete
from hpaloc.delimited import check_fields
from hpaloc.endings import unknown_ending
from hpaloc.files import digest
from hpaloc.interpretation.annotated import read_example_cells, read_mixed_fields
from hpaloc.manifests import SheetRow
from hpaloc.mask_tables import check_table, read_rle_table
from hpaloc.network.additions import add_checksums
from hpaloc.planning.fields import check_rows, check_studied
from hpaloc.planning.settings import check_interpretation, check_model, check_places, check_training
from hpaloc.scan import Scan, scan_collection, with_columns
from hpaloc.segmentation.settings import NetworkWeights
from hpaloc.segmentation.weights import WeightsError, ready
from hpaloc.sheet import read_other_columns, read_sheet
from hpaloc.truth import read_true_cells


@dataclass(frozen=True)
class Setting:
    """One input: what it is, the input itself, and its outcome: the error's sentence, or what is read from it."""

    what: str
    given: Any
    outcome: str
    message: str = ""

    @property
    def id(self) -> str:
        return slug(self.what)


def tried(call: Callable[[], object]) -> tuple[str, str]:
    """Return ("rejected", the error's sentence) or ("accepted", its result)."""
    try:
        return "accepted", str(call())
    except ValueError as error:
        return "rejected", str(error)
    except WeightsError as error:
        return "rejected", str(error)


def told(call: Callable[[], object]) -> tuple[str, str]:
    """Return what ``tried`` does, or ("warned", the warnings) if the call accepts its input with warnings."""
    log, warnings = logging.getLogger("hpaloc"), []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: warnings.append(record.getMessage())
    log.addHandler(handler)
    try:
        outcome, text = tried(call)
    finally:
        log.removeHandler(handler)
    return ("warned", "; ".join(dict.fromkeys(warnings))) if warnings and outcome == "accepted" else (outcome, text)


def of_table(name: str, read: Callable[[Path], str]) -> Callable[[Setting, Path], tuple[str, str]]:
    """Return the function that writes a user's table into a folder, reads it there, and removes it."""

    def of_setting(setting: Setting, folder: Path) -> tuple[str, str]:
        with chdir(folder):
            path = Path(name)
            if setting.given is not None:
                path.write_bytes(setting.given if isinstance(setting.given, bytes) else setting.given.encode())
            outcome, text = told(lambda: read(path))
            path.unlink(missing_ok=True)
            return outcome, text

    return of_setting


def sheet_text(path: Path) -> str:
    """Read a sheet with labels and return the ids and labels."""
    rows = read_sheet(path, labels=True)
    read_other_columns(path, labels=True)
    return ", ".join(f"{row.id}: {'|'.join(map(str, row.labels or ()))}" for row in rows)


# The fields of the sheet that other tables are held against.
FIELDS_OF_SHEET = ("a", "b", "Zelle-é")
SCANS = {"train": Scan([SheetRow(id, None, 0.08) for id in FIELDS_OF_SHEET], {})}


def truth_text(path: Path) -> str:
    """Read true cells, compare them with the sheet, and return field, cell and labels."""
    found = read_true_cells(path)
    check_fields(f"truth {path}", found, FIELDS_OF_SHEET, "train")
    return ", ".join(f"{id} {cell}: {label}" for id, cells in found.items() for cell, label in cells.items())


def examples_text(path: Path) -> str:
    """Read examples, compare them with the sheet, and return field, cell and label."""
    cells = read_example_cells(path)
    check_fields(f"examples {path}", dict.fromkeys(field for field, _ in cells), FIELDS_OF_SHEET, "train")
    return ", ".join(f"{field} {cell}: {label}" for (field, cell), label in cells.items())


def mixtures_text(path: Path) -> str:
    """Read known mixtures, compare them with the sheet, and return field, labels and fractions."""
    settings = {
        "collections": {"train": {"labels": True, "root": "."}},
        "interpretation": {"held_out": [], "mixtures": {"table": str(path), "collection": "train"}},
        "model": {"path": "model"},
        "predict": {"collections": ["train"]},
    }
    check_interpretation(settings, SCANS)
    return ", ".join(f"{id}: {a} {of_a:g} {b} {of_b:g}" for id, (a, of_a, b, of_b) in read_mixed_fields(path).items())


def mask_table_text(path: Path) -> str:
    """Check a table of masks as planning does, read it as a job does, and return field, cell and mask."""
    check_table(path, FIELDS_OF_SHEET, "train")
    found = read_rle_table(path, FIELDS_OF_SHEET)
    return ", ".join(f"{id} {cell}: {mask}" for id, (_, _, masks) in found.items() for cell, mask in masks.items())


of_sheet = of_table("sheet.csv", sheet_text)
of_mask_table = of_table("masks.csv", mask_table_text)
of_truth = of_table("truth.csv", truth_text)
of_examples = of_table("examples.csv", examples_text)
of_mixtures = of_table("mixtures.csv", mixtures_text)


SHEETS = [
    Setting("Byte-order mark", "\ufeffID,Label\na,1\n", "accepted", "a: 1"),
    Setting("CRLF line ends", "ID,Label\r\na,1\r\nb,2\r\n", "accepted", "a: 1, b: 2"),
    Setting("Old Macintosh line ends", "ID,Label\ra,1\rb,2\r", "accepted", "a: 1, b: 2"),
    Setting("Semicolons instead of commas", "ID;Label\na;1\n", "accepted", "a: 1"),
    Setting("Tabs instead of commas", "ID\tLabel\na\t1\n", "accepted", "a: 1"),
    Setting("Blank lines", "ID,Label\n\na,1\n,\n\nb,2\n\n", "accepted", "a: 1, b: 2"),
    Setting("Spaces around columns and values", " ID , Label\n a , 1 \n", "accepted", "a: 1"),
    Setting("Quoted values", '"ID","Label"\n"a","1|2"\n', "accepted", "a: 1|2"),
    Setting("An id with leading zeros", "ID,Label\n007,1\n7,2\n", "accepted", "007: 1, 7: 2"),
    Setting("An id with spaces and dots inside", "ID,Label\na b.c,1\n", "accepted", "a b.c: 1"),
    Setting("An id with letters of any script", "ID,Label\nΖελλ-細胞-é,1\n", "accepted", "Ζελλ-細胞-é: 1"),
    Setting("An id like a formula or an option", "ID,Label\n=1+1,1\n-rf,2\n", "accepted", "=1+1: 1, -rf: 2"),
    Setting("An id with shell and HTML in it", "ID,Label\n$(rm -rf ~);<b>&,1\n", "accepted", "$(rm -rf ~);<b>&: 1"),
    Setting("The id NA", "ID,Label\nNA,1\n", "accepted", "NA: 1"),
    Setting("A label repeated in a row", "ID,Label\na,13|13\n", "accepted", "a: 13"),
    Setting("An id twice", "ID,Label\na,1\nb,2\na,1\n", "rejected", "sheet sheet.csv, line 4 (ID a): ID a is a duplicate of line 2"),
    Setting("An id with a slash", "ID,Label\na/b,1\n", "rejected", "sheet sheet.csv, line 2 (ID a/b): the ID 'a/b' cannot be a file name (slash, leading dot or control character)"),
    Setting("An id with a backslash", "ID,Label\na\\b,1\n", "rejected", "sheet sheet.csv, line 2 (ID a\\b): the ID 'a\\\\b' cannot be a file name (slash, leading dot or control character)"),
    Setting("An id that leaves the folder (../)", "ID,Label\n../../etc/passwd,1\n", "rejected", "sheet sheet.csv, line 2 (ID ../../etc/passwd): the ID '../../etc/passwd' cannot be a file name (slash, leading dot or control character)"),
    Setting("The id ..", "ID,Label\n..,1\n", "rejected", "sheet sheet.csv, line 2 (ID ..): the ID '..' cannot be a file name (slash, leading dot or control character)"),
    Setting("An id with a leading dot", "ID,Label\n.a,1\n", "rejected", "sheet sheet.csv, line 2 (ID .a): the ID '.a' cannot be a file name (slash, leading dot or control character)"),
    Setting("An id with a line break", 'ID,Label\n"a\nb",1\n', "rejected", "sheet sheet.csv, line 3 (ID 'a\\nb'): the ID 'a\\nb' cannot be a file name (slash, leading dot or control character)"),
    Setting("An id with a terminal's escape", "ID,Label\na\x1b[2J,1\n", "rejected", "sheet sheet.csv, line 2 (ID 'a\\x1b[2J'): the ID 'a\\x1b[2J' cannot be a file name (slash, leading dot or control character)"),
    Setting("An id with a NUL", "ID,Label\na\0b,1\n", "rejected", "sheet sheet.csv, line 2 (ID 'a\\x00b'): the ID 'a\\x00b' cannot be a file name (slash, leading dot or control character)"),
    Setting("An id of 300 letters", f"ID,Label\n{'a' * 300},1\n", "rejected", f"sheet sheet.csv, line 2 (ID {'a' * 40}…): the ID '{'a' * 40}'… is longer than 200 bytes"),
    Setting("An empty id", "ID,Label\n,1\n", "rejected", "sheet sheet.csv, line 2: the ID is empty"),
    Setting("A label with a sign of doubt", "ID,Label\na,Mitochondria?\n", "rejected", "sheet sheet.csv, line 2 (ID a): label 'Mitochondria?' has the sign ?, which is not part of a name; write the name alone"),
    Setting("A label with a sign of absence", "ID,Label\na,Cytosol (-)\n", "rejected", "sheet sheet.csv, line 2 (ID a): label 'Cytosol (-)' has the sign -, which is not part of a name; write the name alone"),
    Setting("A label that ends in |", "ID,Label\na,0|\n", "rejected", "sheet sheet.csv, line 2 (ID a): there is an empty label next to a |; remove the |"),
    Setting("Labels joined by blanks", "ID,Label\na,16 0\n", "rejected", "sheet sheet.csv, line 2 (ID a): unknown label '16 0' (labels are integers from 0 to 18 or names of locations, joined by |; labels: hpa2018 reads the numbers of 2018, which blanks may join)"),
    Setting("A label that a program wrote for none", "ID,Label\na,NaN\n", "rejected", "sheet sheet.csv, line 2 (ID a): the label is NaN; write a location, or remove the row"),
    Setting("A column with the name of a criterion of groups", "ID,Label,duplicates\na,1,x\n", "warned", "sheet sheet.csv: the column duplicates is copied as sheet_duplicates"),
    Setting("Label 19", "ID,Label\na,19\n", "rejected", "sheet sheet.csv, line 2 (ID a): unknown label '19' (labels are integers from 0 to 18 or names of locations, joined by |; labels: hpa2018 reads the numbers of 2018)"),
    Setting("Label -1", "ID,Label\na,-1\n", "rejected", "sheet sheet.csv, line 2 (ID a): unknown label '-1' (labels are integers from 0 to 18 or names of locations, joined by |)"),
    Setting("Label 1.0", "ID,Label\na,1.0\n", "rejected", "sheet sheet.csv, line 2 (ID a): unknown label '1.0' (labels are integers from 0 to 18 or names of locations, joined by |)"),
    Setting("A label by name", "ID,Label\na,Nucleoli\n", "accepted", "a: 2"),
    Setting("Labels by name and number", "ID,Label\na,cytosol|Nuclear membrane|5\n", "accepted", "a: 1|5|16"),
    Setting("Names of earlier releases of the atlas", "ID,Label\na,Cytoskeleton (Actin filaments)|Nucleus but not nucleoli\nb,Peroxisomes|Lipid droplets\nc,Cell Junctions\n", "accepted", "a: 0|9, b: 17, c: 13"),
    Setting("Names in other spellings", "ID,Label\na,NUCLEOLI FIBRILLAR CENTRE\nb,nuclear_bodies\nc,GolgiApparatus\nd,mitochondrion\n", "accepted", "a: 3, b: 5, c: 7, d: 14"),
    Setting("A label by a wrong name", "ID,Label\na,0|Nuclear speckels\n", "rejected", "sheet sheet.csv, line 2 (ID a): unknown label 'Nuclear speckels'; the nearest known are Nuclear speckles, Nuclear bodies, Nuclear membrane (labels are integers from 0 to 18 or names of locations, joined by |)"),
    Setting("Labels joined by commas", "ID;Label\na;Nucleoli,Cytosol\n", "rejected", "sheet sheet.csv, line 2 (ID a): unknown label 'Nucleoli,Cytosol'; the nearest known are Nucleoli, Nucleolus, Cytosol (labels are integers from 0 to 18 or names of locations, joined by |, not by ,)"),
    Setting("A location that has no class", "ID,Label\na,Rods & Rings|Cytosol\nb,Midbody\nc,1\n", "warned", "sheet sheet.csv: labels that are not among the 19 locations are left out: Rods & rings (1), Midbody (1); fields without another label: 1; fields that now have one label: 1"),
    Setting("Only locations that have no class", "ID,Label\na,Rods & Rings\n", "rejected", "sheet sheet.csv: no field has a label among the 19 locations: Rods & rings (1)"),
    Setting("A superscript as label", "ID,Label\na,²\n", "rejected", "sheet sheet.csv, line 2 (ID a): unknown label '²' (labels are integers from 0 to 18 or names of locations, joined by |)"),
    Setting("A blank label", "ID,Label\na,\n", "rejected", "sheet sheet.csv, line 2 (ID a): the label is empty; write a location, or remove the row"),
    Setting("A pixel size of 0", "ID,Label,pixel_size\na,1,0\n", "rejected", "sheet sheet.csv, line 2 (ID a): pixel_size '0' is not a number of µm from 0.001 to 10, such as 0.08"),
    Setting("A pixel size of nan", "ID,Label,pixel_size\na,1,nan\n", "rejected", "sheet sheet.csv, line 2 (ID a): pixel_size 'nan' is not a number of µm from 0.001 to 10, such as 0.08"),
    Setting("A pixel size with a decimal comma", "ID;Label;pixel_size\na;1;0,08\n", "rejected", "sheet sheet.csv, line 2 (ID a): pixel_size '0,08' is not a number of µm from 0.001 to 10, such as 0.08"),
    Setting("A pixel size in nm", "ID,Label,pixel_size\na,1,80\n", "rejected", "sheet sheet.csv, line 2 (ID a): pixel_size '80' is not a number of µm from 0.001 to 10, such as 0.08"),
    Setting("A pixel size in m", "ID,Label,pixel_size\na,1,8e-8\n", "rejected", "sheet sheet.csv, line 2 (ID a): pixel_size '8e-8' is not a number of µm from 0.001 to 10, such as 0.08"),
    Setting("A pixel size of 1e300", "ID,Label,pixel_size\na,1,1e300\n", "rejected", "sheet sheet.csv, line 2 (ID a): pixel_size '1e300' is not a number of µm from 0.001 to 10, such as 0.08"),
    Setting("A pixel size with an underscore", "ID,Label,pixel_size\na,1,1_0\n", "rejected", "sheet sheet.csv, line 2 (ID a): pixel_size '1_0' is not a number of µm from 0.001 to 10, such as 0.08"),
    Setting("A pixel size with its unit", "ID,Label,pixel_size\na,1,0.08 µm\n", "rejected", "sheet sheet.csv, line 2 (ID a): pixel_size '0.08 µm' is not a number of µm from 0.001 to 10, such as 0.08"),
    Setting("A pixel size in digits of another script", "ID,Label,pixel_size\na,1,٠.١\n", "rejected", "sheet sheet.csv, line 2 (ID a): pixel_size '٠.١' is not a number of µm from 0.001 to 10, such as 0.08"),
    Setting("A pixel size as Excel writes it", "ID,Label,pixel_size\na,1,8.00E-02\n", "accepted", "a: 1"),
    Setting("A label of 5,000 digits", f"ID,Label\na,{'1' * 5000}\n", "rejected", f"sheet sheet.csv, line 2 (ID a): unknown label '{'1' * 40}' (labels are integers from 0 to 18 or names of locations, joined by |)"),
    Setting("Antibodies that differ only in case", "ID,Label,antibody\na,1,HPA1\nb,1,hpa1\n", "warned", "sheet sheet.csv: the antibody hpa1 differs from HPA1 only in case, blanks, _, -, leading zeros or .0, and is read as a different one"),
    Setting("Antibodies that differ only in blanks", "ID,Label,antibody\na,1,HPA1\nb,1,HPA 1\nc,1,HPA\xa01\n", "warned", "sheet sheet.csv: the antibody HPA 1 differs from HPA1 only in case, blanks, _, -, leading zeros or .0, and is read as a different one (and 1 more such values)"),
    Setting("Antibodies that differ only in leading zeros", "ID,Label,antibody\na,1,HPA000100\nb,1,HPA100\nc,1,HPA10\n", "warned", "sheet sheet.csv: the antibody HPA100 differs from HPA000100 only in case, blanks, _, -, leading zeros or .0, and is read as a different one"),
    Setting("Cell lines that differ only in a hyphen", "ID,Label,cell_line\na,1,U-2 OS\nb,1,U2OS\nc,1,HeLa\n", "warned", "sheet sheet.csv: the cell_line U2OS differs from U-2 OS only in case, blanks, _, -, leading zeros or .0, and is read as a different one"),
    Setting("Antibodies that are not known", "ID,Label,antibody\na,1,NA\nb,1,n / a\nc,1,NA\nd,1,HPA1\n", "warned", "sheet sheet.csv: the antibody of 3 fields (NA, n / a) is read as empty"),
    Setting("A cell line that is not known", "ID,Label,cell_line\na,1,-\n", "warned", "sheet sheet.csv: the cell_line of 1 field (-) is read as empty"),
    Setting("No column ID", "name,Label\na,1\n", "rejected", "sheet sheet.csv: has no column ID (its header has name, Label)"),
    Setting("No column Label", "ID\na\n", "rejected", "sheet sheet.csv: has no column Label (its header has ID)"),
    Setting("Two columns ID", "ID,Label,ID\na,1,b\n", "rejected", "sheet sheet.csv: has 2 columns ID"),
    Setting("A row with too few values", "ID,Label\na\n", "rejected", "sheet sheet.csv, line 2: does not have the 2 columns of the header"),
    Setting("A row with too many values", "ID,Label\na,1,2\n", "rejected", "sheet sheet.csv, line 2: does not have the 2 columns of the header"),
    Setting("A quote that is not closed", 'ID,Label\n"a,1\nb,2\n', "rejected", "sheet sheet.csv, line 2: unexpected end of data"),
    Setting("Only a header", "ID,Label\n", "rejected", "sheet sheet.csv: lists no fields"),
    Setting("An empty sheet", "", "rejected", "sheet sheet.csv: has no column ID (its header has nothing)"),
    Setting("UTF-16 (Excel's Unicode text)", "ID,Label\na,1\n".encode("utf-16"), "rejected", "sheet sheet.csv: is not UTF-8 text (byte 0); save it as CSV UTF-8"),
    Setting("Latin-1", "ID,Label\né,1\n".encode("latin-1"), "rejected", "sheet sheet.csv: is not UTF-8 text (byte 9); save it as CSV UTF-8"),
    Setting("An Excel workbook called .csv", b"PK\x03\x04\x14\x00\x06\x00\x08\x00\x00\x00!\x00\xb5", "rejected", "sheet sheet.csv: is not UTF-8 text (byte 14); save it as CSV UTF-8"),
    Setting("A sheet that is missing", None, "rejected", "sheet sheet.csv: no such file"),
    Setting("Semicolons, with a comma in another column's name", "ID;Label;cell line, passage\na;1;x\n", "accepted", "a: 1"),
    Setting("Semicolons, with a comma in a quoted name", 'ID;Label;"notes, free"\na;1;"x, y; z"\n', "accepted", "a: 1"),
    Setting("Tabs, with commas and semicolons in the names", "ID\tLabel\tGene, name\tnotes; free\na\t1\tx\ty\n", "accepted", "a: 1"),
    Setting("Commas, with a semicolon in a name", "ID,Label,notes; free; long\na,1,x\n", "accepted", "a: 1"),
    Setting("Excel's line sep=;", "sep=;\r\nID;Label\r\na;1\r\n", "accepted", "a: 1"),
    Setting("Excel's line sep=, saved again by another program", '\ufeff"sep=,",\nID,Label\na,1\n', "accepted", "a: 1"),
    Setting("Empty lines before the header", "\n,,\nID,Label\na,1\n", "accepted", "a: 1"),
    Setting("Empty columns at the end", "ID,Label,,\na,1,\nb,2,,\n", "accepted", "a: 1, b: 2"),
    Setting("Empty values at the end of a row", "ID,Label\na,1,,\n", "accepted", "a: 1"),
    Setting("No-break spaces around columns and values", "\xa0ID\xa0,Label\u202f\n\xa0a\u2003,\xa01\n", "accepted", "a: 1"),
    Setting("Rows of blanks of any kind", "ID,Label\na,1\n\xa0,\u2003\n \t, \n", "accepted", "a: 1"),
    Setting("A byte-order mark in the middle", "ID,Label\n\ufeffa,1\n", "accepted", "a: 1"),
    Setting("A name over two lines", 'ID,Label,"cell\ntype"\na,1,x\n', "warned", "sheet sheet.csv: the column 'cell\\ntype' is copied as cell_type"),
    Setting("The column id", "id,Label\na,1\n", "warned", "sheet sheet.csv: the column id is read as ID"),
    Setting("Columns in capitals", "ID,LABEL,SPLIT\na,1,train\n", "warned", "sheet sheet.csv: the column LABEL is read as Label, the column SPLIT is read as split"),
    Setting("Columns with blanks and hyphens", "ID,Label,Pixel size,cell-line\na,1,0.1,HeLa\n", "warned", "sheet sheet.csv: the column cell-line is read as cell_line, the column Pixel size is read as pixel_size"),
    Setting("The columns antibody and Antibody", "ID,Label,antibody,Antibody\na,1,HPA1,x\n", "warned", "sheet sheet.csv: the column Antibody is ignored, since there is antibody"),
    Setting("Two columns Antibody and ANTIBODY", "ID,Label,Antibody,ANTIBODY\na,1,HPA1,x\n", "rejected", "sheet sheet.csv: has 2 columns antibody (Antibody, ANTIBODY)"),
    Setting("Two letters exchanged in a column's name", "ID,Label,antibdoy\na,1,HPA1\n", "rejected", "sheet sheet.csv: the column antibdoy is nearly antibody, which is missing: rename it to antibody if that is meant, or to something else if not"),
    Setting("A column in the plural", "ID,Label,antibodies\na,1,HPA1\n", "rejected", "sheet sheet.csv: the column antibodies is nearly antibody, which is missing: rename it to antibody if that is meant, or to something else if not"),
    Setting("A column with its unit", "ID,Label,pixel_size_um\na,1,0.1\n", "rejected", "sheet sheet.csv: the column pixel_size_um is nearly pixel_size (µm), which is missing: rename it to pixel_size if that is meant, or to something else if not"),
    Setting("A column with another unit in brackets", "ID,Label,pixelsize [nm]\na,1,80\n", "rejected", "sheet sheet.csv: the column pixelsize [nm] is nearly pixel_size (µm), which is missing: rename it to pixel_size if that is meant, or to something else if not"),
    Setting("A column with an additional word", "ID,Label,validation_split\na,1,train\n", "rejected", "sheet sheet.csv: the column validation_split is nearly split, which is missing: rename it to split if that is meant, or to something else if not"),
    Setting("A column of a joined table", "ID,Label,antibody_x\na,1,HPA1\n", "rejected", "sheet sheet.csv: the column antibody_x is nearly antibody, which is missing: rename it to antibody if that is meant, or to something else if not"),
    Setting("A column with a remark in brackets", "ID,Label,cell line (ATCC)\na,1,HeLa\n", "rejected", "sheet sheet.csv: the column cell line (ATCC) is nearly cell_line, which is missing: rename it to cell_line if that is meant, or to something else if not"),
    Setting("A known column by another name", "ID,Label,um_per_pixel\na,1,0.1\n", "rejected", "sheet sheet.csv: the column um_per_pixel is nearly pixel_size (µm), which is missing: rename it to pixel_size if that is meant, or to something else if not"),
    Setting("A column with the name of one of hpaloc's", "ID,Label,Status\na,1,treated\n", "warned", "sheet sheet.csv: the column Status is copied as sheet_Status"),
    Setting("A column with a slash in its name", "ID,Label,dose (mg/ml)\na,1,0.5\n", "warned", "sheet sheet.csv: the column dose (mg/ml) is copied as dose (mg_ml)"),
    Setting("Two other columns of one name", "ID,Label,gene,gene\na,1,x,y\n", "warned", "sheet sheet.csv: several columns are named gene and are not copied"),
    Setting("A column that may be a known one", "ID,Label,fold\na,1,train\n", "warned", "sheet sheet.csv: the column fold is not read as split; name it so if it is that"),
    Setting("A column with its words exchanged", "ID,Label,line cell\na,1,HeLa\n", "rejected", "sheet sheet.csv: the column line cell is nearly cell_line, which is missing: rename it to cell_line if that is meant, or to something else if not"),
    Setting("The column Labels", "ID,Labels\na,1\n", "rejected", "sheet sheet.csv: the column Labels is nearly Label, which is missing: rename it to Label if that is meant, or to something else if not"),
    Setting("A column that is nearly a known one that is there too", "ID,Label,antibody,antibody_id\na,1,HPA1,7\n", "accepted", "a: 1"),
    Setting("An id with a no-break space", "ID,Label\na\xa0b,1\n", "rejected", "sheet sheet.csv, line 2 (ID 'a\\xa0b'): the ID 'a\\xa0b' contains a NO-BREAK SPACE (U+00A0)"),
    Setting("An id with a zero-width space", "ID,Label\na\u200bb,1\n", "rejected", "sheet sheet.csv, line 2 (ID 'a\\u200bb'): the ID 'a\\u200bb' contains a ZERO WIDTH SPACE (U+200B)"),
    Setting("An id with a soft hyphen", "ID,Label\nplate\xad1,1\n", "rejected", "sheet sheet.csv, line 2 (ID 'plate\\xad1'): the ID 'plate\\xad1' contains a SOFT HYPHEN (U+00AD)"),
    Setting("An id with a mark of writing direction at its end", "ID,Label\na\u200e,1\n", "rejected", "sheet sheet.csv, line 2 (ID 'a\\u200e'): the ID 'a\\u200e' contains a LEFT-TO-RIGHT MARK (U+200E)"),
    Setting("An id with a Hangul filler", "ID,Label\na\u3164b,1\n", "rejected", "sheet sheet.csv, line 2 (ID 'a\\u3164b'): the ID 'a\\u3164b' contains a HANGUL FILLER (U+3164)"),
    Setting("An id with a separate accent after a letter (NFD)", "ID,Label\nZelle-e\u0301,1\n", "accepted", "Zelle-é: 1"),
    Setting("An id twice, as NFC and NFD", "ID,Label\né,1\ne\u0301,1\n", "rejected", "sheet sheet.csv, line 3 (ID é): ID é is a duplicate of line 2"),
    Setting("Two ids that differ only in case", "ID,Label\nA1,1\na1,2\n", "warned", "sheet sheet.csv, line 3 (ID a1): differs from ID A1 in line 2 only in case, blanks or the form of a letter, and is read as a different field"),
    Setting("Two ids that differ only in the width of a letter", "ID,Label\na1,1\n\uff411,2\n", "warned", "sheet sheet.csv, line 3 (ID \uff411): differs from ID a1 in line 2 only in case, blanks or the form of a letter, and is read as a different field"),
    Setting("Blanks around the sign |", "ID,Label\na, 1 | 2\n", "accepted", "a: 1|2"),
    Setting("UTF-16 without its mark", "ID,Label\na,1\n".encode("utf-16-le"), "rejected", "sheet sheet.csv: is not UTF-8 text (byte 1); save it as CSV UTF-8"),
]  # fmt: skip


TRUTH = [
    Setting("Semicolons, CRLF and blank lines", "\ufeffID;cell;Label\r\n\r\na;1;0|5\r\n;;\r\n", "accepted", "a 1: 0|5"),
    Setting("Tabs and another column", "ID\tcell\tLabel\twho, when\na\t1\t3\tx\n", "accepted", "a 1: 3"),
    Setting("Excel's line sep=;", "sep=;\nID;cell;Label\na;1;3\n", "accepted", "a 1: 3"),
    Setting("Blanks of any kind around values", "ID,cell,Label\n a\xa0, 1 , 3\n", "accepted", "a 1: 3"),
    Setting("An id in NFD", "ID,cell,Label\nZelle-e\u0301,1,3\n", "accepted", "Zelle-é 1: 3"),
    Setting("The columns id and CELL", "id,CELL,Label\na,1,3\n", "warned", "truth truth.csv: the column id is read as ID, the column CELL is read as cell"),
    Setting("The columns Label and label", "ID,cell,Label,label\na,1,3,4\n", "warned", "truth truth.csv: the column label is ignored, since there is Label"),
    Setting("The column cells", "ID,cells,Label\na,1,3\n", "rejected", "truth truth.csv: the column cells is nearly cell, which is missing: rename it to cell if that is meant, or to something else if not"),
    Setting("Two columns cell", "ID,cell,Label,cell\na,1,3,1\n", "rejected", "truth truth.csv: has 2 columns cell"),
    Setting("No column cell", "ID,object,Label\na,1,3\n", "rejected", "truth truth.csv: has no column cell (its header has ID, object, Label)"),
    Setting("A row with too few values", "ID,cell,Label\na,1\n", "rejected", "truth truth.csv, line 2: does not have the 3 columns of the header"),
    Setting("A row with too many values", "ID,cell,Label\na,1,0,5\n", "rejected", "truth truth.csv, line 2: does not have the 3 columns of the header"),
    Setting("Cell 0", "ID,cell,Label\na,0,3\n", "rejected", "truth truth.csv, line 2 (ID a): cell '0' is not a positive integer of 32 bits"),
    Setting("Cell 1.0", "ID,cell,Label\na,1.0,3\n", "rejected", "truth truth.csv, line 2 (ID a): cell '1.0' is not a positive integer of 32 bits"),
    Setting("A cell twice", "ID,cell,Label\na,1,3\na,01,4\n", "rejected", "truth truth.csv, line 3 (ID a): cell 1 appears twice"),
    Setting("Label 19", "ID,cell,Label\na,1,19\n", "rejected", "truth truth.csv, line 2 (ID a): unknown label '19' (labels are integers from 0 to 18 or names of locations, joined by |; labels: hpa2018 reads the numbers of 2018)"),
    Setting("Labels by name", "ID,cell,Label\na,1,Nucleoli|cytosol\n", "accepted", "a 1: 2|16"),
    Setting("A cell whose location has no class", "ID,cell,Label\na,1,Midbody ring\na,2,3\n", "warned", "truth truth.csv: labels that are not among the 19 locations are left out: Midbody ring (1); cells without another label, which are left out too: 1; cells that now have one label: 0"),
    Setting("Only cells whose location has no class", "ID,cell,Label\na,1,Midbody ring\n", "rejected", "truth truth.csv: no cell has a label among the 19 locations: Midbody ring (1)"),
    Setting("An empty id", "ID,cell,Label\n,1,3\n", "rejected", "truth truth.csv, line 2: the ID is empty"),
    Setting("An id with a no-break space", "ID,cell,Label\na\xa0b,1,3\n", "rejected", "truth truth.csv, line 2 (ID 'a\\xa0b'): the ID 'a\\xa0b' contains a NO-BREAK SPACE (U+00A0)"),
    Setting("Fields that are not in the sheet", "ID,cell,Label\na,1,3\nc,1,3\nd,1,3\n", "warned", "truth truth.csv: 2 of its 3 fields are not in the sheet of collection train and are ignored: c, d"),
    Setting("No field of the sheet", "ID,cell,Label\na.png,1,3\nb.png,1,3\n", "rejected", "truth truth.csv: none of its fields (2) is in the sheet of collection train: a.png, b.png"),
    Setting("A field in another case than in the sheet", "ID,cell,Label\na,1,3\nzelle-É,1,3\n", "rejected", "truth truth.csv (ID zelle-É): the sheet of collection train has Zelle-é, which differs only in case or blanks: write it as in the sheet"),
    Setting("Only a header", "ID,cell,Label\n", "rejected", "truth truth.csv: has no rows"),
    Setting("A header and rows of blanks", "ID,cell,Label\n,,\n\n", "rejected", "truth truth.csv: has no rows"),
    Setting("UTF-16", "ID,cell,Label\na,1,3\n".encode("utf-16"), "rejected", "truth truth.csv: is not UTF-8 text (byte 0); save it as CSV UTF-8"),
    Setting("A table that is missing", None, "rejected", "truth truth.csv: no such file"),
]  # fmt: skip


MASK_TABLES = [
    Setting("Semicolons, CRLF and blank lines", "field;cell;height;width;rle\r\n\r\na;7;1;2;02\r\n", "accepted", "a 7: 02"),
    Setting("Tabs and a byte-order mark", "\ufefffield\tcell\theight\twidth\trle\na\t7\t1\t2\t02\n", "accepted", "a 7: 02"),
    Setting("Excel's line sep=;", "sep=;\nfield;cell;height;width;rle\na;7;1;2;02\n", "accepted", "a 7: 02"),
    Setting("Without the column cell", "field,height,width,rle\na,1,2,02\na,1,2,11\n", "accepted", "a 1: 02, a 2: 11"),
    Setting("The column Cell", "field,Cell,height,width,rle\na,7,1,2,02\n", "warned", "table of masks masks.csv: the column Cell is read as cell"),
    Setting("The column cell_id", "field,cell_id,height,width,rle\na,7,1,2,02\n", "rejected", "table of masks masks.csv: the column cell_id is nearly cell, which is missing: rename it to cell if that is meant, or to something else if not"),
    Setting("The column cells", "field,cells,height,width,rle\na,7,1,2,02\n", "rejected", "table of masks masks.csv: the column cells is nearly cell, which is missing: rename it to cell if that is meant, or to something else if not"),
    Setting("Two columns cell", "field,cell,cell,height,width,rle\na,7,1,1,2,02\n", "rejected", "table of masks masks.csv: has 2 columns cell"),
    Setting("No column of fields", "name,mask\na,02\n", "rejected", "table of masks masks.csv: needs a column field or ID (its header has name, mask)"),
    Setting("No column of masks", "ID,ImageHeight,ImageWidth\na,1,2\n", "rejected", "table of masks masks.csv: has no column EncodedMask (its header has ID, ImageHeight, ImageWidth)"),
    Setting("A row with too many values", "field,cell,height,width,rle\na,7,1,2,02,5\n", "rejected", "table of masks masks.csv, line 2: does not have the 5 columns of the header"),
    Setting("A row with too few values", "field,cell,height,width,rle\na,7,1,2\n", "rejected", "table of masks masks.csv, line 2: does not have the 5 columns of the header"),
    Setting("No field of the sheet", "field,cell,height,width,rle\nx,7,1,2,02\n", "rejected", "table of masks masks.csv: none of its fields (1) is in the sheet of collection train: x"),
    Setting("Only a header", "field,cell,height,width,rle\n", "rejected", "table of masks masks.csv: has no rows"),
    Setting("An empty table", "", "rejected", "table of masks masks.csv: needs a column field or ID (its header has nothing)"),
    Setting("UTF-16", "field,cell,height,width,rle\na,7,1,2,02\n".encode("utf-16"), "rejected", "table of masks masks.csv: is not UTF-8 text (byte 0); save it as CSV UTF-8"),
]  # fmt: skip


EXAMPLES = [
    Setting("Semicolons, and a column with a comma", "field;cell;label;seen by, on\na;1;round;x\n", "accepted", "a 1: round"),
    Setting("Columns in capitals", "FIELD,Cell,Label\na,1,round\n", "warned", "examples examples.csv: the column FIELD is read as field, the column Cell is read as cell, the column Label is read as label"),
    Setting("A label in NFD and blanks around it", "field,cell,label\na,1, e\u0301tale\xa0\n", "accepted", "a 1: étale"),
    Setting("A row of empty values", "field,cell,label\na,1,round\n,,\n", "accepted", "a 1: round"),
    Setting("The column labels", "field,cell,labels\na,1,round\n", "rejected", "examples examples.csv: the column labels is nearly label, which is missing: rename it to label if that is meant, or to something else if not"),
    Setting("ID for field", "ID,cell,label\na,1,round\n", "rejected", "examples examples.csv: has no column field (its header has ID, cell, label)"),
    Setting("An empty label", "field,cell,label\na,1,\n", "rejected", "examples examples.csv, line 2 (field a): cell 1 has no label"),
    Setting("A header and nothing else", "field,cell,label\n", "rejected", "examples examples.csv: has no rows"),
    Setting("A header and rows of blanks", "field,cell,label\n,,\n\n", "rejected", "examples examples.csv: has no rows"),
    Setting("A cell that is not a number", "field,cell,label\na,one,round\n", "rejected", "examples examples.csv, line 2 (field a): cell 'one' is not a positive integer of 32 bits"),
    Setting("A cell twice", "field,cell,label\na,1,round\n a ,1,long\n", "rejected", "examples examples.csv, line 3 (field a): cell 1 appears twice"),
    Setting("A label with a comma and no quotes", "field,cell,label\na,1,round, bright\n", "rejected", "examples examples.csv, line 2: does not have the 3 columns of the header"),
    Setting("A field with a zero-width joiner", "field,cell,label\na\u200db,1,round\n", "rejected", "examples examples.csv, line 2 (field 'a\\u200db'): the ID 'a\\u200db' contains a ZERO WIDTH JOINER (U+200D)"),
    Setting("A field that is not in the sheet", "field,cell,label\na,1,round\nx,1,round\n", "warned", "examples examples.csv: 1 of its 2 fields is not in the sheet of collection train and is ignored: x"),
    Setting("No field that is in the sheet", "field,cell,label\nx,1,round\n", "rejected", "examples examples.csv: none of its fields (1) is in the sheet of collection train: x"),
    Setting("A field in other case than in the sheet", "field,cell,label\nA,1,round\n", "rejected", "examples examples.csv (ID A): the sheet of collection train has a, which differs only in case or blanks: write it as in the sheet"),
]  # fmt: skip


MIXTURES = [
    Setting("Tabs", "ID\tlabel_a\tfraction_a\tlabel_b\tfraction_b\na\t2\t0.25\t14\t0.75\n", "accepted", "a: 2 0.25 14 0.75"),
    Setting("Columns with blanks and capitals", "id;Label A;Fraction A;Label B;Fraction B\na;2;1;14;3\n", "warned", "mixtures mixtures.csv: the column id is read as ID, the column Label A is read as label_a, the column Fraction A is read as fraction_a, the column Label B is read as label_b, the column Fraction B is read as fraction_b"),
    Setting("A column that is nearly a known one", "ID,label_a,fraction_a,label_b,fractoin_b\na,2,1,14,3\n", "rejected", "mixtures mixtures.csv: the column fractoin_b is nearly fraction_b, which is missing: rename it to fraction_b if that is meant, or to something else if not"),
    Setting("No column fraction_b", "ID,label_a,fraction_a,label_b\na,2,1,14\n", "rejected", "mixtures mixtures.csv: has no column fraction_b (its header has ID, label_a, fraction_a, label_b)"),
    Setting("A row with too few values", "ID,label_a,fraction_a,label_b,fraction_b\na,2,1,14\n", "rejected", "mixtures mixtures.csv, line 2: does not have the 5 columns of the header"),
    Setting("A header and nothing else", "ID,label_a,fraction_a,label_b,fraction_b\n", "rejected", "mixtures mixtures.csv: has no rows"),
    Setting("A header and rows of blanks", "ID,label_a,fraction_a,label_b,fraction_b\n,,,,\n\n", "rejected", "mixtures mixtures.csv: has no rows"),
    Setting("Label 19", "ID,label_a,fraction_a,label_b,fraction_b\na,2,1,19,3\n", "rejected", "mixtures mixtures.csv, line 2 (ID a): label_b: unknown label '19' (labels are integers from 0 to 18 or names of locations, joined by |; labels: hpa2018 reads the numbers of 2018)"),
    Setting("Locations by name", "ID,label_a,fraction_a,label_b,fraction_b\na,ER,1,golgi apparatus,3\n", "accepted", "a: 6 1 7 3"),
    Setting("Two locations in one column", "ID,label_a,fraction_a,label_b,fraction_b\na,2|3,1,4,3\n", "rejected", "mixtures mixtures.csv, line 2 (ID a): label_a: unknown label '2|3' (labels are integers from 0 to 18 or names of locations, joined by |)"),
    Setting("A location without a class", "ID,label_a,fraction_a,label_b,fraction_b\na,2,1,Rods and rings,3\n", "rejected", "mixtures mixtures.csv, line 2 (ID a): label_b: Rods & rings is not among the 19 locations"),
    Setting("A fraction with a decimal comma", "ID;label_a;fraction_a;label_b;fraction_b\na;2;0,25;14;0,75\n", "rejected", "mixtures mixtures.csv, line 2 (ID a): fraction_a '0,25' is not a number of at least 0"),
    Setting("A fraction below 0", "ID,label_a,fraction_a,label_b,fraction_b\na,2,-1,14,3\n", "rejected", "mixtures mixtures.csv, line 2 (ID a): fraction_a '-1' is not a number of at least 0"),
    Setting("Fractions that are both 0", "ID,label_a,fraction_a,label_b,fraction_b\na,2,0,14,0\n", "rejected", "mixtures mixtures.csv, line 2 (ID a): its fractions are both 0"),
    Setting("A field twice", "ID,label_a,fraction_a,label_b,fraction_b\na,2,1,14,3\na,2,1,14,3\n", "rejected", "mixtures mixtures.csv, line 3 (ID a): the field appears twice"),
    Setting("A field that is not in the sheet", "ID,label_a,fraction_a,label_b,fraction_b\na,2,1,14,3\nx,2,1,14,3\n", "warned", "mixtures mixtures.csv: 1 of its 2 fields is not in the sheet of collection train and is ignored: x"),
    Setting("No field that is in the sheet", "ID,label_a,fraction_a,label_b,fraction_b\nx,2,1,14,3\n", "rejected", "mixtures mixtures.csv: none of its fields (1) is in the sheet of collection train: x"),
    Setting("A field in other case than in the sheet", "ID,label_a,fraction_a,label_b,fraction_b\nB,2,1,14,3\n", "rejected", "mixtures mixtures.csv (ID B): the sheet of collection train has b, which differs only in case or blanks: write it as in the sheet"),
]  # fmt: skip


COLLECTIONS = {"train": {"sheet": "train.csv", "images": "{id}_{colour}.png", "labels": True}}


def of_config(setting: Setting, folder: Path) -> tuple[str, str]:
    """Complete a configuration, written as YAML, and check it for training."""
    given = yaml.safe_load(setting.given)

    def check() -> object:
        filled = complete({"collections": COLLECTIONS, **given} if isinstance(given, dict) else given)
        check_places(filled)
        check_training(filled)
        return ""

    return tried(check)


CONFIGS = [
    Setting("Whole numbers with a point", "shards: 4.0\ntrain: {epochs: 1.0e+1}", "accepted"),
    Setting("An unknown key", "shard: 4", "rejected", "config: unknown key 'shard' (did you mean shards?)"),
    Setting("An unknown key of dask-jobqueue", "dask: {jobqueue: {qeue: short}}", "rejected", "config key dask.jobqueue: unknown key 'qeue' (did you mean queue?)"),
    Setting("A time limit without quotes, which YAML reads as a number", "dask: {jobqueue: {walltime: 10:00:00}}", "rejected", "config key dask.jobqueue.walltime: 36000 is not of type string or null; quote it, since YAML reads 10:00:00, 007 or on as something else"),
    Setting("A memory that is not a size", "dask: {jobqueue: {memory: 24 XB}}", "rejected", "config key dask.jobqueue.memory: '24 XB' is not written like 24GB"),
    Setting("Text instead of a list of directives", "dask: {jobqueue: {job_extra_directives: --exclusive}}", "rejected", "config key dask.jobqueue.job_extra_directives: '--exclusive' is not of type array or null"),
    Setting("A partition and an account of digits", "dask: {jobqueue: {queue: 7, account: '007', cores: 8, memory: 24GB}}", "accepted"),
    Setting("The address of a model without its digest", "model: {path: https://host/model.zip}", "rejected", "config key model.path: https://host/model.zip is an address, which may have another file tomorrow; give the SHA-256 digest of the zip as model.sha256"),
    Setting("A digest that is cut short", "model: {path: model.zip, sha256: 9f86d081}", "rejected", "config key model.sha256: '9f86d081' is not written like 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"),
    Setting("A digest without a model", f"model: {{sha256: {'ab' * 32}}}", "rejected", "config key model.sha256: only applies with model.path, a zip or its address"),
    Setting("An unknown key below another", "train: {epoch: 3}", "rejected", "config key train: unknown key 'epoch' (did you mean epochs?)"),
    Setting("Text instead of a number", "shards: four", "rejected", "config key shards: 'four' is not of type integer"),
    Setting("A number in quotes", "shards: '4'", "rejected", "config key shards: '4' is not of type integer"),
    Setting("A broken number", "shards: 4.5", "rejected", "config key shards: 4.5 is not of type integer"),
    Setting("True instead of a number", "shards: true", "rejected", "config key shards: True is not of type integer"),
    Setting("A list instead of a section", "train: [1, 2]", "rejected", "config key train: [1, 2] is not of type object"),
    Setting("An empty section", "train:", "rejected", "config key train: None is not of type object"),
    Setting("No shards", "shards: 0", "rejected", "config key shards: 0 is less than the minimum of 1"),
    Setting("A pixel size below 0", "pixel_size: -0.08", "rejected", "config key pixel_size: -0.08 is not a number of µm from 0.001 to 10"),
    Setting("A pixel size in nm", "pixel_size: 80", "rejected", "config key pixel_size: 80 is not a number of µm from 0.001 to 10"),
    Setting("A collection's pixel size in m", "collections: {train: {sheet: s, images: x, pixel_size: 8.0e-8}}", "rejected", "config key collections.train.pixel_size: 8e-08 is not a number of µm from 0.001 to 10"),
    Setting("A pixel size with its unit in the configuration", "pixel_size: 0.08 µm", "rejected", "config key pixel_size: '0.08 µm' is neither a number of µm nor file"),
    Setting("A pixel size of the files, in capitals", "pixel_size: File", "rejected", "config key pixel_size: 'File' is neither a number of µm nor file"),
    Setting("A list of pixel sizes", "pixel_size: [0.08, 0.08]", "rejected", "config key pixel_size: [0.08, 0.08] is neither a number of µm nor file"),
    Setting("No pixel size", "pixel_size:", "rejected", "config key pixel_size: None is neither a number of µm nor file"),
    Setting("The pixel size of the files", "pixel_size: file", "accepted"),
    Setting("The pixel size of the files of one collection", "collections: {train: {sheet: s, images: x, labels: true, pixel_size: file}}", "accepted"),
    Setting("The pixel size of files that are simulated", "{pixel_size: file, collections: {train: {sheet: s, labels: true, simulate: {}}}}", "rejected", "config key collections.train: pixel_size 'file' cannot be combined with 'simulate', which makes the files; give a number of µm"),
    Setting("A sheet with a NUL in its path", 'collections: {train: {sheet: "s\\0.csv", images: x}}', "rejected", "config key collections.train.sheet: 's\\x00.csv' contains a NUL character, which no path or name can have"),
    Setting("A table of examples with a NUL in its path", 'few_shot: {table: "t\\0.csv"}', "rejected", "config key few_shot.table: 't\\x00.csv' contains a NUL character, which no path or name can have"),
    Setting("A pixel size that is not a number (.nan)", "pixel_size: .nan", "rejected", "config key pixel_size: nan is not a finite number"),
    Setting("An infinite learning rate", "train: {learning_rate: {max: .inf}}", "rejected", "config key train.learning_rate.max: inf is not a finite number"),
    Setting("More than all fields rejected", "max_rejected_fraction: 5", "rejected", "config key max_rejected_fraction: 5 is greater than the maximum of 1"),
    Setting("A seed below 0", "seed: -1", "rejected", "config key seed: -1 is less than the minimum of 0"),
    Setting("An unknown backend", "segmentation: {backend: stardist}", "rejected", "config key segmentation.backend: 'stardist' is not one of watershed, hpacellseg, instanseg, masks"),
    Setting("An unknown format of weights", "segmentation: {weights: {format: onnx}}", "rejected", "config key segmentation.weights.format: 'onnx' is not one of pickle, torchscript"),
    Setting("An unknown colour", "train: {channels: [red, violet]}", "rejected", "config key train.channels.1: 'violet' is not one of red, green, blue, yellow"),
    Setting("A colour twice", "train: {channels: [red, red]}", "rejected", "config key train.channels: ['red', 'red'] has non-unique elements"),
    Setting("No colour", "train: {channels: []}", "rejected", "config key train.channels: is empty"),
    Setting("Three views", "predict: {views: 3}", "rejected", "config key predict.views: 3 is not one of 1, 2, 4, 8"),
    Setting("The smallest cell above the largest", "curation: {min_cell_area: 500, max_cell_area: 50}", "rejected", "config key curation.min_cell_area: 500 is above max_cell_area, 50"),
    Setting("Tiles of 8 px", "tiles: {size: 8}", "rejected", "config key tiles.size: 8 is less than the minimum of 32"),
    Setting("All cells in the validation part", "curation: {validation_fraction: 1}", "rejected", "config key curation.validation_fraction: 1 is greater than or equal to the maximum of 1"),
    Setting("An unknown collection to predict", "predict: {collections: [tset]}", "rejected", "config key predict.collections: 'tset' is not among the collections (train)"),
    Setting("An unknown collection to train on", "train: {collection: other}", "rejected", "config key train.collection: 'other' is not among the collections (train)"),
    Setting("The collection of a first training alone", "train: {collection: second, pretraining: {collection: train}}", "rejected", "config key train.collection: 'second' is not among the collections (train)"),
    Setting("A first training with a smallest cell above the largest", "train: {pretraining: {collection: train, curation: {min_cell_area: 500, max_cell_area: 50}}}", "rejected", "config key train.pretraining.curation.min_cell_area: 500 is above max_cell_area, 50"),
    Setting("A first training with an unknown key", "train: {pretraining: {collection: train, curation: {label: all}}}", "rejected", "config key train.pretraining.curation: unknown key 'label' (did you mean labels?)"),
    Setting("One rate of dropout", "train: {dropout: [0.3]}", "rejected", "config key train.dropout: has 1 of at least 2 values"),
    Setting("No collections", "collections: {}", "rejected", "config key collections: is empty"),
    Setting("A collection with labels and without a sheet", "collections: {train: {images: x, labels: true}}", "rejected", "config key collections.train: labels: true needs the key 'sheet', whose column Label has them"),
    Setting("A collection without a sheet that trains", "collections: {train: {images: '{id}_{colour}.png'}}", "rejected", "config key train.collection: the collection 'train' has no labels; set its labels: true"),
    Setting("A simulated collection without a sheet", "collections: {train: {simulate: {}, labels: true}}", "rejected", "config key collections.train: labels: true needs the key 'sheet', whose column Label has them"),
    Setting("A downloaded collection without a sheet", "collections: {train: {download: {}}}", "rejected", "config key collections.train: the key 'sheet' is missing, which lists the fields to make"),
    Setting("Patterns of three colours", "collections: {train: {images: {red: x, green: x, blue: x}}}", "rejected", "config key collections.train.images: the key 'yellow' is missing"),
    Setting("A collection whose name ends with a line break", 'collections: {"x\\n": {sheet: s, images: x}}', "rejected", "config key collections: the name 'x\\n' may have only letters, digits, - and _"),
    Setting("A memory that ends with a line break", 'dask: {jobqueue: {memory: "24GB\\n"}}', "rejected", "config key dask.jobqueue.memory: '24GB\\n' is not written like 24GB"),
    Setting("A collection called ../x", "collections: {../x: {sheet: s, images: x}}", "rejected", "config key collections: the name '../x' may have only letters, digits, - and _"),
    Setting("A collection called 1 or no", "collections: {no: {sheet: s, images: x}}", "rejected", "config key collections: the key False is not text; quote it"),
    Setting("Crops without images", "collections: {train: {crops: true, sheet: s, labels: true}}", "rejected", "config key collections.train: the key 'images' (or 'simulate' or 'download') is missing"),
    Setting("Crops that are to be segmented by masks from elsewhere", "collections: {train: {crops: true, sheet: s, labels: true, images: '{id}_{colour}.png', masks: {cells: '{id}.png'}}}", "rejected", "config key collections.train: 'masks' cannot be combined with 'crops', pictures of one cell"),
    Setting("Crops beside masks for other collections", "{segmentation: {backend: masks}, collections: {train: {crops: true, sheet: s, labels: true, images: '{id}_{colour}.png'}}}", "accepted"),
    Setting("A table of crops beside a sheet", "collections: {train: {crops: metadata.csv, sheet: s, labels: true}}", "rejected", "config key collections.train: 'sheet' cannot be combined with 'crops: metadata.csv', whose table names the files"),
    Setting("A table of crops and channels", "collections: {train: {crops: metadata.csv, labels: true, channels: {red: 0, green: 1, blue: 2, yellow: 3}}}", "rejected", "config key collections.train.channels: only null applies with 'crops: metadata.csv', whose table says which colour is where"),
    Setting("Lists of antibodies without a table of crops", "collections: {train: {sheet: s, images: x, labels: true, antibodies: {train: a.txt}}}", "rejected", "config key collections.train.antibodies: only applies with a table of crops (crops)"),
    Setting("A table of crops that trains", "collections: {train: {crops: metadata.csv, labels: true}}", "accepted"),
    Setting("A list of antibodies where the run writes", "collections: {train: {crops: metadata.csv, labels: true, antibodies: {train: results/model/a.txt}}}", "rejected", "config key collections.train.antibodies.train: results/model/a.txt is where this run writes, and would be deleted; copy it to another folder and name the copy"),
    Setting("A list of patterns that is empty", "collections: {train: {sheet: s, images: []}}", "rejected", "config key collections.train.images: is empty"),
    Setting("Channels of files of one colour", "collections: {train: {sheet: s, images: '{id}_{colour}.tif', labels: true, channels: {red: 0, green: 1, blue: 2, yellow: 3}}}", "rejected", "config key collections.train.channels: only applies to files that hold all colours; leave it out, or {colour} out of images (null, for a colour that the collection lacks, applies to all files)"),
    Setting("Channels without that of a colour", "collections: {train: {sheet: s, images: '{id}.tif', labels: true, channels: {red: 0, green: 1, blue: 2}}}", "rejected", "config key collections.train.channels: the key 'yellow' is missing; name the channel, or write null if the collection lacks red or yellow"),
    Setting("A colour that the collection lacks", "collections: {train: {sheet: s, images: '{id}.tif', labels: true, channels: {red: 0, green: 1, blue: 2, yellow: null}}}", "accepted"),
    Setting("A colour that files of one colour lack", "collections: {train: {sheet: s, images: '{id}_{colour}.tif', labels: true, channels: {yellow: null}}}", "accepted"),
    Setting("No nuclei", "collections: {train: {sheet: s, images: '{id}_{colour}.tif', labels: true, channels: {blue: null}}}", "rejected", "config key collections.train.channels.blue: is null, but every collection needs green (protein) and blue (nuclei); name its channel"),
    Setting("No protein", "collections: {train: {sheet: s, images: '{id}.tif', labels: true, channels: {red: null, green: null, blue: 0, yellow: null}}}", "rejected", "config key collections.train.channels.green: is null, but every collection needs green (protein) and blue (nuclei); name its channel"),
    Setting("A network that sees a colour that the training lacks", "train: {channels: [red, green, blue, yellow]}\ncollections: {train: {sheet: sheet.csv, images: '{id}_{colour}.png', labels: true, channels: {yellow: null}}}", "rejected", "config key train.channels: the network sees yellow, which the collection train lacks (collections.train.channels); train a network without it, train.channels: [red, green, blue]"),
    Setting("A network that sees a colour that a predicted collection lacks", "collections: {train: {sheet: sheet.csv, images: '{id}_{colour}.png', labels: true}, test: {sheet: sheet.csv, images: '{id}_{colour}.png', channels: {red: null, yellow: null}}}", "rejected", "config key train.channels: the network sees red, which the collection test lacks (collections.test.channels); train a network without it, train.channels: [green, blue]"),
    Setting("Simulated fields without red and yellow", "train: {channels: [green, blue]}\ncollections: {train: {sheet: s, simulate: {}, labels: true, channels: {red: null, yellow: null}}}", "accepted"),
    Setting("One channel for two colours", "collections: {train: {sheet: s, images: '{id}.tif', labels: true, channels: {red: 0, green: GFP, blue: 2, yellow: GFP}}}", "rejected", "config key collections.train.channels.yellow: 'GFP' is also the channel of green; give each colour its own"),
    Setting("A projection that there is not", "collections: {train: {sheet: s, images: '{id}_{colour}.tif', labels: true, project: median}}", "rejected", "config key collections.train.project: 'median' is neither max, mean, sharpest nor the number of a plane"),
    Setting("Files that nothing reads", "collections: {train: {sheet: s, images: '{id}_{colour}.bmp', labels: true}}", "rejected", f"config key collections.train.images: '{{id}}_{{colour}}.bmp' {unknown_ending('x.bmp')}"),
    Setting("Files of a microscope", "collections: {train: {sheet: s, images: '{id}.CZI', labels: true, channels: {red: 0, green: GFP, blue: 2, yellow: 3}, series: Position 1}}", "accepted"),
    Setting("The name of a scene of files without", "collections: {train: {sheet: s, images: '{id}.tif', labels: true, channels: {red: 0, green: 1, blue: 2, yellow: 3}, series: Position 1}}", "rejected", "config key collections.train.series: 'Position 1' is a name, but in '{id}.tif' images have numbers; give it one (from 0)"),
    Setting("The plane of a stack of simulated fields", "collections: {train: {sheet: s, simulate: {}, labels: true, project: 2}}", "rejected", "config key collections.train.project: only applies with 'images'"),
    Setting("Text without keys", "just text", "rejected", "config: 'just text' is not a table of keys"),
    Setting("Weights from the model that this run trains", "train: {weights: results/model/model.keras}", "rejected", "config key train.weights: results/model/model.keras is where this run writes, and would be deleted; copy it to another folder and name the copy"),
    Setting("Masks from the segmentation that this run makes", "segmentation: {backend: masks}\ncollections: {train: {sheet: sheet.csv, images: '{id}_{colour}.png', labels: true, masks: {cells: 'results/segmentation/train/000/{id}_cellmask.png'}}}", "rejected", "config key collections.train.masks.cells: results/segmentation/train/000/{id}_cellmask.png is where this run writes, and would be deleted; copy it to another folder and name the copy"),
    Setting("A table of masks that this run writes", "segmentation: {backend: masks}\ncollections: {train: {sheet: sheet.csv, images: '{id}_{colour}.png', labels: true, masks: {cells: results/cells/train/000.parquet}}}", "rejected", "config key collections.train.masks.cells: results/cells/train/000.parquet is where this run writes, and would be deleted; copy it to another folder and name the copy"),
    Setting("Examples in the folder of their labels", "few_shot: {table: results/few_shot/train/cells.csv}", "rejected", "config key few_shot.table: results/few_shot/train/cells.csv is where this run writes, and would be deleted; copy it to another folder and name the copy"),
    Setting("Mixtures in the folder of the interpretation", "interpretation: {mixtures: {collection: train, table: results/interpretation/few_shot.csv}}", "rejected", "config key interpretation.mixtures.table: results/interpretation/few_shot.csv is where this run writes, and would be deleted; copy it to another folder and name the copy"),
    Setting("A sheet that is the summary of a run", "collections: {train: {sheet: results/sheet/summary.csv, images: '{id}_{colour}.png'}}", "rejected", "config key collections.train.sheet: results/sheet/summary.csv is where this run writes, and would be deleted; copy it to another folder and name the copy"),
    Setting("Examples in the folder of the predictions", "few_shot: {table: ./results/predictions/train/mine.csv}", "rejected", "config key few_shot.table: ./results/predictions/train/mine.csv is where this run writes, and would be deleted; copy it to another folder and name the copy"),
]  # fmt: skip


def atlas_xml(*reliabilities: str) -> str:
    """Return the XML of an atlas of two genes of each of two locations, and one more for each reliability."""
    places = ["Nucleoli", "Nucleoli", "Cytosol", "Cytosol", *["Mitochondria"] * len(reliabilities)]
    genes = []
    for number, (place, level) in enumerate(zip(places, ["supported"] * 4 + [*reliabilities], strict=True), 1):
        data = data_of("U-2 OS", [place], [address(number, f"{number}_A1_1")])
        genes.append(entry(f"GENE{number}", antibody(f"HPA{number:06d}", data, reliability=level)))
    return whole(*genes)


def of_atlas(setting: Setting, folder: Path) -> tuple[str, str]:
    """Complete a configuration of two collections of the atlas, check it, and plan the sheets; return their lengths.

    What is given is YAML or, for the XML itself, bytes.
    """
    section = {"atlas": {"xml": "atlas.xml"}}
    parts = {part: {"atlas": part, "labels": True, "download": {}} for part in ("train", "test")}
    with chdir(folder):
        of_file = isinstance(setting.given, bytes)
        Path("atlas.xml").write_bytes(setting.given if of_file else atlas_xml("uncertain").encode())
        given = section if of_file else yaml.safe_load(setting.given)
        if not of_file and isinstance(given.get("atlas", {}), dict):
            given["atlas"] = section["atlas"] | given.get("atlas", {})

        def plan() -> str:
            filled = complete({"collections": parts, **given})
            check_places(filled)
            check_training(filled)
            plan_atlas(filled, lambda line: None)
            sheets = sorted(Path("resources/atlas").glob("*.csv"), reverse=True)
            return ", ".join(f"{path.stem}: {len(path.read_text().splitlines()) - 1} fields" for path in sheets)

        return told(plan)


_KEYS = "config key atlas"
_NONE = "atlas XML atlas.xml: the keys of atlas leave none of its 5 fields: "
_NO_PART = "no field of the atlas is in the part test; change atlas.test_fraction, or what atlas asks for"
_TRAIN = "config key collections.train"
ATLAS = [
    Setting("The atlas without any key", "{}", "accepted", "train: 2 fields, test: 2 fields"),
    Setting("An unknown key of the atlas", "atlas: {gene: [GENE1]}", "rejected", f"{_KEYS}: unknown key 'gene' (did you mean genes?)"),
    Setting("An empty section of the atlas", "atlas:", "rejected", f"{_KEYS}: None is not of type object"),
    Setting("A part of the atlas for its section", "atlas: train", "rejected", f"{_KEYS}: 'train' is not of type object"),
    Setting("A gene that is not in a list", "atlas: {genes: GENE1}", "rejected", f"{_KEYS}.genes: 'GENE1' is not of type array"),
    Setting("A gene by a number", "atlas: {genes: [1]}", "rejected", f"{_KEYS}.genes.0: 1 is not of type string; quote it, since YAML reads 10:00:00, 007 or on as something else"),
    Setting("A gene twice", "atlas: {genes: [GENE1, GENE1]}", "rejected", f"{_KEYS}.genes: ['GENE1', 'GENE1'] has non-unique elements"),
    Setting("A gene without a name", "atlas: {genes: ['']}", "rejected", f"{_KEYS}.genes.0: is empty"),
    Setting("One gene of several that the atlas lacks", "atlas: {genes: [GENE1, ENSGGENE2, GENE9]}", "warned", f"{_KEYS}.genes: not in the atlas's XML: GENE9"),
    Setting("Only a gene that the atlas lacks", "atlas: {genes: [GENE9]}", "rejected", f"{_NONE}another gene (5)"),
    Setting("An unknown cell line", "atlas: {cell_lines: [U-2 0S]}", "rejected", f"{_KEYS}.cell_lines: 'U-2 0S' is not in the atlas's XML, which has U-2 OS"),
    Setting("A cell line in other letters", "atlas: {cell_lines: [u2os]}", "accepted", "train: 2 fields, test: 2 fields"),
    Setting("An unknown reliability", "atlas: {reliability: [sure]}", "rejected", f"{_KEYS}.reliability.0: 'sure' is not one of enhanced, supported, approved, uncertain"),
    Setting("A reliability in capitals", "atlas: {reliability: [Enhanced]}", "rejected", f"{_KEYS}.reliability.0: 'Enhanced' is not one of enhanced, supported, approved, uncertain"),
    Setting("No reliability", "atlas: {reliability: []}", "rejected", f"{_KEYS}.reliability: is empty"),
    Setting("A reliability that no field has", "atlas: {reliability: [enhanced]}", "rejected", f"{_NONE}reliability: supported (4); reliability: uncertain (1)"),
    Setting("An antibody to leave out that is not in a list", "atlas: {leave_out: HPA000001}", "rejected", f"{_KEYS}.leave_out: 'HPA000001' is not of type array"),
    Setting("An antibody to leave out that the atlas lacks", "atlas: {leave_out: [HPA000009]}", "warned", f"{_KEYS}.leave_out: not in the atlas's XML: HPA000009"),
    Setting("All antibodies left out", "atlas: {leave_out: [HPA000001, HPA000002, HPA000003, HPA000004, HPA000005]}", "rejected", f"{_NONE}antibody left out (5)"),
    Setting("A cap below 0", "atlas: {per_class: -1}", "rejected", f"{_KEYS}.per_class: -1 is less than the minimum of 1"),
    Setting("A cap of a class by name", "atlas: {per_class: {Nucleoli: 5}}", "rejected", f"{_KEYS}.per_class: {{'Nucleoli': 5}} is not of type integer or null"),
    Setting("A cap of one field, which leaves none to test", "atlas: {per_class: 1}", "rejected", f"config key collections.test.atlas: {_NO_PART.replace('change', 'change atlas.per_class (1 is for one part alone),')}"),
    Setting("A cap of two fields, of which one tests", "atlas: {per_class: 2}", "accepted", "train: 2 fields, test: 2 fields"),
    Setting("A share of the test fields in percent", "atlas: {test_fraction: 20}", "rejected", f"{_KEYS}.test_fraction: 20 is greater than or equal to the maximum of 1"),
    Setting("Test fields of no share", "atlas: {test_fraction: 0}", "rejected", f"config key collections.test.atlas: {_NO_PART}"),
    Setting("Images of the atlas of another format", "atlas: {format: tif}", "rejected", f"{_KEYS}.format: 'tif' is not one of jpg, tif.gz"),
    Setting("A seed of the atlas below 0", "atlas: {seed: -1}", "rejected", f"{_KEYS}.seed: -1 is less than the minimum of 0"),
    Setting("A version of the atlas with its letter", "atlas: {version: v23}", "rejected", f"{_KEYS}.version: 'v23' is not of type integer or null"),
    Setting("XML of another version", "atlas: {version: 22}", "rejected", "atlas XML atlas.xml: is of version 23.0, but config key atlas.version is 22"),
    Setting("XML that is missing", "atlas: {xml: proteinatlas.xml.gz}", "rejected", f"{_KEYS}.xml: proteinatlas.xml.gz: no such file or folder"),
    Setting("A folder without XML", "atlas: {xml: ..}", "rejected", f"{_KEYS}.xml: the folder .. has no file that ends with .xml or .xml.gz"),
    Setting("XML with a NUL in its path", 'atlas: {xml: "a\\0.xml"}', "rejected", f"{_KEYS}.xml: 'a\\x00.xml' contains a NUL character, which no path or name can have"),
    Setting("XML where the run writes", "atlas: {xml: results/dataset/atlas.xml}", "rejected", f"{_KEYS}.xml: results/dataset/atlas.xml is where this run writes, and would be deleted; copy it to another folder and name the copy"),
    Setting("An address of XML that is not https", "atlas: {xml: 'http://host/atlas.xml'}", "rejected", f"{_KEYS}.xml: http://host/atlas.xml: only https is allowed"),
    Setting("Files per gene without genes", "atlas: {xml: 'https://host/{gene}.xml'}", "rejected", f"{_KEYS}.xml: has {{gene}}, but atlas.genes names none; list them (ENSG00000134057)"),
    Setting("A file per gene of which one is missing", "atlas: {xml: '{gene}.xml', genes: [atlas, GENE9]}", "rejected", f"{_KEYS}.xml: GENE9.xml: no such file or folder"),
    Setting("A part that the atlas is not divided into", "collections: {train: {atlas: validation, labels: true, download: {}}}", "rejected", f"{_TRAIN}.atlas: 'validation' is not one of train, test"),
    Setting("The section of the atlas in a collection", "collections: {train: {atlas: {per_class: 40}, labels: true, download: {}}}", "rejected", f"{_TRAIN}.atlas: {{'per_class': 40}} is not one of train, test"),
    Setting("A sheet beside the atlas", "collections: {train: {atlas: train, sheet: s.csv, labels: true, download: {}}}", "rejected", f"{_TRAIN}: 'sheet' cannot be combined with 'atlas', which makes it"),
    Setting("Fields of the atlas without a source of images", "collections: {train: {atlas: train, labels: true}}", "rejected", f"{_TRAIN}: the key 'images' (or 'simulate' or 'download') is missing"),
    Setting("Fields of the atlas that train, without labels", "collections: {train: {atlas: train, download: {}}}", "rejected", "config key train.collection: the collection 'train' has no labels; set its labels: true"),
    Setting("Fields of the atlas with the numbers of 2018", "collections: {train: {atlas: train, labels: hpa2018, download: {}}}", "rejected", f"{_TRAIN}.labels: the atlas's sheets have other numbers; write true"),
    Setting("Images of the atlas that are there", "collections: {train: {atlas: train, labels: true, images: '{id}_{colour}.jpg'}}", "accepted", "train: 2 fields, test: 2 fields"),
    Setting("Keys of the atlas that no collection uses", "{atlas: {per_class: 40}, collections: {train: {sheet: s.csv, labels: true, images: '{id}_{colour}.png'}}}", "accepted"),
    Setting("An empty file of XML", b"", "rejected", "atlas XML atlas.xml: is empty; fetch it again"),
    Setting("Text called .xml", b"no XML", "rejected", "atlas XML atlas.xml: is neither XML nor gzip (it starts with b'no X'); fetch it again"),
    Setting("A web page for XML", b"<!doctype html><html></html>", "rejected", "atlas XML atlas.xml: is a web page (HTML), not the atlas's XML; fetch it again"),
    Setting("A zip file for XML", b"PK\x03\x04", "rejected", "atlas XML atlas.xml: is a zip file; unpack it, and name the XML in it"),
    Setting("Gzip'd XML cut in half", gzip.compress(atlas_xml().encode(), mtime=0)[:300], "rejected", "atlas XML atlas.xml: is cut short or damaged (Compressed file ended before the end-of-stream marker was reached); fetch it again"),
    Setting("XML of another kind", b"<svg></svg>", "rejected", "atlas XML atlas.xml: has no entry of a gene (its first element is svg); name the atlas's XML"),
    Setting("XML of a gene without images", whole(entry("GENE1")).encode(), "rejected", "atlas XML atlas.xml: lists no immunofluorescence image (cellExpression) of an antibody; name the XML of the whole atlas, or of genes that have some"),
]  # fmt: skip


# The images of crops, and the starts of tables of crops.
_PNG, _OTHER = "10/10_A1_1_3_cell_image.png", "10/10_A1_1_4_cell_image.png"
_HPAV23 = "if_plate_id,position,sample,cell_id,antibody,locations\n"
_SUBCELL = "r_image,y_image,b_image,g_image,output_prefix\n"
_OF_HPAV23 = "crops: metadata.csv\nlabels: true"
_LISTS = f"{_OF_HPAV23}\nantibodies: {{train: train.txt, validation: valid.txt}}"
_CELL = "mt.png,er.png,nuc.png,prot.png"


def of_crops(setting: Setting, folder: Path) -> tuple[str, str]:
    """Read a table of ready-made crops among files, {name: text}; those that are not named have none."""
    files, given = setting.given
    with chdir(folder):
        empty = dict.fromkeys((_PNG, _OTHER, *_CELL.split(",")), "")
        for name, text in (empty | files).items():
            Path(name).parent.mkdir(parents=True, exist_ok=True)
            if text is not None:
                Path(name).write_text(text)

        def read() -> str:
            scan = scan_collection("new", complete({"collections": {"new": yaml.safe_load(given)}}))
            found = ((row.id, row.labels, row.split) for row in scan.rows)
            return ", ".join(
                f"{id}: {'|'.join(map(str, labels or ()))} {split or ''}".strip() for id, labels, split in found
            )

        return told(read)


CROPS = [
    Setting("The table of HPAv23", ({"metadata.csv": f'{_HPAV23}10,A1,1,3,HPA1,"Nucleoli,Vesicles"\n10,A1,1,4,HPA1,\n'}, _OF_HPAV23), "accepted", "10_A1_1_3: 2|17, 10_A1_1_4: 18"),
    Setting("A number of a cell with a point", ({"metadata.csv": f"{_HPAV23}10,A1,1,3.0,HPA1,Cytosol\n"}, _OF_HPAV23), "accepted", "10_A1_1_3: 16"),
    Setting("A location that is no class of HPAv23", ({"metadata.csv": f'{_HPAV23}10,A1,1,3,HPA1,"Cytosol,Midbody"\n10,A1,1,4,HPA1,Endosomes\n'}, _OF_HPAV23), "warned", "crops metadata.csv: crops that have none of the 19 classes are left out: 1, of Endosomes (1)"),
    Setting("No location that is a class of HPAv23", ({"metadata.csv": f"{_HPAV23}10,A1,1,4,HPA1,Endosomes\n"}, _OF_HPAV23), "rejected", "crops metadata.csv: has no crop that has one of the 19 classes"),
    Setting("A table of crops without locations", ({"metadata.csv": "if_plate_id,position,sample,cell_id\n10,A1,1,3\n"}, _OF_HPAV23), "rejected", "crops metadata.csv: has no column locations (its header has if_plate_id, position, sample, cell_id)"),
    Setting("A table of crops of another form", ({"metadata.csv": "plate,well\n10,A1\n"}, _OF_HPAV23), "rejected", "crops metadata.csv: is neither the table of HPAv23 (if_plate_id, position, sample, cell_id) nor that of SubCellPortable (r_image, y_image, b_image, g_image, output_prefix); its header has plate, well"),
    Setting("A table of crops that there is not", ({}, _OF_HPAV23), "rejected", "crops metadata.csv: no such file"),
    Setting("A table of crops without rows", ({"metadata.csv": _HPAV23}, _OF_HPAV23), "rejected", "crops metadata.csv: has no crop that has one of the 19 classes"),
    Setting("A crop twice", ({"metadata.csv": f"{_HPAV23}10,A1,1,3,HPA1,Cytosol\n10,A1,1,3.0,HPA1,Cytosol\n"}, _OF_HPAV23), "rejected", "crops metadata.csv, line 3 (ID 10_A1_1_3): ID 10_A1_1_3 is a duplicate of line 2"),
    Setting("A crop whose file is missing", ({"metadata.csv": f"{_HPAV23}10,A1,1,3,HPA1,Cytosol\n10,A1,1,9,HPA1,Cytosol\n10,B2,1,1,HPA1,Cytosol\n"}, _OF_HPAV23), "rejected", "crops metadata.csv: 2 of 3 crops lack a file: 10/10_A1_1_9_cell_image.png (line 3), 10/10_B2_1_1_cell_image.png (line 4); add the files, or remove the rows"),
    Setting("A number of a cell that is none", ({"metadata.csv": f"{_HPAV23}10,A1,1,cell 3,HPA1,Cytosol\n"}, _OF_HPAV23), "rejected", "crops metadata.csv, line 2: cell_id 'cell 3' is not a number"),
    Setting("A plate that leads to another folder", ({"metadata.csv": f"{_HPAV23}../10,A1,1,3,HPA1,Cytosol\n"}, _OF_HPAV23), "rejected", "crops metadata.csv, line 2: if_plate_id is ../10, which cannot be part of a file name"),
    Setting("A crop without a plate", ({"metadata.csv": f"{_HPAV23},A1,1,3,HPA1,Cytosol\n"}, _OF_HPAV23), "rejected", "crops metadata.csv, line 2: if_plate_id is empty"),
    Setting("Lists of antibodies", ({"metadata.csv": f"{_HPAV23}10,A1,1,3,HPA1,Cytosol\n10,A1,1,4,HPA2,Cytosol\n10,A1,1,5,HPA3,Cytosol\n", "train.txt": "HPA1\n", "valid.txt": "HPA2\n\n"}, _LISTS), "accepted", "10_A1_1_3: 16 train, 10_A1_1_4: 16 validation"),
    Setting("An antibody in two lists", ({"metadata.csv": f"{_HPAV23}10,A1,1,3,HPA1,Cytosol\n", "train.txt": "HPA1\n", "valid.txt": "HPA1\n"}, _LISTS), "rejected", "config key collections.new.antibodies: HPA1 is in the lists of train and validation"),
    Setting("Lists without an antibody of the table", ({"metadata.csv": f"{_HPAV23}10,A1,1,3,HPA1,Cytosol\n", "train.txt": "HPA7\n", "valid.txt": "HPA8\n"}, _LISTS), "rejected", "crops metadata.csv: has no crop of an antibody in the lists that has one of the 19 classes"),
    Setting("A list of antibodies that there is not", ({"metadata.csv": _HPAV23, "train.txt": "HPA1\n"}, _LISTS), "rejected", "antibodies valid.txt: cannot be read (No such file or directory)"),
    Setting("A list without antibodies", ({"metadata.csv": _HPAV23, "train.txt": "\n", "valid.txt": "HPA1\n"}, _LISTS), "rejected", "antibodies train.txt: lists no antibody"),
    Setting("Lists for a table without antibodies", ({"metadata.csv": "if_plate_id,position,sample,cell_id,locations\n10,A1,1,3,Cytosol\n", "train.txt": "HPA1\n", "valid.txt": "HPA2\n"}, _LISTS), "rejected", "crops metadata.csv: has no column antibody (its header has if_plate_id, position, sample, cell_id, locations)"),
    Setting("The table of SubCellPortable", ({"path_list.csv": f"{_SUBCELL}{_CELL},batch_A/cell_1\n#a.png,a.png,a.png,a.png,cell_2\n"}, "crops: path_list.csv"), "accepted", "batch_A_cell_1:"),
    Setting("The table of SubCellPortable in its first form", ({"path_list.csv": f"#r_image,y_image,b_image,g_image,output_folder,output_prefix\n{_CELL},output,cell1_\n"}, "crops: path_list.csv"), "accepted", "cell1_:"),
    Setting("A crop without yellow", ({"path_list.csv": f"{_SUBCELL}mt.png,,nuc.png,prot.png,cell_1\n"}, "crops: path_list.csv\nchannels: {yellow: null}"), "accepted", "cell_1:"),
    Setting("A crop that lacks yellow", ({"path_list.csv": f"{_SUBCELL}mt.png,,nuc.png,prot.png,cell_1\n"}, "crops: path_list.csv"), "rejected", "crops path_list.csv, line 2: y_image is empty; if there is no yellow, write channels: {yellow: null}"),
    Setting("A path that leaves the folder of the table", ({"path_list.csv": f"{_SUBCELL}mt.png,er.png,images/../../nuc.png,prot.png,cell_1\n"}, "crops: path_list.csv"), "rejected", "crops path_list.csv, line 2: b_image is images/../../nuc.png, outside of the folder of the table; write the whole path"),
    Setting("A crop at an address", ({"path_list.csv": f"{_SUBCELL}mt.png,er.png,https://host/nuc.png,prot.png,cell_1\n"}, "crops: path_list.csv"), "rejected", "crops path_list.csv, line 2: b_image is https://host/nuc.png, an address; download the file and write its path"),
    Setting("Two crops of one file", ({"path_list.csv": f"{_SUBCELL}{_CELL},cell_1\n{_CELL},cell_2\n"}, "crops: path_list.csv"), "rejected", "crops path_list.csv, line 3: the file mt.png is that of line 2, too"),
    Setting("Two colours of one file", ({"path_list.csv": f"{_SUBCELL}mt.png,er.png,nuc.png,nuc.png,cell_1\n"}, "crops: path_list.csv"), "rejected", "crops path_list.csv, line 2: g_image and b_image are both nuc.png; give each colour its own file"),
    Setting("A crop without a name", ({"path_list.csv": f"{_SUBCELL}{_CELL},\n"}, "crops: path_list.csv"), "rejected", "crops path_list.csv, line 2: the ID is empty"),
    Setting("Labels of the table of SubCellPortable", ({"path_list.csv": f"{_SUBCELL}{_CELL},cell_1\n"}, "crops: path_list.csv\nlabels: true"), "rejected", "crops path_list.csv: has no labels and no antibodies; list labelled crops in a sheet (crops: true)"),
]  # fmt: skip


def of_images(setting: Setting, folder: Path) -> tuple[str, str]:
    """Find the fields of a collection without a sheet among files."""
    files, given = setting.given
    with chdir(folder):
        for name in files:
            Path(name).parent.mkdir(parents=True, exist_ok=True)
            Path(name).touch()

        def find() -> str:
            scan = scan_collection("new", complete({"collections": {"new": yaml.safe_load(given)}}))
            return ", ".join(row.id for row in scan.rows)

        return told(find)


_FILES = ("P1_A1_w1.TIF", "P1_A1_w2.TIF", "P1_A1_w3.TIF", "P1_A1_w4.TIF")
_CHANNELS = "channels: {red: 1, green: 2, blue: 3, yellow: 4}"
_IMAGES = "config key collections.new.images: "
IMAGES = [
    Setting("Names with the channel", (_FILES, f"images: '{{plate}}_{{well}}_w{{channel}}.tif'\n{_CHANNELS}"), "accepted", "P1_A1"),
    Setting("A hidden file beside", (("._P1_A1_w1.TIF", *_FILES), f"images: '{{plate}}_{{well}}_w{{channel}}.tif'\n{_CHANNELS}"), "accepted", "P1_A1"),
    Setting("Files of a fifth channel", (("P1_A1_w5.TIF", *_FILES), f"images: '{{plate}}_{{well}}_w{{channel}}.tif'\n{_CHANNELS}"), "accepted", "P1_A1"),
    Setting("A thumbnail beside", (("P1_A1_w1_thumb.TIF", *_FILES), f"images: '{{plate}}_{{well}}_w{{channel}}*.tif'\n{_CHANNELS}"), "rejected", f"{_IMAGES}'{{plate}}_{{well}}_w{{channel}}*.tif' finds two files for red of one field, P1_A1_w1.TIF and P1_A1_w1_thumb.TIF; make the pattern narrower, such as by [!_]* or [0-9A-F]* in place of *, or move one of the files"),
    Setting("A folder that there is not", (_FILES, f"images: 'raw/{{plate}}_{{well}}_w{{channel}}.tif'\n{_CHANNELS}"), "rejected", "collection new: no file is found by 'raw/{plate}_{well}_w{channel}.tif': in the working folder nothing matches raw; it has P1_A1_w1.TIF, P1_A1_w2.TIF, P1_A1_w3.TIF, P1_A1_w4.TIF"),
    Setting("Names of another form", (_FILES, f"images: '{{plate}}-{{well}}_w{{channel}}.tif'\n{_CHANNELS}"), "rejected", "collection new: no file is found by '{plate}-{well}_w{channel}.tif': in the working folder nothing matches {plate}-{well}_w{channel}.tif; it has P1_A1_w1.TIF, P1_A1_w2.TIF, P1_A1_w3.TIF, P1_A1_w4.TIF"),
    Setting("A channel that no file has", (_FILES, "images: '{id}_w{channel}.tif'\nchannels: {red: 1, green: 2, blue: 3, yellow: 5}"), "rejected", "collection new: 1 of 4 files is missing: P1_A1_w5.tif; 1 of 1 field lacks one: is the pattern right, or is there no yellow (channels: {yellow: null})?"),
    Setting("Two fields of one ID", (("P/1_A.tif", "P_1/A.tif"), f"images: '{{plate}}/{{well}}.tif'\n{_CHANNELS}"), "rejected", "collection new: P/1_A.tif and P_1/A.tif are of different fields, but both have the ID P_1_A; use a pattern whose parts, or whose part {id}, give each its own"),
    Setting("A pattern for one file", (_FILES, f"images: P1_A1_w1.TIF\n{_CHANNELS}"), "rejected", f"{_IMAGES}'P1_A1_w1.TIF' has no part that tells fields apart, such as {{id}} or {{well}}; add one, or list the fields in a sheet"),
    Setting("A pattern without colour", (_FILES, "images: '{id}.tif'"), "rejected", f"{_IMAGES}'{{id}}.tif' lacks the placeholder {{colour}}, or the collection the key channels, if each file holds all colours"),
    Setting("A pattern with the channel and no channels", (_FILES, "images: '{id}_w{channel}.tif'"), "rejected", f"{_IMAGES}'{{id}}_w{{channel}}.tif' has {{channel}}, but the collection has no key channels, which says what to put there"),
    Setting("Two parts beside each other", (_FILES, f"images: '{{plate}}{{well}}.tif'\n{_CHANNELS}"), "rejected", f"{_IMAGES}in '{{plate}}{{well}}.tif', nothing says where {{plate}} ends in {{plate}}{{well}}; write the text between them, or list the fields in a sheet"),
    Setting("A part beside *", (_FILES, f"images: '*{{well}}.tif'\n{_CHANNELS}"), "rejected", f"{_IMAGES}in '*{{well}}.tif', nothing says where {{well}} begins in *{{well}}; write the text between them, or list the fields in a sheet"),
    Setting("A part without a name", (_FILES, f"images: '{{}}.tif'\n{_CHANNELS}"), "rejected", f"{_IMAGES}'{{}}.tif' has {{}}, which is not a name; write such as {{plate}} or {{root}}, {{id}}, {{colour}}, {{channel}}, {{time}}, {{z}}"),
    Setting("A part with a format", (_FILES, f"images: '{{id!r}}.tif'\n{_CHANNELS}"), "rejected", f"{_IMAGES}'{{id!r}}.tif' has more than a name between the braces of {{id}}"),
    Setting("A known part in another spelling", (_FILES, "images: '{id}_{color}.tif'"), "rejected", f"{_IMAGES}'{{id}}_{{color}}.tif' has {{color}}; write {{colour}}"),
    Setting("Colour and channel", (_FILES, f"images: {{red: '{{id}}_{{colour}}_{{channel}}', green: x, blue: x, yellow: x}}\n{_CHANNELS}"), "rejected", f"{_IMAGES[:-2]}.red: '{{id}}_{{colour}}_{{channel}}' has both {{colour}} and {{channel}}; leave one of them out"),
    Setting("Patterns with the channel and without it", (_FILES, f"images: ['{{id}}_w{{channel}}.tif', '{{id}}.tif']\n{_CHANNELS}"), "rejected", f"{_IMAGES}'{{id}}.tif' has not the same one of {{colour}} and {{channel}} as '{{id}}_w{{channel}}.tif'; give both the same"),
    Setting("Patterns of different parts", (_FILES, "images: ['{id}_{colour}.tif', '{well}_{colour}.tif']"), "rejected", f"{_IMAGES}'{{id}}_{{colour}}.tif' has the part {{id}}, but '{{well}}_{{colour}}.tif' has not; give both the same parts, or write * in its place"),
    Setting("Times without the key", (_FILES, "images: '{id}_t{time}_{colour}.tif'"), "rejected", f"{_IMAGES}'{{id}}_t{{time}}_{{colour}}.tif' has {{time}}; say by the key time which number there is read, or write * or a number"),
    Setting("Planes along z without the key", (_FILES, "images: '{id}_z{z}_{colour}.tif'"), "rejected", f"{_IMAGES}'{{id}}_z{{z}}_{{colour}}.tif' has {{z}}; say by the key project which number there is read, or how the planes are joined, or write * or a number"),
    Setting("Planes along z of some colours alone", (_FILES, "images: {red: '{id}_red.tif', green: '{id}_z{z}_w2.tif', blue: '{id}_z{z}_w1.tif', yellow: '{id}_z{z}_w4.tif'}\nproject: max"), "rejected", f"{_IMAGES[:-2]}.red: '{{id}}_red.tif' lacks {{z}}, which another colour has"),
    Setting("An antibody of two spellings in names", (("HPA1_1.tif", "hpa1_2.tif"), f"images: '{{antibody}}_{{n}}.tif'\n{_CHANNELS}"), "warned", "collection new: the antibody hpa1 differs from HPA1 only in case, blanks, _, -, leading zeros or .0, and is read as a different one"),
    Setting("A part with the name of a column of hpaloc", (("1_1.tif",), f"images: '{{row}}_{{column}}.tif'\n{_CHANNELS}"), "warned", "collection new: the column row is copied as sheet_row"),
]  # fmt: skip


def of_training(setting: Setting, folder: Path) -> tuple[str, str]:
    """Plan a training on a sheet, with changes to the configuration."""
    rows, given = setting.given
    with chdir(folder):
        Path("train.csv").write_text(rows)

        def check() -> object:
            filled = complete({"collections": COLLECTIONS, **(yaml.safe_load(given) or {})})
            check_training(filled)
            of_sheet = read_sheet("train.csv", labels=True)
            scan = with_columns("train", Scan(of_sheet, {}), filled)
            check_rows("train", scan, filled)
            if "interpretation" in given:
                check_studied({"train": scan}, ["train"], filled)
            return ""

        return tried(check)


NEEDS_TWO = "and a split into training and validation needs two groups; add "
TRAININGS = [
    Setting("Two fields of two antibodies", ("ID,Label,antibody\na,1,A\nb,1,B\n", ""), "accepted"),
    Setting("One antibody", ("ID,Label,antibody\na,1,A\nb,2,A\n", ""), "rejected", f"collection train: all 2 training fields have the antibody A, {NEEDS_TWO}fields of another antibody, or set curation.validation_fraction: 0 (no validation) or curation.group_by: [duplicates] (an antibody is then in both parts)"),
    Setting("One antibody, grouped by near-duplicates alone", ("ID,Label,antibody\na,1,A\nb,2,A\n", "curation: {group_by: [duplicates]}"), "accepted"),
    Setting("One antibody and no validation", ("ID,Label,antibody\na,1,A\nb,2,A\n", "curation: {validation_fraction: 0}"), "accepted"),
    Setting("One antibody and a field without one", ("ID,Label,antibody\na,1,A\nb,2,\n", ""), "accepted"),
    Setting("One field", ("ID,Label\na,1\n", ""), "rejected", f"collection train: there is one training field, {NEEDS_TWO}more fields, or set curation.validation_fraction: 0 (no validation)"),
    Setting("One field of one label among several of many", ("ID,Label\na,1\nb,1|2\nc,0|3\n", ""), "rejected", f"collection train: there is one training field, {NEEDS_TWO}more fields, or set curation.validation_fraction: 0 (no validation)"),
    Setting("One antibody among the fields of one label", ("ID,Label,antibody\na,1,A\nb,2,A\nc,1|2,B\n", ""), "rejected", f"collection train: all 2 training fields have the antibody A, {NEEDS_TWO}fields of another antibody, or set curation.validation_fraction: 0 (no validation) or curation.group_by: [duplicates] (an antibody is then in both parts)"),
    Setting("Several labels in every row", ("ID,Label\na,1|2\nb,0|16\n", ""), "rejected", "collection train: every field has several labels, and curation.labels: single trains on fields with one; set curation.labels: all"),
    Setting("Several labels in every row, all of them taken", ("ID,Label\na,1|2\nb,0|16\n", "curation: {labels: all}"), "accepted"),
    Setting("Fields of antibodies that are not known", ("ID,Label,antibody\na,1,NA\nb,2,unknown\nc,1,N/A\n", ""), "accepted"),
    Setting("Negative fields alone, named with a blank and in NFD", ("ID,Label\né1,18\né2,18\n", "curation: {negatives: {negative_fields: false, external: 'e\u0301* '}}"), "accepted"),
    Setting("Negative fields alone, which are left out", ("ID,Label\na,18\nb,18\n", "curation: {negatives: {negative_fields: false}}"), "rejected", "collection train: every field that could train is labelled 18 (Negative), and curation.negatives.negative_fields: false leaves them out"),
    Setting("A split that tears an antibody apart", ("ID,Label,antibody,split\na,1,A,train\nb,1,A,validation\nc,1,B,\n", ""), "rejected", "collection train: the column split puts a and b of the antibody A into different parts; give them the same part, or remove antibody from curation.group_by"),
    Setting("One patient", ("ID,Label,patient\na,1,P1\nb,2,P1\n", "curation: {group_by: [antibody, patient]}"), "rejected", f"collection train: all 2 training fields have the patient P1, {NEEDS_TWO}fields of another patient, or set curation.validation_fraction: 0 (no validation) or remove patient from curation.group_by"),
    Setting("Patients that are not known", ("ID,Label,patient\na,1,NA\nb,2,NA\n", "curation: {group_by: [patient]}"), "rejected", "config key curation.group_by: the sheet of collection train has no values of patient; add them, or remove patient from curation.group_by"),
    Setting("Groups by cell lines that no field has", ("ID,Label,cell_line\na,1,\nb,2,NA\n", "curation: {group_by: [antibody, cell_line]}"), "rejected", "config key curation.group_by: the sheet of collection train has no values of cell_line; add them, or remove cell_line from curation.group_by"),
    Setting("Groups by cell lines of a sheet without the column", ("ID,Label\na,1\nb,2\n", "curation: {group_by: [cell_line]}"), "rejected", "config key curation.group_by: the sheet of collection train has no values of cell_line; add them, or remove cell_line from curation.group_by"),
    Setting("Groups by the column split", ("ID,Label,split\na,1,train\nb,2,validation\n", "curation: {group_by: [split]}"), "rejected", "config key curation.group_by: the sheet of collection train: 'split' cannot be used to group fields (known: duplicates, field)"),
    Setting("Groups by a column that is nearly one of the sheet", ("ID,Label,patient\na,1,P1\nb,2,P2\n", "curation: {group_by: [patent]}"), "rejected", "config key curation.group_by: the sheet of collection train has no column 'patent'; did you mean patient? (known: patient, duplicates, field)"),
    Setting("Groups by a column of the name of a criterion", ("ID,Label,duplicates\na,1,x\nb,2,x\n", "curation: {group_by: [duplicates, sheet_duplicates]}"), "rejected", f"collection train: all 2 training fields have the sheet_duplicates x, {NEEDS_TWO}fields of another sheet_duplicates, or set curation.validation_fraction: 0 (no validation) or remove sheet_duplicates from curation.group_by"),
    Setting("Fields that antibodies and patients connect", ("ID,Label,antibody,patient\na,1,A,P1\nb,2,B,P1\nc,1,B,P2\n", "curation: {group_by: [antibody, patient]}"), "rejected", f"collection train: all 3 training fields are in one group by antibody and patient, {NEEDS_TWO}fields of another group, or set curation.validation_fraction: 0 (no validation) or remove one of these from curation.group_by"),
    Setting("A split that tears a patient apart", ("ID,Label,patient,split\na,1,P1,train\nb,1,P1,validation\nc,1,P2,\n", "curation: {group_by: [patient]}"), "rejected", "collection train: the column split puts a and b of the patient P1 into different parts; give them the same part, or remove patient from curation.group_by"),
    Setting("A split that tears apart what antibodies and patients connect", ("ID,Label,antibody,patient,split\na,1,A,P1,train\nb,1,A,P2,\nc,1,B,P2,validation\nd,1,C,P3,\n", "curation: {group_by: [antibody, patient]}"), "rejected", "collection train: the column split puts a and c of one group by antibody and patient into different parts; give them the same part, or remove one of these from curation.group_by"),
    Setting("Groups by a column that the sheet lacks", ("ID,Label,Patient\na,1,P1\nb,2,P2\n", "curation: {group_by: [patient]}"), "rejected", "config key curation.group_by: the sheet of collection train has no column 'patient'; did you mean Patient? (known: Patient, duplicates, field)"),
    Setting("A split without a validation part", ("ID,Label,split\na,1,train\nb,1,train\n", ""), "rejected", "collection train: the column split leaves the part validation without fields; name some, or leave cells of the column empty"),
    Setting("A split without a training part", ("ID,Label,split\na,1,validation\nb,1,validation\n", "curation: {validation_fraction: 0}"), "rejected", "collection train: the column split leaves the part train without fields; name some, or leave cells of the column empty"),
    Setting("A split in which every row trains, and no validation", ("ID,Label,split\na,1,train\nb,1,train\n", "curation: {validation_fraction: 0}"), "accepted"),
    Setting("A class held out that no field has", ("ID,Label\na,1\nb,2\nc,3\n", "interpretation: {held_out: [1, 11]}"), "rejected", "config key interpretation.held_out: no field is labelled 11 (Mitotic spindle); leave it out"),
    Setting("A split in which every antibody with a part trains", ("ID,Label,antibody,split\na,1,A,train\nb,1,A,\nc,1,B,train\nd,1,B,\n", ""), "rejected", "collection train: the column split leaves the part validation without fields; name some, or leave cells of the column empty"),
    Setting("A split in which every antibody with a part validates", ("ID,Label,antibody,split\na,1,A,validation\nb,1,A,\nc,1,B,validation\n", ""), "rejected", "collection train: the column split leaves the part train without fields; name some, or leave cells of the column empty"),
    Setting("A split that leaves one antibody without a part", ("ID,Label,antibody,split\na,1,A,train\nb,1,A,\nc,1,B,\n", ""), "accepted"),
    Setting("A study of fields with several labels", ("ID,Label\na,1|2\nb,0|16\n", "curation: {labels: all}\ninterpretation: {cells: 100}"), "rejected", "config key predict.collections: interpret studies cells of one known location, but all cells of train have several labels; predict a collection that has fields with one label"),
    Setting("A class held out that is never alone", ("ID,Label\na,1\nb,2|3\nc,4\n", "curation: {labels: all}\ninterpretation: {held_out: [1, 3]}"), "rejected", "config key interpretation.held_out: no field is labelled 3 (Nucleoli fibrillar center) alone; leave it out"),
    Setting("Classes held out of all fields that train", ("ID,Label,split\na,1,train\nb,2,train\nc,3,validation\n", "interpretation: {held_out: [1, 2]}"), "rejected", "config key interpretation.held_out: every group of training fields of the collection train has one of these classes, so none is left to train on; hold out fewer classes"),
    Setting("All classes held out", ("ID,Label\na,1\nb,2\n", "interpretation: {held_out: [1, 2]}"), "rejected", "config key interpretation.held_out: every group of fields of the collection train has one of these classes, so none is left to train on; hold out fewer classes"),
    Setting("Classes held out of all antibodies", ("ID,Label,antibody\na,1,A\nb,3,A\nc,2,B\nd,3,B\n", "interpretation: {held_out: [1, 2]}"), "rejected", "config key interpretation.held_out: every group of fields of the collection train has one of these classes, so none is left to train on; hold out fewer classes"),
    Setting("All but Negative held out, which is left out", ("ID,Label\na,1\nb,2\nc,18\n", "interpretation: {held_out: [1, 2]}\ncuration: {negatives: {negative_fields: false}}"), "rejected", "config key interpretation.held_out: every group of fields of the collection train has one of these classes, so none is left to train on; hold out fewer classes"),
    Setting("Softmax and fields of several labels", ("ID,Label\na,1|2\nb,0\n", "train: {head: softmax}\ncuration: {labels: all}"), "rejected", "config key train.head: softmax needs exactly one location a cell; use sigmoid or curation.labels: single"),
    Setting("Softmax and fields of several labels, which are left out", ("ID,Label\na,1|2\nb,0\nc,1\n", "train: {head: softmax}"), "accepted"),
    Setting("Blends of one location", ("ID,Label\na,1\nb,1\nc,18\n", "train: {blends: 20}"), "rejected", "config key train.blends: blending needs cells of one location alone, from at least two locations"),
    Setting("Blends of one location alone and one that is never alone", ("ID,Label\na,1\nb,1|2\nc,1\n", "train: {blends: 20}\ncuration: {labels: all}"), "rejected", "config key train.blends: blending needs cells of one location alone, from at least two locations"),
]  # fmt: skip


class Code:
    """A call that runs when its pickle is read."""

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("code-was-run"),)


def changed_model(change: Callable[[Path], None], renewed: bool = True) -> Callable[[Path], None]:
    """Return a change of a model folder, with checksums that agree with it unless ``renewed`` is False."""

    def make(folder: Path) -> None:
        change(folder)
        path = folder / "checksums.json"
        if renewed and path.is_file():
            names = [name for name in json.loads(path.read_text()) if (folder / name).is_file()]
            path.write_text(json.dumps({name: digest(folder / name) for name in names}))

    return make


def written(name: str, content: bytes | str) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)

    return make


def edited(name: str, **values: object) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        (folder / name).write_text(json.dumps(json.loads((folder / name).read_text()) | values))

    return make


def without(name: str, key: str) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        kept = json.loads((folder / name).read_text())
        del kept[key]
        (folder / name).write_text(json.dumps(kept))

    return make


def with_code(folder: Path) -> None:
    """Put a layer with code into the architecture of a .keras file, which hpaloc does not read."""
    inside = json.dumps({"module": "builtins", "class_name": "eval", "config": {"expr": "open('code-was-run', 'w')"}})
    names = {}
    with zipfile.ZipFile(folder / "model.keras") as archive:
        names = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(folder / "model.keras", "w") as archive:
        for name, content in (names | {"config.json": inside.encode()}).items():
            archive.writestr(name, content)


def with_reading(of_network: str | None) -> Callable[[Path], None]:
    """Return a change that adds an empty reading of mixtures, of another network if its digest is given."""

    def make(folder: Path) -> None:
        (folder / "mixtures.json").write_text("{}")
        sums = {name: digest(folder / name) for name in ("checksums.json", "mixtures.json")}
        if of_network is not None:
            sums["checksums.json"] = of_network
        (folder / "mixtures.checksums.json").write_text(json.dumps(sums))

    return make


def with_fusion(measures: int) -> Callable[[Path], None]:
    """Return a change that adds a regression of cells that an edition measured, and a fusion with it."""

    def make(folder: Path) -> None:
        add_fusion(folder)
        edited("baselines.json", measures=measures)(folder)
        add_checksums(folder, "baselines.json")
        add_checksums(folder, "fusion.json", "baselines.json")

    return make


def of_model(setting: Setting, folder: Path) -> tuple[str, str]:
    """Check and load a model folder, `model` in the working directory, that was changed."""
    from hpaloc.mixtures.reading import load_reading
    from hpaloc.network.loading import load_folder

    with chdir(folder):
        setting.given(Path("model"))

        def load() -> object:
            check_model({"model": {"path": "model", "sha256": None}, "predict": {"collections": []}})
            load_folder(Path("model"))
            load_reading(Path("model"))
            return "the weights, and nothing else of the file"

        return tried(load)


KERAS = "model/model.keras does not hold the network that config.json describes: "
MODELS = [
    Setting("A model folder that is missing a file", lambda folder: (folder / "thresholds.json").unlink(), "rejected", "config key model.path: model is not the folder of a trained model (thresholds.json is missing)"),
    Setting("A model that was changed after its checksums", changed_model(written("model.keras", b"other"), renewed=False), "rejected", "model/model.keras was changed after the model folder was written (checksums.json)"),
    Setting("Thresholds that were changed after the checksums", changed_model(edited("thresholds.json", x=1), renewed=False), "rejected", "model/thresholds.json was changed after the model folder was written (checksums.json)"),
    Setting("Checksums that are not JSON", written("checksums.json", "{"), "rejected", "model/checksums.json is not a table of digests"),
    Setting("Checksums that are a list", written("checksums.json", "[]"), "rejected", "model/checksums.json is not a table of digests"),
    Setting("Checksums that name a file elsewhere", edited("checksums.json", **{"../secret": "0"}), "rejected", "model/checksums.json names ../secret, which is not a file of the folder"),
    Setting("Checksums that leave the model out", without("checksums.json", "model.keras"), "rejected", "model/checksums.json does not list model.keras"),
    Setting("A text as model.keras", changed_model(written("model.keras", "no model")), "rejected", KERAS + "File is not a zip file"),
    Setting("A pickle with code in it as model.keras", changed_model(written("model.keras", pickle.dumps(Code()))), "rejected", KERAS + "File is not a zip file"),
    Setting("Code in the architecture of model.keras", changed_model(with_code), "accepted", "the weights, and nothing else of the file"),
    Setting("config.json that is not JSON", changed_model(written("config.json", "no")), "rejected", "model/config.json: is not JSON (Expecting value: line 1 column 1 (char 0))"),
    Setting("config.json without the channels", changed_model(without("config.json", "channels")), "rejected", "model/config.json: the key 'channels' is missing"),
    Setting("config.json with an unknown head", changed_model(edited("config.json", head="tanh")), "rejected", "model/config.json: head is 'tanh', not one of sigmoid, softmax"),
    Setting("config.json with a colour that is none", changed_model(edited("config.json", channels=["green", "violet"])), "rejected", "model/config.json: channels must be distinct colours out of red, green, blue, yellow, got ['green', 'violet']"),
    Setting("config.json with text for the channels", changed_model(edited("config.json", channels="green")), "rejected", "model/config.json: channels is 'green', not a list of colours"),
    Setting("config.json with a dropout of 2", changed_model(edited("config.json", dropout=[0.5, 2])), "rejected", "model/config.json: dropout is [0.5, 2], not two rates from 0 to below 1"),
    Setting("A model of version 0.1, whose tiles were scaled otherwise", changed_model(without("config.json", "preprocessing")), "rejected", "model/config.json: the network was trained on tiles of edition 1 of the levels, but tiles are scaled by edition 2 now; train it again, or use the hpaloc that made it"),
    Setting("A model of a later edition of the levels", changed_model(edited("config.json", preprocessing={"levels": 3})), "rejected", "model/config.json: the network was trained on tiles of edition 3 of the levels, but tiles are scaled by edition 2 now; train it again, or use the hpaloc that made it"),
    Setting("config.json with a network of 10⁹ units", changed_model(edited("config.json", units=10**9)), "rejected", "model/config.json: units is 1000000000, not a whole number from 1 to 65536"),
    Setting("config.json with another input size than a number", changed_model(edited("config.json", input_size="big")), "rejected", "model/config.json: input_size is 'big', not a whole number from 32 to 1024"),
    Setting("config.json with other classes", changed_model(edited("config.json", classes=["a"])), "rejected", "model/config.json: its classes are not the 19 of hpaloc"),
    Setting("config.json of another network", changed_model(edited("config.json", units=64)), "rejected", KERAS + "the dense layer is not of shape 2048 x 64"),
    Setting("thresholds.json without thresholds", changed_model(without("thresholds.json", "thresholds")), "rejected", "model/thresholds.json: the key 'thresholds' is missing"),
    Setting("thresholds.json with text for a threshold", changed_model(edited("thresholds.json", thresholds={"Nucleoli": "high"})), "rejected", "model/thresholds.json: thresholds has 'high' for 'Nucleoli', not a number for a known location"),
    Setting("thresholds.json with NaN for a threshold", changed_model(edited("thresholds.json", thresholds={"Nucleoli": float("nan")})), "rejected", "model/thresholds.json: thresholds has nan for 'Nucleoli', not a number for a known location"),
    Setting("thresholds.json with a list of leaned thresholds", changed_model(edited("thresholds.json", leaned_thresholds=[])), "rejected", "model/thresholds.json: leaned_thresholds is [], not a table of the weights 0.1 to 1.0"),
    Setting("thresholds.json with text for a leaned threshold", changed_model(edited("thresholds.json", leaned_thresholds={"0.5": {"Nucleoli": "high"}})), "rejected", "model/thresholds.json: leaned_thresholds.0.5 has 'high' for 'Nucleoli', not a number for a known location"),
    Setting("thresholds.json without the leaned thresholds of a weight", changed_model(edited("thresholds.json", leaned_thresholds={"0.5": None})), "rejected", "model/thresholds.json: leaned_thresholds.0.5 is None, not a table of locations"),
    Setting("thresholds.json with a temperature of 0", changed_model(edited("thresholds.json", temperature=0)), "rejected", "model/thresholds.json: temperature is 0, not a number above 0"),
    Setting("thresholds.json with an unknown rule for Negative", changed_model(edited("thresholds.json", negative_rule="least")), "rejected", "model/thresholds.json: negative_rule is 'least', not one of complement, network, mean"),
    Setting("thresholds.json with text in a prototype", changed_model(edited("thresholds.json", prototypes={"Nucleoli": ["a"] * 19})), "rejected", "model/thresholds.json: the prototype of 'Nucleoli' is not 19 numbers for a known location"),
    Setting("thresholds.json with a list of prototypes", changed_model(edited("thresholds.json", prototypes=[])), "rejected", "model/thresholds.json: prototypes is [], not a table of locations"),
    Setting("A reading of mixtures without its checksums", written("mixtures.json", "{}"), "rejected", "model/mixtures.checksums.json is missing"),
    Setting("Checksums of a reading of mixtures that is not there", written("mixtures.checksums.json", "{}"), "rejected", "model/mixtures.checksums.json does not list checksums.json"),
    Setting("A reading of mixtures beside another network", with_reading("0" * 64), "rejected", "model/checksums.json was changed after the model folder was written (mixtures.checksums.json)"),
    Setting("A reading of mixtures that is empty", with_reading(None), "rejected", "model/mixtures.json: mixtures.classes is None, not different locations"),
    Setting("Regressions of another edition of the measurements", with_fusion(3), "rejected", "model/baselines.json: the regressions learned from cells that were measured by edition 3, but cells are measured by edition 2 now; train the model again, or use the hpaloc that made it"),
]  # fmt: skip


def of_weights(setting: Setting, folder: Path) -> tuple[str, str]:
    """Start a training from a weights file, or ready the weights of the segmentation's networks."""
    from hpaloc.network.resnet import classifier
    from hpaloc.network.starting_weights import load_weights

    with chdir(folder):
        name, content = setting.given[:2]
        if content is not None:
            Path(name).write_bytes(content)
        if len(setting.given) == 2:
            return tried(lambda: load_weights(classifier(("green",), "sigmoid", 32), ("green",), name))
        # Known once; then the file is another one.
        ready(NetworkWeights(name, name))
        Path(name).write_bytes(setting.given[2])
        return tried(lambda: ready(NetworkWeights(name, name)))


WEIGHTS = [
    Setting("train.weights that is missing", ("absent.h5", None), "rejected", "config key train.weights: no such file: absent.h5"),
    Setting("train.weights that is a text", ("text.h5", b"no weights"), "rejected", "config key train.weights: text.h5 is not a file of weights: Unable to synchronously open file (file signature not found)"),
    Setting("train.weights that is a pickle with code in it", ("code.h5", pickle.dumps(Code())), "rejected", "config key train.weights: code.h5 is not a file of weights: Unable to synchronously open file (file signature not found)"),
    Setting("train.weights of another ending", ("weights.pkl", pickle.dumps(Code())), "rejected", "config key train.weights: weights.pkl is neither a .keras nor a .h5 file"),
    Setting("train.weights that is a NumPy file", ("weights.npy", np.zeros(3).tobytes()), "rejected", "config key train.weights: weights.npy is neither a .keras nor a .h5 file"),
    Setting("Segmentation weights that are not those of the first use", ("nuclei.pth", b"first", b"second"), "rejected", "nuclei.pth: sha256 16367aacb67a4a017c8da8ab95682ccb390863780f7114dda0a0e0c55644c7c4 (6 bytes) is not the recorded a7937b64b8caa58f03721bb6bacf5c78cb235febe0e70b1b84cd99541461a08e (5 bytes); nothing was loaded. If the change is meant, delete nuclei.pth.sha256.json"),
]  # fmt: skip
