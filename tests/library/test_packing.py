"""Packed models: what is in the zip, and what is refused of one from elsewhere."""

import errno
import hashlib
import json
import shutil
import ssl
import subprocess
import zipfile
from contextlib import chdir
from pathlib import Path

import pandas as pd
import pytest
from failing_server import failing_server
from stand_in_models import write_packable

from hpaloc import unpacking
from hpaloc.config import ConfigError
from hpaloc.download import RetryPolicy
from hpaloc.network.folder import check_folder, check_network
from hpaloc.network.options import ModelError
from hpaloc.packing import pack_model
from hpaloc.planning.settings import check_model
from hpaloc.seen.record import read_seen
from hpaloc.unpacking import model_folder, provide_model

FILES = ("model.keras", "config.json", "thresholds.json", "checksums.json", "seen.npz", "seen.checksums.json")
QUICK = RetryPolicy(tries=3, first_wait=0.01, timeout=5)


@pytest.fixture
def packed(tmp_path):
    """Pack a stand-in of a model, scored on one collection."""
    return pack(tmp_path, "packed.zip")


def pack(folder, name, content=0, **metrics):
    model = write_packable(folder / "made", content)
    (folder / "card.md").write_text("# Model card\n")
    row = {
        "collection": "test",
        "level": "cell",
        "score": "accuracy",
        "value": 0.9,
        "low": 0.85,
        "high": 0.94,
        "n": 841,
    }
    scores = pd.DataFrame([] if metrics else [row], columns=list(row))
    scores.to_csv(folder / "scores.csv", index=False)
    (folder / "metrics.json").write_text(
        json.dumps(metrics or {"test": {"over_baseline": {"sentence": "the network beats its best baseline"}}})
    )
    tables = [folder / name for name in ("card.md", "scores.csv", "metrics.json")]
    pack_model(model, *tables, "CC BY-SA 4.0", folder / name)
    return folder / name


def changed(path, out, change):
    """Write a zip whose entries are those of another one, as ``change`` leaves them."""
    with zipfile.ZipFile(path) as old:
        entries = {name: old.read(name) for name in old.namelist()}
    change(entries)
    with zipfile.ZipFile(out, "w") as new:
        for name, content in entries.items():
            new.writestr(name, content)
    return out


def relisted(entries, change):
    listing = json.loads(entries["model/package.json"])
    change(listing)
    entries["model/package.json"] = json.dumps(listing).encode()


