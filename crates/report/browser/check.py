#!/usr/bin/env python3
"""Opens pages of `invaspread report SUITE --html` and `invaspread look RUN` in Chromium and checks them as a reader would use them.

    pip install playwright axe-core-python        # and Chromium itself, such as the package `chromium` of Debian
    python3 crates/report/browser/check.py results/table1/report.html [...] [--shots FOLDER]

For each page, at three widths and in both themes: nothing is requested but the page, no script fails, nothing is wider than the
window, and axe-core finds nothing (WCAG 2.2 A and AA, and its best practices). Then, at one width: tables sort, legends toggle,
charts are read and zoomed with keyboard and mouse, and the theme changes; on a page of a run, its map and lists work. With
--shots, pictures of the page are kept. Exits with 1 if anything is wrong. Without playwright, axe-core or Chromium
it checks nothing, says so, and exits with 0.
"""

import argparse
import shutil
import sys
from pathlib import Path

WIDTHS = [390, 1024, 1600]
THEMES = ["light", "dark"]


def skip(why):
    print(f"SKIPPED, nothing was checked: {why}", file=sys.stderr)
    sys.exit(0)


try:
    from playwright.sync_api import sync_playwright
except ImportError:
    skip("playwright is missing (pip install playwright)")
try:
    import axe_core_python

    AXE = next(Path(axe_core_python.__file__).parent.glob("axe*.js")).read_text()
except (ImportError, StopIteration):
    skip("axe-core is missing (pip install axe-core-python)")
CHROMIUM = next(filter(None, map(shutil.which, ["chromium", "chromium-browser", "google-chrome"])), None)
if CHROMIUM is None:
    skip("there is no chromium, chromium-browser or google-chrome on the PATH")


class Findings(list):
    def expect(self, holds, what):
        if not holds:
            self.append(what)


def audit(page, findings, where):
    """Runs axe-core. The policy of the page forbids foreign scripts, which evaluation by the debugger is not."""
    page.evaluate(AXE)
    tags = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
    found = page.evaluate("(tags) => axe.run(document, { runOnly: { type: 'tag', values: tags } })", tags)
    for violation in found["violations"]:
        for node in violation["nodes"][:3]:
            said = node.get("failureSummary", "").replace("\n", " ")
            findings.append(f"{where}: axe: {violation['id']}: {node['target']}: {said}")


def appearance(browser, file, findings, shots):
    for theme in THEMES:
        for width in WIDTHS:
            where = f"{file} at {width} in {theme}"
            context = browser.new_context(
                viewport={"width": width, "height": 900}, color_scheme=theme, reduced_motion="reduce", bypass_csp=False
            )
            page = context.new_page()
            page.on("pageerror", lambda error: findings.append(f"{where}: script: {error}"))
            page.on("console", lambda line: line.type == "error" and findings.append(f"{where}: console: {line.text}"))
            page.on(
                "request",
                lambda request: not request.url.startswith("data:")
                and request.url.split("#")[0] != file.as_uri()
                and findings.append(f"{where}: asks for {request.url[:200]}"),
            )
            page.goto(file.as_uri())
            page.wait_for_timeout(200)
            wide = page.evaluate("document.documentElement.scrollWidth - innerWidth")
            findings.expect(wide <= 0, f"{where}: the page is {wide} pixels wider than the window")
            audit(page, findings, where)
            if shots:
                page.screenshot(path=shots / f"{file.parent.name}-{file.stem}-{width}-{theme}.png", full_page=True)
            context.close()
    if shots:
        page = browser.new_page()
        page.goto(file.as_uri())
        page.pdf(path=shots / f"{file.parent.name}-{file.stem}.pdf", format="A4", print_background=False)
        page.close()


def sorting(page, findings, file):
    for table in page.query_selector_all("table.sortable"):
        heads = table.query_selector_all("thead th.number button")
        if not heads or not table.is_visible():
            continue
        head = heads[0]
        for order, sign in [("descending", -1), ("ascending", 1)]:
            head.click()
            values = head.evaluate(
                """(button) => { const head = button.parentElement; return [head.getAttribute("aria-sort"),
                [...head.closest("table").tBodies[0].rows].map((row) => row.cells[head.cellIndex].dataset.v)
                .filter((value) => value !== undefined).map(Number)]; }"""
            )
            findings.expect(values[0] == order, f"{file}: a click does not sort: {values[0]}")
            expected = sorted(values[1], key=lambda value: sign * value)
            findings.expect(values[1] == expected, f"{file}: {order} is {values[1]}")


