"""What the code may not do: read pickles, run text as code or in a shell, fetch without https and a digest."""

import ast
from pathlib import Path

from workflow_runs import ROOT

CODE = [
    *sorted((ROOT / "hpaloc").rglob("*.py")),
    *sorted((ROOT / "workflow").rglob("*.py")),
    *sorted((ROOT / "docs").glob("*.py")),
]
RULES = [ROOT / "Snakefile", *sorted((ROOT / "workflow").rglob("*.smk"))]
MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "shelve", "marshal", "commands", "telnetlib", "ftplib"}
CALLS = {"eval", "exec", "compile", "__import__"}
ATTRIBUTES = {
    *("os.system", "os.popen", "os.execv", "tempfile.mktemp", "yaml.load", "yaml.unsafe_load", "yaml.full_load"),
    *("pd.read_pickle", "pandas.read_pickle", "keras.saving.load_model", "keras.models.load_model", "torch.load"),
    *("joblib.load", "pd.read_hdf"),
    *("ssl._create_unverified_context", "np.fromregex", "shutil.unpack_archive"),
}
# The networks of hpacellseg are pickled whole; weights.ready compares their digests before this line.
ALLOWED = {
    ("hpaloc/segmentation/hpacellseg.py", "torch.load"),
    # The name of a term of RO-Crate, which nothing fetches.
    ("hpaloc/exporting/crate.py", "http://schema.org/CompletedActionStatus"),
}


def name_of(node):
    """Return the dotted name of an expression, or an empty text."""
    if isinstance(node, ast.Attribute):
        return f"{name_of(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def offences(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] in MODULES)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in MODULES:
            yield node.module
        elif isinstance(node, ast.ImportFrom):
            # joblib also runs functions in parallel; what it loads are pickles.
            yield from (name for alias in node.names if (name := f"{node.module}.{alias.name}") in ATTRIBUTES)
        elif isinstance(node, ast.Call):
            called = name_of(node.func)
            if called in CALLS | ATTRIBUTES:
                yield called
            for keyword in node.keywords:
                # A keyword that is not a plain False may be true.
                plain = isinstance(keyword.value, ast.Constant) and not keyword.value.value
                if keyword.arg in ("shell", "allow_pickle", "enable_unsafe_deserialization") and not plain:
                    yield f"{called}({keyword.arg}=…)"
        elif isinstance(node, ast.Constant) and str(node.value).startswith("http://"):
            # Names of XML vocabularies are not addresses, and this machine is not a network.
            names = ("http://www.w3.org", "http://127.0.0.1:", "http://localhost:")
            yield from [] if node.value.startswith(names) else [node.value]


def test_no_pickle_no_code_from_text_no_shell():
    assert len(CODE) > 100
    found = [(str(path.relative_to(ROOT)), one) for path in CODE for one in offences(ast.parse(path.read_text()))]
    # The exceptions have to be there, or the search has gone blind.
    assert set(found) >= ALLOWED
    wrong = [f"{name}: {one}" for name, one in found if (name, one) not in ALLOWED]
    assert not wrong, "\n".join(wrong)


def test_the_search_finds_what_it_is_for():
    lines = ["import pickle", "from joblib import load", "eval('1')", "os.system('x')", "run('x', shell=True)"]
    lines.append("np.load(f, allow_pickle=a)")
    assert list(offences(ast.parse("\n".join(lines)))) == [
        "pickle",
        "joblib.load",
        "eval",
        "os.system",
        "run(shell=…)",
        "np.load(allow_pickle=…)",
    ]


def test_no_rule_has_a_shell_command():
    assert len(RULES) > 5
    wrong = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in RULES
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if line.strip().startswith(("shell:", "shell(", "run:"))
    ]
    assert not wrong, "\n".join(wrong)


def test_every_page_that_is_written_escapes_what_it_is_given():
    for path in CODE:
        text = path.read_text()
        if any(tag in text for tag in ("<html", "<td", "<li>", "<div", "<tr>")):
            assert "escape(" in text or "autoescape=True" in text or "json.dumps" in text, path


def test_downloads_are_by_https_and_checked():
    words = ("urlopen(", "urlretrieve(", ".request(", "requests.", "http.client")
    fetching = [path for path in CODE if any(word in path.read_text() for word in words)]
    # All others fetch through the second.
    assert {path.name for path in fetching} == {"weights.py", "download.py"}
    for path in fetching:
        text = path.read_text()
        assert "digest" in text, path
        assert "http://" not in text, path


def test_the_lock_file_is_audited():
    makefile = Path(ROOT / "Makefile").read_text()
    assert "for lock in requirements.lock driver.lock" in makefile
    # Without it packages of which the index knows nothing would pass.
    assert "--strict" in makefile[makefile.index("uv tool run pip-audit") :].splitlines()[0]