def test_a_packed_model_has_checksums_card_scores_and_licence(packed):
    with zipfile.ZipFile(packed) as archive:
        contents = {name.removeprefix("model/"): archive.read(name) for name in archive.namelist()}
    assert set(contents) == {*FILES, "card.md", "scores.json", "package.json"}
    listing = json.loads(contents.pop("package.json"))
    assert listing["files"] == {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    assert listing["licence_of_training_images"] == "CC BY-SA 4.0"
    card = contents["card.md"].decode()
    assert "| test | cell | accuracy | 0.900 | 0.850 to 0.940 | 841 |" in card
    assert "\ntest: the network beats its best baseline.\n" in card
    assert "CC BY-SA 4.0" in card


def test_a_card_says_why_there_are_no_scores(tmp_path):
    reason = "nothing is scored: no collection has labels"
    with zipfile.ZipFile(pack(tmp_path, "packed.zip", unscored=reason)) as archive:
        assert f"None: {reason}." in archive.read("model/card.md").decode()


def test_equal_models_are_equal_bytes(tmp_path, packed):
    assert pack(tmp_path, "again.zip").read_bytes() == packed.read_bytes()
    assert pack(tmp_path, "other.zip", content=1).read_bytes() != packed.read_bytes()


def test_a_zip_is_unpacked_once_and_again_when_it_is_another(tmp_path, packed):
    with chdir(tmp_path):
        provide_model("packed.zip", None)
        folder = Path(model_folder("packed.zip", None))
        check_folder(folder)
        assert (folder / "card.md").is_file()
        first = (folder / "model.keras").stat().st_mtime_ns
        provide_model("packed.zip", None)
        assert (folder / "model.keras").stat().st_mtime_ns == first
        pack(tmp_path, "packed.zip", content=1)
        provide_model("packed.zip", None)
        assert Path(model_folder("packed.zip", None)) != folder
        check_folder(Path(model_folder("packed.zip", None)))


def test_a_damaged_unpacked_model_can_be_unpacked_again(tmp_path, packed):
    config = {"model": {"path": "packed.zip", "sha256": None}, "predict": {"collections": []}}
    with chdir(tmp_path):
        provide_model("packed.zip", None)
        folder = Path(model_folder("packed.zip", None))
        for damage in ((folder / "config.json").unlink, lambda: (folder / "thresholds.json").write_text("{}")):
            damage()
            with pytest.raises(ConfigError, match=rf"; delete {folder}, and it is unpacked again$"):
                check_model(config)
            shutil.rmtree(folder)
            provide_model("packed.zip", None)


def test_a_model_comes_from_an_address_whose_server_fails(tmp_path, packed):
    content = packed.read_bytes()
    sha256 = hashlib.sha256(content).hexdigest()
    with failing_server({"/m.zip": content}) as server, chdir(tmp_path):
        server.tricks["/m.zip"] = [503, "cut short"]
        provide_model(f"{server.url}/m.zip", sha256, QUICK)
        folder = Path(model_folder(f"{server.url}/m.zip", sha256))
        check_folder(folder)
        asked = len(server.requests)
        provide_model(f"{server.url}/m.zip", sha256, QUICK)
        assert len(server.requests) == asked == 3
        assert sorted(path.name for path in folder.iterdir()) == sorted([*FILES, "card.md", "scores.json"])


@pytest.mark.parametrize(
    ("trick", "reason"),
    [
        ([404], "the server answered 404"),
        (["page"], "the response is not a zip file"),
        ([503] * 3, "(tried 3 times)"),
        (["redirect http://example.org/m.zip"], "only https is allowed"),
    ],
)
def test_an_address_without_the_model_is_refused_and_leaves_nothing(tmp_path, packed, trick, reason):
    with failing_server({"/m.zip": packed.read_bytes()}) as server, chdir(tmp_path):
        server.tricks["/m.zip"] = trick
        with pytest.raises(ModelError, match=r"config key model\.path: ") as error:
            provide_model(f"{server.url}/m.zip", "0" * 64, QUICK)
        assert reason in str(error.value)
        assert [path.name for path in Path("resources/models").iterdir()] == [".pace"]


@pytest.mark.skipif(not shutil.which("openssl"), reason="openssl, which makes the certificate, is not there")
def test_a_certificate_that_is_not_trusted_is_told_at_once_and_can_be_named(tmp_path, packed, monkeypatch):
    subject = ("-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1")
    files = ("-keyout", "key.pem", "-out", "own.pem")
    make = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", *subject, *files]
    subprocess.run(make, cwd=tmp_path, check=True, capture_output=True)
    content = packed.read_bytes()
    with failing_server({"/m.zip": content}) as server, chdir(tmp_path):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain("own.pem", "key.pem")
        server.socket = context.wrap_socket(server.socket, server_side=True)
        address, sha256 = server.url.replace("http:", "https:") + "/m.zip", hashlib.sha256(content).hexdigest()
        with pytest.raises(ModelError, match=r"CERTIFICATE_VERIFY_FAILED.*SSL_CERT_FILE") as error:
            provide_model(address, sha256, QUICK)
        assert "tried" not in str(error.value)
        monkeypatch.setenv("SSL_CERT_FILE", "own.pem")
        provide_model(address, sha256, QUICK)
        check_folder(Path(model_folder(address, sha256)))


def test_another_digest_is_refused(tmp_path, packed):
    told = "config key model.sha256: .* has the digest [0-9a-f]{64}, not 0{64}; it is another file, or was changed"
    with failing_server({"/m.zip": packed.read_bytes()}) as server, chdir(tmp_path):
        for path in (f"{server.url}/m.zip", "packed.zip"):
            with pytest.raises(ModelError, match=told):
                provide_model(path, "0" * 64, QUICK)
        assert not [path for path in Path("resources/models").iterdir() if path.is_dir()]
    with pytest.raises(ModelError, match="is a folder, which has no digest; leave the key out"):
        provide_model(str(tmp_path / "made"), "0" * 64)


def of_text(entries):
    entries["model/thresholds.json"] = b"{}"


def without(name):
    return lambda entries: entries.pop(name)


def listing(**values):
    return lambda entries: relisted(entries, lambda told: told.update(values))


def only(name):
    return lambda entries: relisted(entries, lambda told: told.update(files={name: told["files"][name]}))


def lists(name):
    return lambda entries: relisted(entries, lambda told: told["files"].update({name: "0" * 64}))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (of_text, "other.zip: model/thresholds.json was changed after the model was packed (package.json)"),
        (without("model/model.keras"), "other.zip: model/model.keras is missing"),
        (without("model/package.json"), "other.zip is not a packed model: it has no model/package.json"),
        (listing(files=["model.keras"]), "other.zip: model/package.json does not list files and their digests"),
        (listing(files={"model.keras": 1}), "other.zip: model/package.json does not list files and their digests"),
        (listing(files={}), "other.zip: model/package.json does not list seen.npz, which says what trained the model"),
        (only("seen.npz"), "other.zip: model is not a model folder: it has no checksums.json"),
        (lists("../outside"), "other.zip: model/package.json lists '../outside', which is not a file of the folder"),
        (lists("a\\b"), "other.zip: model/package.json lists 'a\\\\b', which is not a file of the folder"),
        (lists("/etc/x"), "other.zip: model/package.json lists '/etc/x', which is not a file of the folder"),
        (lists(""), "other.zip: model/package.json lists '', which is not a file of the folder"),
    ],
)
def test_a_zip_that_is_no_packed_model_is_refused_and_leaves_nothing(tmp_path, packed, change, sentence):
    changed(packed, tmp_path / "other.zip", change)
    with chdir(tmp_path):
        with pytest.raises(ModelError) as error:
            provide_model("other.zip", None)
        assert str(error.value).startswith(f"config key model.path: {sentence}")
        assert not list(Path("resources/models").iterdir())
    assert not (tmp_path.parent / "outside").exists()


