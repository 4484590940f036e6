"""Sheets, configurations, models and weights that are wrong, or look so, and what each of them gets."""

# ruff: noqa: E501 - one input a line, however long its sentence

import json
import pickle
import zipfile
from collections.abc import Callable
from contextlib import chdir
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from bad_fields import slug

from hpaloc.config import check_model, check_training, complete
from hpaloc.files import digest
from hpaloc.segmentation.weights import WeightsError, ready
from hpaloc.sheet import read_sheet


@dataclass(frozen=True)
class Setting:
    """One input: what it is, the input itself, and what it gets: the error's sentence, or what is read of it."""

    what: str
    given: Any
    outcome: str
    message: str = ""

    @property
    def id(self) -> str:
        return slug(self.what)


def tried(call: Callable[[], object]) -> tuple[str, str]:
    """Return ("rejected", the error's sentence) or ("accepted", what came of it)."""
    try:
        return "accepted", str(call())
    except ValueError as error:
        return "rejected", str(error)
    except WeightsError as error:
        return "rejected", str(error)


def of_sheet(setting: Setting, folder: Path) -> tuple[str, str]:
    """Read a sheet with labels; of one that is accepted return the ids and labels."""
    with chdir(folder):
        path = Path("sheet.csv")
        if setting.given is not None:
            path.write_bytes(setting.given if isinstance(setting.given, bytes) else setting.given.encode())

        def read() -> object:
            rows = read_sheet(path, labels=True)
            return ", ".join(f"{row.id}: {'|'.join(map(str, row.labels or ()))}" for row in rows)

        outcome, text = tried(read)
        path.unlink(missing_ok=True)
        return outcome, text


