import json
import re
import shutil
import subprocess

import pytest
from builders import build_record, demo_records, write_study

from hilo_nas.errors import UsageError
from hilo_nas.report.html_report import render_report, write_html_report

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")


def content_of(page):
    found = re.search(r'<script type="application/json" id="content">(.*?)</script>', page, re.DOTALL)
    return json.loads(found[1])


def test_a_report_has_every_network_and_its_command(tmp_path):
    page = render_report([write_study(tmp_path, "demo", demo_records())])
    (study,) = content_of(page)["studies"]
    assert [row.get("number") for row in study["networks"]] == [0, 1, 2, 3, 4, 5, 6]
    assert study["networks"][2]["export"] == "hilo-nas export demo --trial 2 -o out-2/"
    assert "export" not in study["networks"][5]
    assert [stage["map_side"] for stage in study["networks"][2]["stages"]] == [16, 8, 4, 2]
    assert "@@" not in page.replace(page[page.index("<script>") : page.rindex("<script>")], "")


def test_a_report_asks_the_network_for_nothing(tmp_path):
    page = render_report([write_study(tmp_path, "demo", demo_records())])
    assert "default-src 'none'" in page
    head = page[: page.index("<script")]
    assert not re.search(r"(src|href)=\"(?!#|data:)", head)


def test_text_of_a_study_cannot_end_the_script(tmp_path):
    evil = "</script><script>alert(1)</script> @@SCRIPT@@"
    page = render_report(
        [write_study(tmp_path, "demo", [build_record(0), build_record(1, state="failed", reason=evil)])]
    )
    assert evil not in page
    assert page.count("function drawArchitecture") == 1
    assert content_of(page)["studies"][0]["networks"][1]["reason"] == evil


def test_a_plot_that_cannot_be_drawn_says_why(tmp_path):
    content = content_of(render_report([write_study(tmp_path, "demo", demo_records())]))
    assert "at least 10" in content["missing"]["importances-0"]
    assert {"front", "hypervolume-trials", "timeline-0"} <= set(content["figures"])


def test_a_study_without_trials_has_no_report(tmp_path):
    with pytest.raises(UsageError, match="no trial"):
        render_report([write_study(tmp_path, "demo")])


def test_only_an_earlier_report_is_replaced(tmp_path):
    study, path = write_study(tmp_path, "demo", demo_records()), tmp_path / "report.html"
    path.write_text("my notes")
    with pytest.raises(UsageError, match="not a report"):
        write_html_report([study], path)
    assert path.read_text() == "my notes"
    write_html_report([study], path, force=True)
    assert write_html_report([study], path) == [path]


def test_plots_are_written_as_png_on_request(tmp_path):
    study = write_study(tmp_path, "demo", demo_records())
    written = write_html_report([study], tmp_path / "report.html", png_folder=tmp_path / "png")
    assert {path.name for path in written} >= {"report.html", "front.png", "timeline-0.png"}
    with pytest.raises(UsageError, match=r"front\.png"):
        write_html_report([study], tmp_path / "report.html", png_folder=tmp_path / "png")


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium")
def test_a_browser_draws_the_report_without_an_error(tmp_path):
    studies = [write_study(tmp_path, name, demo_records()) for name in ("one", "two")]
    write_html_report(studies, tmp_path / "report.html")
    done = subprocess.run(
        [
            *(CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync"),
            *("--disable-background-networking", "--disable-component-update", "--enable-logging=stderr"),
            *(f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=20000", "--dump-dom"),
            (tmp_path / "report.html").as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert 'data-ready="true"' in done.stdout
    assert "CONSOLE" not in done.stderr, done.stderr
    assert done.stdout.count("main-svg") >= 3
    assert "Select trial 3" in done.stdout