def charts(page, findings, file):
    for chart in page.query_selector_all(".chart"):
        name = f"{file}: chart {chart.get_attribute('id')}"
        plot, svg = chart.query_selector(".plot"), chart.query_selector(".plot svg")
        reset = chart.query_selector(".reset")
        whole = svg.get_attribute("viewBox")
        ticks = chart.query_selector(".ticks").inner_html()

        legend = chart.query_selector(".legend button")
        legend.click()
        group = svg.query_selector("g")
        findings.expect(not group.is_visible() and legend.get_attribute("aria-pressed") == "false", f"{name}: a series stays")
        legend.click()
        # The name of the series without its value stands in the reading.
        series = legend.evaluate("(button) => button.childNodes[1].textContent.trim()")

        plot.focus()
        page.keyboard.press("Home")
        first = plot.get_attribute("aria-valuetext")
        page.keyboard.press("End")
        last = plot.get_attribute("aria-valuetext")
        rows = chart.query_selector_all(".values tbody tr")
        findings.expect(first.split(":")[0].endswith(rows[0].query_selector("th").text_content()), f"{name}: Home reads {first}")
        findings.expect(last.split(":")[0].endswith(rows[-1].query_selector("th").text_content()), f"{name}: End reads {last}")
        findings.expect(len(rows) < 2 or first != last, f"{name}: arrows read nothing")
        everything = " ".join([first, last])
        findings.expect(series in everything, f"{name}: {series} is not read: {everything}")
        findings.expect(chart.query_selector(".reading").is_visible(), f"{name}: no reading on focus")

        page.keyboard.press("Home")
        page.keyboard.press("+")
        findings.expect(svg.get_attribute("viewBox") != whole and reset.is_enabled(), f"{name}: + does not zoom")
        findings.expect("NaN" not in svg.get_attribute("viewBox"), f"{name}: the zoom is {svg.get_attribute('viewBox')}")
        page.keyboard.press("0")
        findings.expect(svg.get_attribute("viewBox") == whole, f"{name}: 0 does not reset")

        plot.scroll_into_view_if_needed()
        area = plot.bounding_box()
        down = area["y"] + area["height"] * 0.5
        page.mouse.move(area["x"] + area["width"] * 0.25, down)
        page.mouse.down()
        page.mouse.move(area["x"] + area["width"] * 0.75, down + 3, steps=5)
        page.mouse.up()
        findings.expect(svg.get_attribute("viewBox") != whole, f"{name}: dragging does not zoom")
        reset.click()
        findings.expect(svg.get_attribute("viewBox") == whole, f"{name}: the button does not reset")
        findings.expect(chart.query_selector(".ticks").inner_html() == ticks, f"{name}: ticks differ after the reset")


def theme(page, findings, file):
    color = "getComputedStyle(document.body).backgroundColor"
    before = page.evaluate(color)
    page.click("#theme")
    findings.expect(page.evaluate(color) != before, f"{file}: the button does not change the theme")
    page.click("#theme")
    findings.expect(page.evaluate(color) == before, f"{file}: the button does not change the theme back")


def use(browser, file, findings):
    page = browser.new_page(viewport={"width": 1280, "height": 900}, color_scheme="light", reduced_motion="reduce")
    page.on("pageerror", lambda error: findings.append(f"{file}: script: {error}"))
    page.goto(file.as_uri())
    theme(page, findings, file)
    sorting(page, findings, file)
    charts(page, findings, file)
    page.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pages", nargs="+", type=Path)
    parser.add_argument("--shots", type=Path, help="folder for pictures of the pages")
    arguments = parser.parse_args()
    if arguments.shots:
        arguments.shots.mkdir(parents=True, exist_ok=True)
    findings = Findings()
    with sync_playwright() as playwright:
        # Chromium's sandbox needs rights that a container seldom gives; the pages are our own.
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        for file in arguments.pages:
            before = len(findings)
            appearance(browser, file.resolve(), findings, arguments.shots)
            use(browser, file.resolve(), findings)
            print(f"{file}: {len(findings) - before} findings")
        browser.close()
    for finding in findings:
        print(finding, file=sys.stderr)
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