def test_a_damaged_zip_is_refused(tmp_path, packed):
    content = packed.read_bytes()
    of_arrays = content.index(b"layers")
    damages = {
        "text.zip": b"no zip",
        "cut.zip": content[: len(content) // 2],
        "flipped.zip": content[:of_arrays] + bytes(100) + content[of_arrays + 100 :],
    }
    with chdir(tmp_path):
        for name, damaged in damages.items():
            Path(name).write_bytes(damaged)
            with pytest.raises(ModelError, match=f"{name}: is not a sound zip file"):
                provide_model(name, None)
        assert not list(Path("resources/models").iterdir())


def test_a_zip_that_python_cannot_unpack_is_refused(tmp_path, packed):
    listed = packed.read_bytes()
    at = listed.rindex(b"PK\x01\x02", 0, listed.rindex(b"model/package.json"))
    with_password = bytearray(listed)
    # The flag of a password, in the directory and before the file itself.
    with_password[at + 8] |= 1
    with_password[listed.index(b"model/package.json") - 30 + 6] |= 1
    with zipfile.ZipFile(packed) as old, zipfile.ZipFile(tmp_path / "deflated.zip", "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    deflated = bytearray((tmp_path / "deflated.zip").read_bytes())
    start = deflated.index(b"model/package.json") + len(b"model/package.json")
    deflated[start : start + 20] = b"\xff" * 20
    with chdir(tmp_path):
        for name, content in (("password.zip", with_password), ("deflated.zip", deflated)):
            Path(name).write_bytes(content)
            with pytest.raises(ModelError, match=f"{name}: is not a sound zip file"):
                provide_model(name, None)
        assert not list(Path("resources/models").iterdir())


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_zip_of_another_compression_is_refused_before_it_is_unpacked(tmp_path, packed, method):
    """Python would unpack what is compressed to a few kilobytes whole, whatever size the zip states."""
    with zipfile.ZipFile(packed) as old, zipfile.ZipFile(tmp_path / "again.zip", "w", method) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    with chdir(tmp_path), pytest.raises(ModelError, match=r"again\.zip: unpacks .* or is not compressed by Deflate"):
        provide_model("again.zip", None)


def test_a_network_and_what_was_seen_are_not_unpacked_beyond_reason(tmp_path):
    for name, read in (("model.keras", lambda path: check_network(path, {})), ("seen.npz", read_seen)):
        with zipfile.ZipFile(tmp_path / name, "w", zipfile.ZIP_LZMA) as file:
            file.writestr("model.weights.h5", b"0" * 100)
        with pytest.raises(ModelError, match=r"it unpacks to more than .*, or is not compressed by Deflate"):
            read(tmp_path / name)


def test_a_long_listing_of_files_is_not_read(tmp_path, packed):
    changed(packed, tmp_path / "long.zip", lambda entries: entries.update({"model/package.json": b" " * (2**20 + 1)}))
    with chdir(tmp_path), pytest.raises(ModelError, match=r"model/package\.json is larger than a list of files"):
        provide_model("long.zip", None)


def test_a_zip_with_a_damaged_name_is_refused(tmp_path, packed):
    changed(packed, tmp_path / "named.zip", lambda entries: entries.update({"model/é": b""}))
    content = (tmp_path / "named.zip").read_bytes()
    with chdir(tmp_path):
        Path("named.zip").write_bytes(content.replace("model/é".encode(), b"model/\xff\xff"))
        with pytest.raises(ModelError, match=r"named\.zip: is not a sound zip file"):
            provide_model("named.zip", None)


def test_a_full_disk_is_not_taken_for_a_damaged_zip(tmp_path, packed, monkeypatch):
    def full(*arguments, **keywords):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(zipfile.ZipFile, "open", full)
    with chdir(tmp_path), pytest.raises(OSError, match="No space left"):
        provide_model("packed.zip", None)


def test_a_zip_with_more_than_a_model_has_is_not_unpacked(tmp_path, packed, monkeypatch):
    changed(packed, tmp_path / "many.zip", lambda entries: entries.update({f"model/{n}": b"" for n in range(1000)}))
    with chdir(tmp_path):
        with pytest.raises(ModelError, match="unpacks to more files or bytes than a model has"):
            provide_model("many.zip", None)
        with zipfile.ZipFile(packed) as archive:
            whole = sum(entry.file_size for entry in archive.infolist())
        monkeypatch.setattr(unpacking, "_MOST_BYTES", whole - 1)
        with pytest.raises(ModelError, match="unpacks to more files or bytes than a model has"):
            provide_model(str(packed), None)
        monkeypatch.setattr(unpacking, "_MOST_BYTES", whole)
        provide_model(str(packed), None)


def test_other_files_of_a_zip_are_not_unpacked(tmp_path, packed):
    changed(packed, tmp_path / "more.zip", lambda entries: entries.update({"model/run.py": b"", "../up": b""}))
    with chdir(tmp_path):
        provide_model("more.zip", None)
        assert "run.py" not in {path.name for path in Path(model_folder("more.zip", None)).iterdir()}
        assert [path.name for path in Path("resources/models").iterdir()] == [Path(model_folder("more.zip", None)).name]