SHEETS = [
    Setting("Byte-order mark", "\ufeffID,Label\na,1\n", "accepted", "a: 1"),
    Setting("CRLF line ends", "ID,Label\r\na,1\r\nb,2\r\n", "accepted", "a: 1, b: 2"),
    Setting("Old Macintosh line ends", "ID,Label\ra,1\rb,2\r", "accepted", "a: 1, b: 2"),
    Setting("Semicolons for commas", "ID;Label\na;1\n", "accepted", "a: 1"),
    Setting("Tabs for commas", "ID\tLabel\na\t1\n", "accepted", "a: 1"),
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
    Setting("An id twice", "ID,Label\na,1\nb,2\na,1\n", "rejected", "sheet sheet.csv, line 4 (ID a): ID a stands already in line 2"),
    Setting("An id with a slash", "ID,Label\na/b,1\n", "rejected", "sheet sheet.csv, line 2 (ID a/b): the ID 'a/b' cannot be a file name (slash, leading dot or control character)"),
    Setting("An id with a backslash", "ID,Label\na\\b,1\n", "rejected", "sheet sheet.csv, line 2 (ID a\\b): the ID 'a\\\\b' cannot be a file name (slash, leading dot or control character)"),
    Setting("An id that climbs out (../)", "ID,Label\n../../etc/passwd,1\n", "rejected", "sheet sheet.csv, line 2 (ID ../../etc/passwd): the ID '../../etc/passwd' cannot be a file name (slash, leading dot or control character)"),
    Setting("The id ..", "ID,Label\n..,1\n", "rejected", "sheet sheet.csv, line 2 (ID ..): the ID '..' cannot be a file name (slash, leading dot or control character)"),
    Setting("An id with a leading dot", "ID,Label\n.a,1\n", "rejected", "sheet sheet.csv, line 2 (ID .a): the ID '.a' cannot be a file name (slash, leading dot or control character)"),
    Setting("An id with a line break", 'ID,Label\n"a\nb",1\n', "rejected", "sheet sheet.csv, line 3 (ID 'a\\nb'): the ID 'a\\nb' cannot be a file name (slash, leading dot or control character)"),
    Setting("An id with a terminal's escape", "ID,Label\na\x1b[2J,1\n", "rejected", "sheet sheet.csv, line 2 (ID 'a\\x1b[2J'): the ID 'a\\x1b[2J' cannot be a file name (slash, leading dot or control character)"),
    Setting("An id with a NUL", "ID,Label\na\0b,1\n", "rejected", "sheet sheet.csv, line 2 (ID 'a\\x00b'): the ID 'a\\x00b' cannot be a file name (slash, leading dot or control character)"),
    Setting("An id of 300 letters", f"ID,Label\n{'a' * 300},1\n", "rejected", f"sheet sheet.csv, line 2 (ID {'a' * 40}…): the ID '{'a' * 40}'… is longer than 200 bytes"),
    Setting("An empty id", "ID,Label\n,1\n", "rejected", "sheet sheet.csv, line 2: the ID is empty"),
    Setting("Label 19", "ID,Label\na,19\n", "rejected", "sheet sheet.csv, line 2 (ID a): unknown label '19' (labels are integers from 0 to 18, joined by |)"),
    Setting("Label -1", "ID,Label\na,-1\n", "rejected", "sheet sheet.csv, line 2 (ID a): unknown label '-1' (labels are integers from 0 to 18, joined by |)"),
    Setting("Label 1.0", "ID,Label\na,1.0\n", "rejected", "sheet sheet.csv, line 2 (ID a): unknown label '1.0' (labels are integers from 0 to 18, joined by |)"),
    Setting("A label by name", "ID,Label\na,Nucleoli\n", "rejected", "sheet sheet.csv, line 2 (ID a): unknown label 'Nucleoli' (labels are integers from 0 to 18, joined by |)"),
    Setting("A superscript as label", "ID,Label\na,²\n", "rejected", "sheet sheet.csv, line 2 (ID a): unknown label '²' (labels are integers from 0 to 18, joined by |)"),
    Setting("A blank label", "ID,Label\na,\n", "rejected", "sheet sheet.csv, line 2 (ID a): the label is empty"),
    Setting("A pixel size of 0", "ID,Label,pixel_size\na,1,0\n", "rejected", "sheet sheet.csv, line 2 (ID a): pixel_size '0' is no positive number of µm"),
    Setting("A pixel size of nan", "ID,Label,pixel_size\na,1,nan\n", "rejected", "sheet sheet.csv, line 2 (ID a): pixel_size 'nan' is no positive number of µm"),
    Setting("A pixel size with a decimal comma", "ID;Label;pixel_size\na;1;0,08\n", "rejected", "sheet sheet.csv, line 2 (ID a): pixel_size '0,08' is no positive number of µm"),
    Setting("No column ID", "name,Label\na,1\n", "rejected", "sheet sheet.csv: has no column ID (its header has name, Label)"),
    Setting("No column Label", "ID\na\n", "rejected", "sheet sheet.csv: has no column Label (its header has ID)"),
    Setting("Two columns ID", "ID,Label,ID\na,1,b\n", "rejected", "sheet sheet.csv: has 2 columns ID"),
    Setting("A row with too few values", "ID,Label\na\n", "rejected", "sheet sheet.csv, line 2: does not have 2 columns as the header has"),
    Setting("A row with too many values", "ID,Label\na,1,2\n", "rejected", "sheet sheet.csv, line 2: does not have 2 columns as the header has"),
    Setting("A quote that is not closed", 'ID,Label\n"a,1\nb,2\n', "rejected", "sheet sheet.csv, line 2: unexpected end of data"),
    Setting("A header and nothing else", "ID,Label\n", "rejected", "sheet sheet.csv: holds no field"),
    Setting("An empty sheet", "", "rejected", "sheet sheet.csv: has no column ID (its header has nothing)"),
    Setting("UTF-16 (Excel's Unicode text)", "ID,Label\na,1\n".encode("utf-16"), "rejected", "sheet sheet.csv: is no UTF-8 text (byte 0); save it as CSV UTF-8"),
    Setting("Latin-1", "ID,Label\né,1\n".encode("latin-1"), "rejected", "sheet sheet.csv: is no UTF-8 text (byte 9); save it as CSV UTF-8"),
    Setting("An Excel workbook called .csv", b"PK\x03\x04\x14\x00\x06\x00\x08\x00\x00\x00!\x00\xb5", "rejected", "sheet sheet.csv: is no UTF-8 text (byte 14); save it as CSV UTF-8"),
    Setting("A sheet that is missing", None, "rejected", "sheet sheet.csv: no such file"),
]  # fmt: skip


