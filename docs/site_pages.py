"""Give the site the pages of the repository at the repository's own paths, so that a link in them holds in both."""

import re
from pathlib import Path

from markdown_it import MarkdownIt
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

# What stands outside docs/: pages, and the files that they link.
OUTSIDE = ("README.md", "config/README.md", "CHANGELOG.md", "CITATION.cff", "LICENSE")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Move the files of docs/ into a folder of that name, and put those of OUTSIDE beside it."""
    root = Path(config.config_file_path).parent
    for file in [file for file in files if file.src_dir == config.docs_dir]:
        files.remove(file)
        path = f"docs/{file.src_uri}"
        files.append(File.generated(config, path, abs_src_path=file.abs_src_path, inclusion=file.inclusion))
    for path in OUTSIDE:
        files.append(File.generated(config, path, abs_src_path=str(root / path)))
    return files


def on_page_markdown(markdown: str, **_: object) -> str:
    """Write lists as MkDocs's Markdown asks for them, which is stricter than GitHub's (CommonMark)."""
    lines = markdown.split("\n")
    indents = [0] * len(lines)
    for token in MarkdownIt().parse(markdown):
        first, end = token.map or (0, 0)
        if token.type == "list_item_open":
            # What belongs to an item is indented by four columns, not by the width of its marker.
            marker = re.match(r"\s*(\S+\s+)", lines[first])[1]
            indents[first + 1 : end] = [indent + 4 - len(marker) for indent in indents[first + 1 : end]]
            # The next item, where this one has paragraphs, follows after a blank line.
            lines[end - 1] += "\n" * ("" in lines[first:end])
        elif token.type.endswith("list_open") and token.level == 0 and first > 0:
            lines[first - 1] += "\n"
        elif token.type == "inline":
            # A number at the beginning of a wrapped line is no item.
            lines[first + 1 : end] = [re.sub(r"^(\s*\d+)\. ", r"\1\\. ", line) for line in lines[first + 1 : end]]
    return "\n".join(" " * indent * bool(line) + line for indent, line in zip(indents, lines, strict=True))
