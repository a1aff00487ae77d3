"""The pages of the documentation site, called by mkdocs (`mkdocs.yml`).

The site has the layout of the repository: README.md is the home page, and guides are in docs/. Relative links therefore
work on the site as they do in the repository. The pages of the Python API are generated from the public names.
"""

from __future__ import annotations

from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
PUBLISHED = (
    "*.md",
    "CITATION.cff",
    "LICENSE",
    "docs/*.md",
    "docs/images/*",
    "docs/site.css",
    "benchmarks/README.md",
    "benchmarks/results/ruler-*.md",
    "examples/*.*",
    "studies/README.md",
    "tests/assets/toy/toy_proxy.py",
)
"""Patterns of the files of the repository that the site has: all pages, and what they link to."""

API = {
    "studies": (
        "Searches and studies",
        "search plan_search estimate_cost show_progress Study load_study list_studies remeasure repair_study Repaired "
        "export_files Exported write_report SearchConfig TrialRecord Front HiloSampler",
    ),
    "timing": ("Timing", "measure Measured"),
    "networks": (
        "Networks and spaces",
        "create_model load_model prepare_for_inference ArchConfig load_space SearchSpace",
    ),
    "interfaces": ("Interfaces", "Evaluator Proxy Exporter"),
}
"""Title and public names of each page of the Python API."""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Returns the files of the site instead of those in docs/."""
    kept = [file for file in files if file.src_dir != config.docs_dir]
    for pattern in PUBLISHED:
        for path in sorted(ROOT.glob(pattern)):
            kept.append(File.generated(config, path.relative_to(ROOT).as_posix(), abs_src_path=str(path)))
    for page, (title, names) in API.items():
        body = "\n\n".join(f"::: hilo_nas.{name}" for name in names.split())
        kept.append(File.generated(config, f"api/{page}.md", content=f"# {title}\n\n{body}\n"))
    return Files(kept)