COLLECTIONS = {"train": {"sheet": "train.csv", "images": "{id}_{colour}.png", "labels": True}}


def of_config(setting: Setting, folder: Path) -> tuple[str, str]:
    """Complete a configuration, written as YAML, and check it for training."""
    given = yaml.safe_load(setting.given)

    def check() -> object:
        filled = complete({"collections": COLLECTIONS, **given} if isinstance(given, dict) else given)
        check_training(filled)
        return ""

    return tried(check)


CONFIGS = [
    Setting("Whole numbers with a point", "shards: 4.0\ntrain: {epochs: 1.0e+1}", "accepted"),
    Setting("An unknown key", "shard: 4", "rejected", "config: unknown key 'shard' (did you mean shards?)"),
    Setting("An unknown key below another", "train: {epoch: 3}", "rejected", "config key train: unknown key 'epoch' (did you mean epochs?)"),
    Setting("Text for a number", "shards: four", "rejected", "config key shards: 'four' is not of type integer"),
    Setting("A number in quotes", "shards: '4'", "rejected", "config key shards: '4' is not of type integer"),
    Setting("A broken number", "shards: 4.5", "rejected", "config key shards: 4.5 is not of type integer"),
    Setting("True for a number", "shards: true", "rejected", "config key shards: True is not of type integer"),
    Setting("A list for a section", "train: [1, 2]", "rejected", "config key train: [1, 2] is not of type object"),
    Setting("An empty section", "train:", "rejected", "config key train: None is not of type object"),
    Setting("No shards", "shards: 0", "rejected", "config key shards: 0 is less than the minimum of 1"),
    Setting("A pixel size below 0", "pixel_size: -0.08", "rejected", "config key pixel_size: -0.08 is less than or equal to the minimum of 0"),
    Setting("A pixel size that is no number (.nan)", "pixel_size: .nan", "rejected", "config key pixel_size: nan is no number to work with"),
    Setting("An infinite learning rate", "train: {learning_rate: {max: .inf}}", "rejected", "config key train.learning_rate.max: inf is no number to work with"),
    Setting("More than all fields rejected", "max_rejected_fraction: 5", "rejected", "config key max_rejected_fraction: 5 is greater than the maximum of 1"),
    Setting("A seed below 0", "seed: -1", "rejected", "config key seed: -1 is less than the minimum of 0"),
    Setting("An unknown backend", "segmentation: {backend: stardist}", "rejected", "config key segmentation.backend: 'stardist' is not one of watershed, hpacellseg, masks"),
    Setting("An unknown colour", "train: {channels: [red, violet]}", "rejected", "config key train.channels.1: 'violet' is not one of red, green, blue, yellow"),
    Setting("A colour twice", "train: {channels: [red, red]}", "rejected", "config key train.channels: ['red', 'red'] has non-unique elements"),
    Setting("No colour", "train: {channels: []}", "rejected", "config key train.channels: is empty"),
    Setting("Three views", "predict: {views: 3}", "rejected", "config key predict.views: 3 is not one of 1, 2, 4, 8"),
    Setting("The smallest cell above the largest", "curation: {min_cell_area: 500, max_cell_area: 50}", "rejected", "config key curation.min_cell_area: 500 is above max_cell_area, 50"),
    Setting("Tiles of 8 px", "tiles: {size: 8}", "rejected", "config key tiles.size: 8 is less than the minimum of 32"),
    Setting("All cells in the validation", "curation: {validation_fraction: 1}", "rejected", "config key curation.validation_fraction: 1 is greater than or equal to the maximum of 1"),
    Setting("A collection to predict that is not there", "predict: {collections: [tset]}", "rejected", "config key predict.collections: 'tset' is not among the collections (train)"),
    Setting("A collection to train on that is not there", "train: {collection: other}", "rejected", "config key train.collection: 'other' is not among the collections (train)"),
    Setting("No collections", "collections: {}", "rejected", "config key collections: is empty"),
    Setting("A collection without a sheet", "collections: {train: {images: x}}", "rejected", "config key collections.train: the key 'sheet' is needed"),
    Setting("A collection called ../x", "collections: {../x: {sheet: s, images: x}}", "rejected", "config key collections: the name '../x' is not of letters, digits, - and _"),
    Setting("A collection called 1 or no", "collections: {no: {sheet: s, images: x}}", "rejected", "config key collections: the key False is no text; quote it"),
    Setting("A list of patterns that is empty", "collections: {train: {sheet: s, images: []}}", "rejected", "config key collections.train.images: is empty"),
    Setting("Text and no keys", "just text", "rejected", "config: 'just text' is no table of keys"),
]  # fmt: skip


