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
        if chart.query_selector_all(".values tbody tr")[2:] == []:
            # Two points are seen whole in any zoom.
            continue
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


def listed(page):
    return page.query_selector_all(".images li"), page.text_content(".counted")


def map_of_run(page, findings, file):
    if page.query_selector("#points") is None:
        return
    count = page.evaluate("JSON.parse(document.getElementById('points').textContent).numbers.length")
    items, said = listed(page)
    findings.expect(said.startswith(f"{count} images"), f"{file}: the list says {said}")
    findings.expect(len(items) == min(count, 60), f"{file}: {len(items)} images are listed first")

    for button in page.query_selector_all("[data-view]"):
        button.click()
        page.wait_for_timeout(700)
        findings.expect(button.get_attribute("aria-pressed") == "true", f"{file}: a view is not chosen")
    page.click("[data-color=right]")
    page.click("[data-color=class]")

    # A loop around the whole map holds every image, and a click leaves it.
    canvas = page.query_selector("canvas")
    canvas.scroll_into_view_if_needed()
    area = canvas.bounding_box()
    corners = [(0.01, 0.01), (0.99, 0.01), (0.99, 0.99), (0.01, 0.99), (0.01, 0.05)]
    page.mouse.move(*[area[k] + area[s] * c for k, s, c in zip("xy", ["width", "height"], corners[0])])
    page.mouse.down()
    for x, y in corners[1:]:
        page.mouse.move(area["x"] + area["width"] * x, area["y"] + area["height"] * y, steps=8)
    page.mouse.up()
    _, said = listed(page)
    findings.expect(said.startswith(f"{count} images in the loop"), f"{file}: the loop says {said}")
    page.click(".clear")
    findings.expect("in the loop" not in listed(page)[1], f"{file}: the loop stays")

    # Pointing at the place of the first image shows an image.
    canvas.scroll_into_view_if_needed()
    place = page.evaluate(
        """() => { const data = JSON.parse(document.getElementById("points").textContent), canvas = document.querySelector("canvas");
        const area = canvas.getBoundingClientRect(), by = 0.94 * Math.min(area.width, area.height) / 10000;
        const [x, y] = data.views[data.views.length - 1].places;
        return [area.left + area.width / 2 + (x - 5000) * by, area.top + area.height / 2 + (y - 5000) * by]; }"""
    )
    page.mouse.move(place[0], place[1])
    findings.expect(page.query_selector(".hover").is_visible(), f"{file}: nothing is shown at a dot")

    # How long a frame takes when the map moves.
    canvas.focus()
    times = page.evaluate(
        """async () => { const canvas = document.querySelector("canvas"), times = [];
        for (let i = 0; i < 20; i += 1) {
          canvas.dispatchEvent(new KeyboardEvent("keydown", { key: i % 2 ? "ArrowLeft" : "ArrowRight" }));
          await new Promise((done) => requestAnimationFrame(() => { const from = performance.now();
            requestAnimationFrame(() => { times.push(performance.now() - from); done(); }); }));
        }
        return times.sort((a, b) => a - b); }"""
    )
    print(f"{file}: the map of {count} images moves at {1000 / times[len(times) // 2]:.0f} frames a second (median of 20, software rendering)")
    page.keyboard.press("+")
    page.keyboard.press("0")

    for select in [".of-class", ".of-query"]:
        if page.query_selector(select) is None:
            continue
        options = page.query_selector_all(f"{select} option")
        page.select_option(select, options[1].get_attribute("value"))
    name = page.query_selector(".of-class option:nth-child(2)").text_content()
    for item in listed(page)[0]:
        text = item.text_content()
        findings.expect(text.startswith(name), f"{file}: {text} is listed as {name}")
    value = page.input_value(".of-class")
    shown = [q for q in page.query_selector_all(".queries > li") if q.is_visible()]
    findings.expect(all(q.get_attribute("data-class") == value for q in shown), f"{file}: queries of other classes stay")
    page.select_option(".of-outcome", "wrong")
    findings.expect(all("taken for" in item.text_content() for item in listed(page)[0]), f"{file}: right ones are listed as wrong")


def use(browser, file, findings):
    page = browser.new_page(viewport={"width": 1280, "height": 900}, color_scheme="light", reduced_motion="reduce")
    page.on("pageerror", lambda error: findings.append(f"{file}: script: {error}"))
    page.goto(file.as_uri())
    theme(page, findings, file)
    sorting(page, findings, file)
    charts(page, findings, file)
    map_of_run(page, findings, file)
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
