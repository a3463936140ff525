"""Adds to the site what lies outside docs/: kept results, changes, how to contribute, the API."""

from pathlib import Path

from mkdocs.structure.files import File, Files

import antisgd

ROOT = Path(__file__).parent.parent
PAGES = ("CONTRIBUTING.md", "CHANGELOG.md", "experiments/results/README.md")


def on_files(files: Files, config) -> Files:
    """Pages and pictures under the paths that they have in the repository."""
    for name in (*PAGES, *sorted(map(_name, ROOT.glob("experiments/results/*/*.png")))):
        source = ROOT / name
        if source.suffix == ".md":
            files.append(File.generated(config, name, content=source.read_text()))
        else:
            files.append(File.generated(config, name, abs_src_path=str(source)))
    files.append(File.generated(config, "api.md", content=_api()))
    return files


def on_page_markdown(markdown: str, page, config, files) -> str:
    """Links that climb out of docs/ in the repository stay inside the site."""
    return _rooted(markdown, page.file.src_uri.count("/"))


def _name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def _rooted(markdown: str, depth: int = 0) -> str:
    """docs/ is the root of the site: a page so many folders below it climbs one less."""
    up = "../" * depth
    markdown = markdown.replace(f"](../{up}README.md)", f"]({up}index.md)")
    return markdown.replace(f"](../{up}", f"]({up}").replace("](docs/", "](")


def _api() -> str:
    """Every module of the package, in its reading order."""
    names = [
        line.split()[0].rstrip(",") for line in antisgd.__doc__.splitlines() if line[:4] == "    "
    ]
    known = [name for name in names if name in antisgd.__all__]
    modules = [*known, *(name for name in antisgd.__all__ if name not in known)]
    return "# API\n\n" + "\n\n".join(f"::: antisgd.{name}" for name in modules) + "\n"