class Code:
    """What a pickle can hold: a call that is made when it is read."""

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


def of_model(setting: Setting, folder: Path) -> tuple[str, str]:
    """Check and load a model folder, `model` in the working directory, that was changed."""
    from hpaloc.network.loading import load_folder

    with chdir(folder):
        setting.given(Path("model"))

        def load() -> object:
            check_model({"model": {"path": "model"}})
            load_folder(Path("model"))
            return "the weights, and nothing else of the file"

        return tried(load)


KERAS = "model/model.keras does not hold the network that config.json describes: "
MODELS = [
    Setting("A model folder that is missing a file", lambda folder: (folder / "thresholds.json").unlink(), "rejected", "config key model.path: model is no folder of a trained model (thresholds.json is missing)"),
    Setting("A model that was changed after its checksums", changed_model(written("model.keras", b"other"), renewed=False), "rejected", "model/model.keras was changed after the model folder was written (checksums.json)"),
    Setting("Thresholds that were changed after the checksums", changed_model(edited("thresholds.json", x=1), renewed=False), "rejected", "model/thresholds.json was changed after the model folder was written (checksums.json)"),
    Setting("Checksums that are no JSON", written("checksums.json", "{"), "rejected", "model/checksums.json is no table of digests"),
    Setting("Checksums that are a list", written("checksums.json", "[]"), "rejected", "model/checksums.json is no table of digests"),
    Setting("Checksums that name a file elsewhere", edited("checksums.json", **{"../secret": "0"}), "rejected", "model/checksums.json names ../secret, which is no file of the folder"),
    Setting("Checksums that leave the model out", without("checksums.json", "model.keras"), "rejected", "model/checksums.json does not list model.keras"),
    Setting("A text as model.keras", changed_model(written("model.keras", "no model")), "rejected", KERAS + "File is not a zip file"),
    Setting("A pickle with code in it as model.keras", changed_model(written("model.keras", pickle.dumps(Code()))), "rejected", KERAS + "File is not a zip file"),
    Setting("Code in the architecture of model.keras", changed_model(with_code), "accepted", "the weights, and nothing else of the file"),
    Setting("config.json that is no JSON", changed_model(written("config.json", "no")), "rejected", "model/config.json: is no JSON (Expecting value: line 1 column 1 (char 0))"),
    Setting("config.json without the channels", changed_model(without("config.json", "channels")), "rejected", "model/config.json: the key 'channels' is missing"),
    Setting("config.json with an unknown head", changed_model(edited("config.json", head="tanh")), "rejected", "model/config.json: head is 'tanh', not one of sigmoid, softmax"),
    Setting("config.json with a colour that is none", changed_model(edited("config.json", channels=["green", "violet"])), "rejected", "model/config.json: channels must be distinct colours out of red, green, blue, yellow, got ['green', 'violet']"),
    Setting("config.json with text for the channels", changed_model(edited("config.json", channels="green")), "rejected", "model/config.json: channels is 'green', no list of colours"),
    Setting("config.json with a dropout of 2", changed_model(edited("config.json", dropout=[0.5, 2])), "rejected", "model/config.json: dropout is [0.5, 2], not two rates from 0 to below 1"),
    Setting("config.json with a network of 10⁹ units", changed_model(edited("config.json", units=10**9)), "rejected", "model/config.json: units is 1000000000, not a whole number from 1 to 65536"),
    Setting("config.json with another input size than a number", changed_model(edited("config.json", input_size="big")), "rejected", "model/config.json: input_size is 'big', not a whole number from 32 to 1024"),
    Setting("config.json with other classes", changed_model(edited("config.json", classes=["a"])), "rejected", "model/config.json: its classes are not the 19 of hpaloc"),
    Setting("config.json of another network", changed_model(edited("config.json", units=64)), "rejected", KERAS + "A total of 3 objects could not be loaded."),
    Setting("thresholds.json without thresholds", changed_model(without("thresholds.json", "thresholds")), "rejected", "model/thresholds.json: the key 'thresholds' is missing"),
    Setting("thresholds.json with text for a threshold", changed_model(edited("thresholds.json", thresholds={"Nucleoli": "high"})), "rejected", "model/thresholds.json: the threshold of 'Nucleoli' is 'high', no number of a known location"),
    Setting("thresholds.json with an unknown rule for Negative", changed_model(edited("thresholds.json", negative_rule="least")), "rejected", "model/thresholds.json: negative_rule is 'least', not one of complement, network, mean"),
    Setting("thresholds.json with text in a prototype", changed_model(edited("thresholds.json", prototypes={"Nucleoli": ["a"] * 19})), "rejected", "model/thresholds.json: the prototype of 'Nucleoli' is not 19 numbers of a known location"),
    Setting("thresholds.json with a list of prototypes", changed_model(edited("thresholds.json", prototypes=[])), "rejected", "model/thresholds.json: prototypes is [], no table of locations"),
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
            return tried(lambda: load_weights(classifier(("green",), "sigmoid", 32), ("green",), name) and "")
        # Known once; then the file is another one.
        ready({"weights": {"nuclei": name, "cells": name}})
        Path(name).write_bytes(setting.given[2])
        return tried(lambda: ready({"weights": {"nuclei": name, "cells": name}}))


WEIGHTS = [
    Setting("train.weights that is missing", ("absent.h5", None), "rejected", "train.weights: no such file: absent.h5"),
    Setting("train.weights that is a text", ("text.h5", b"no weights"), "rejected", "train.weights: cannot load text.h5 into Keras' ResNet50: Unable to synchronously open file (file signature not found)"),
    Setting("train.weights that is a pickle with code in it", ("code.h5", pickle.dumps(Code())), "rejected", "train.weights: cannot load code.h5 into Keras' ResNet50: Unable to synchronously open file (file signature not found)"),
    Setting("train.weights of another ending", ("weights.pkl", pickle.dumps(Code())), "rejected", "train.weights must be none, imagenet or a .keras or .h5 file, got weights.pkl"),
    Setting("train.weights that is a NumPy file", ("weights.npy", np.zeros(3).tobytes()), "rejected", "train.weights must be none, imagenet or a .keras or .h5 file, got weights.npy"),
    Setting("Segmentation weights that are not those of the first use", ("nuclei.pth", b"first", b"second"), "rejected", "nuclei.pth: sha256 16367aacb67a4a017c8da8ab95682ccb390863780f7114dda0a0e0c55644c7c4 (6 bytes) is not the recorded a7937b64b8caa58f03721bb6bacf5c78cb235febe0e70b1b84cd99541461a08e (5 bytes); nothing was unpickled. If the change is meant, delete nuclei.pth.sha256.json"),
]  # fmt: skip
