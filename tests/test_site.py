"""The documentation site: it builds without a warning, its links lead somewhere, and no other host is asked."""

import os
import re
import subprocess
import sys
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urljoin, urlsplit

import pytest

import hilo_nas

ROOT = Path(__file__).parents[1]
LOADED = {"audio", "embed", "iframe", "img", "link", "script", "source", "video"}
"""Elements that a browser loads when it shows a page. A link to a page is `a`."""


class Page(HTMLParser):
    """What a page links to, what it loads, its anchors, and the lists of its text."""

    def __init__(self, text):
        super().__init__()
        self.links, self.loaded, self.anchors, self.items = [], [], set(), []
        self._open, self._in_text = [], False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        own = dict(attrs)
        self.anchors |= {own[name] for name in ("id", "name") if own.get(name)}
        self._in_text |= tag == "article"
        if tag == "a" and own.get("href"):
            self.links.append(own["href"])
        if tag in LOADED and own.get("rel") != "canonical":
            self.loaded += [own[name] for name in ("src", "href") if own.get(name)]
        if tag in ("ol", "ul"):
            self._open.append(len(self.items))
            self.items.append([tag if self._in_text else "", 0])
        if tag == "li" and self._open:
            self.items[self._open[-1]][1] += 1

    def handle_endtag(self, tag):
        if tag in ("ol", "ul"):
            self._open.pop()
        self._in_text &= tag != "article"


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The folder of the built site. No registry, package index or web page can be reached through its proxy."""
    folder = tmp_path_factory.mktemp("site")
    nowhere = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9")
    built = subprocess.run(
        [
            sys.executable,
            "-m",
            "mkdocs",
            "build",
            "--strict",
            "--config-file",
            ROOT / "mkdocs.yml",
            "--site-dir",
            folder,
        ],
        env={**os.environ, **nowhere, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert built.returncode == 0, built.stderr
    return folder


@pytest.fixture(scope="module")
def pages(site):
    return {path.relative_to(site).as_posix(): Page(path.read_text(encoding="utf-8")) for path in site.rglob("*.html")}


def is_elsewhere(link):
    return bool(urlsplit(link).scheme or urlsplit(link).netloc)


def test_every_link_leads_somewhere(site, pages):
    lost = []
    for name, page in pages.items():
        for link in page.links + page.loaded:
            if is_elsewhere(link):
                continue
            target = urlsplit(urljoin(f"http://site/{name}", link))
            path = unquote(target.path).lstrip("/")
            path = path + "index.html" * (not path or path.endswith("/"))
            anchor = unquote(target.fragment)
            if not (site / path).is_file() or (anchor and anchor not in pages[path].anchors):
                lost.append((name, link))
    assert not lost
    assert sum(len(page.links) for page in pages.values()) > 1000


def test_links_to_other_hosts_are_well_formed(pages):
    links = {link for page in pages.values() for link in page.links if is_elsewhere(link)}
    assert all(re.fullmatch(r"https://[\w-]+(\.[\w-]+)+(/[\w./#%-]*)?", link) for link in links), links


def test_a_page_loads_nothing_from_another_host(site, pages):
    assert not {(name, link) for name, page in pages.items() for link in page.loaded if is_elsewhere(link)}
    for path in site.rglob("*.css"):
        assert not re.findall(r"(?:url\(|@import)\s*[\"']?(?:https?:)?//", path.read_text(encoding="utf-8")), path


def test_lists_stay_whole(pages):
    """A block that is indented by less than four spaces ends its list in one reader of Markdown, and not in another."""
    alone = [name for name, page in pages.items() if ["ol", 1] in page.items]
    assert not alone
    assert any(count > 2 for kind, count in pages["docs/quick-start.html"].items if kind == "ol")


def test_every_public_name_is_described_once(pages):
    described = Counter(anchor for name, page in pages.items() if name.startswith("api/") for anchor in page.anchors)
    assert {name for name in hilo_nas.__all__ if described[f"hilo_nas.{name}"] != 1} == set()


def test_pictures_are_small(pages):
    pictures = list((ROOT / "docs/images").iterdir())
    assert pictures
    assert all(picture.stat().st_size < 150_000 for picture in pictures)
