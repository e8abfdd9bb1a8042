// The script of a report's page: the theme, sorting of tables, and charts. A chart takes its values from the table below it,
// and zooms by the view box of its drawing; without this script the page shows everything, and only does not move.
"use strict";
(() => {
  const root = document.documentElement;
  root.classList.add("script");

  // Theme: that of the system until the button is pressed.
  const button = document.getElementById("theme");
  const system = matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => root.dataset.theme ? root.dataset.theme === "dark" : system.matches;
  const named = () => { button.textContent = isDark() ? "Light theme" : "Dark theme"; };
  // A page from a disk may have no storage; then the choice holds until the page is closed.
  try { const kept = localStorage.getItem("invaspread-theme"); if (kept === "light" || kept === "dark") root.dataset.theme = kept; } catch { /* see above */ }
  button.hidden = false;
  button.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    try { localStorage.setItem("invaspread-theme", root.dataset.theme); } catch { /* see above */ }
    named();
  });
  system.addEventListener("change", named);
  named();

  // Tables: a click on a head sorts by it, first the largest number or the first word.
  for (const table of document.querySelectorAll("table.sortable")) {
    const heads = [...table.tHead.rows[0].cells];
    const body = table.tBodies[0];
    if (body.rows.length < 2) continue;
    heads.forEach((head, column) => {
      if (!head.textContent.trim()) return;
      const sorter = document.createElement("button");
      sorter.type = "button";
      sorter.append(...head.childNodes);
      head.append(sorter);
      sorter.addEventListener("click", () => {
        const isNumber = head.classList.contains("number");
        const before = head.getAttribute("aria-sort");
        const descending = before ? before === "ascending" : isNumber;
        heads.forEach((other) => other.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", descending ? "descending" : "ascending");
        const key = (row) => {
          const cell = row.cells[column];
          return isNumber ? (cell.dataset.v === undefined ? NaN : Number(cell.dataset.v)) : cell.textContent.trim();
        };
        const sign = descending ? -1 : 1;
        const rows = [...body.rows].sort((a, b) => {
          const [x, y] = [key(a), key(b)];
          if (!isNumber) return sign * x.localeCompare(y, "en", { numeric: true });
          // What has no number stands last in both directions.
          if (Number.isNaN(x) || Number.isNaN(y)) return Number.isNaN(x) - Number.isNaN(y);
          return sign * (x - y);
        });
        body.append(...rows);
      });
    });
  }

  // The minus sign and the digits of the ticks are those of the drawing's first ticks (crates/report/src/html/chart.rs).
  const text = (value, digits) => value.toFixed(digits).replace(/^-(?=0(\.0*)?$)/, "").replace("-", "−");
  const roundStep = (range, most) => {
    const rough = range / most, power = 10 ** Math.floor(Math.log10(rough));
    return [1, 2, 5, 10].map((factor) => factor * power).find((step) => step >= rough * (1 - 1e-9));
  };
  const element = (name, kind, parent) => {
    const made = document.createElement(name);
    if (kind) made.className = kind;
    if (parent) parent.append(made);
    return made;
  };

  document.querySelectorAll(".chart").forEach((figure) => {
    const plot = figure.querySelector(".plot"), svg = plot.querySelector("svg");
    const ticks = plot.querySelector(".ticks"), reset = figure.querySelector(".reset");
    const groups = [...svg.children], legend = [...figure.querySelectorAll(".legend button")];
    const range = (name) => plot.dataset[name].split(" ").map(Number);
    const whole = { x: range("x"), y: range("y") };
    const isWhole = plot.dataset.whole === "1", word = plot.dataset.word;
    let shown = { x: [...whole.x], y: [...whole.y] };
    const hidden = new Set();
    // "−0.25 ± 0.01" is -0.25; "–" and "NaN" are no numbers.
    const number = (cell) => {
      const found = parseFloat(cell.textContent.replace("−", "-"));
      return Number.isFinite(found) ? found : null;
    };
    const rows = [...figure.querySelectorAll(".values tbody tr")].map((row) => ({
      x: number(row.cells[0]),
      name: row.cells[0].textContent,
      values: [...row.cells].slice(1).map((cell) => ({ number: number(cell), text: cell.textContent })),
    }));
    const names = legend.map((entry) => entry.childNodes[1].textContent.trim());
    const firstTicks = ticks.innerHTML;
    let at = null;

    const share = (value, [low, high]) => (value - low) / (high - low);
    const cursor = element("div", "cursor", plot), reading = element("div", "reading", plot);
    cursor.hidden = reading.hidden = true;

    const inside = () => rows.filter((row) => row.x >= shown.x[0] - 1e-9 && row.x <= shown.x[1] + 1e-9);
    const visible = (row) => row.values
      .map((value, line) => ({ ...value, line }))
      .filter((value) => value.number !== null && !hidden.has(value.line))
      .sort((a, b) => b.number - a.number);
    const said = (row) => `${word} ${row.name}: ` + (visible(row).map((value) => `${names[value.line]} ${value.text}`).join("; ") || "no value");

    const draw = () => {
      const isZoomed = shown.x.some((v, i) => v !== whole.x[i]) || shown.y.some((v, i) => v !== whole.y[i]);
      reset.disabled = !isZoomed;
      plot.classList.toggle("zoomed", isZoomed);
      const [left, right] = shown.x.map((v) => 1000 * share(v, whole.x));
      const [bottom, top] = shown.y.map((v) => 1000 * (1 - share(v, whole.y)));
      svg.setAttribute("viewBox", isZoomed ? `${left} ${top} ${right - left} ${bottom - top}` : "0 0 1000 1000");
      if (!isZoomed) { ticks.innerHTML = firstTicks; return; }
      ticks.replaceChildren();
      for (const [axis, most] of [["y", 5], ["x", figure.classList.contains("small") ? 4 : 8]]) {
        let step = roundStep(shown[axis][1] - shown[axis][0], most);
        if (axis === "x" && isWhole) step = Math.max(1, Math.round(step));
        const digits = Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
        for (let place = Math.ceil(shown[axis][0] / step - 1e-9); place * step <= shown[axis][1] + step * 1e-9; place += 1) {
          const tick = element("i", axis, ticks);
          tick.style[axis === "y" ? "bottom" : "left"] = `${100 * share(place * step, shown[axis])}%`;
          element("span", "", tick).textContent = text(place * step, digits);
        }
      }
    };

    // Fits the vertical axis to what is seen.
    const fit = () => {
      const seen = inside().flatMap(visible).map((value) => value.number);
      if (!seen.length) return;
      const low = Math.min(...seen), high = Math.max(...seen), margin = (high - low || Math.abs(high) || 1) * 0.06;
      shown.y = [Math.max(low - margin, Math.min(whole.y[0], low)), Math.min(high + margin, Math.max(whole.y[1], high))];
    };
    const zoom = (x, y) => {
      const least = isWhole ? Math.min(1, (whole.x[1] - whole.x[0]) / 4) : (whole.x[1] - whole.x[0]) / 200;
      if (x[1] - x[0] < least) { const middle = (x[0] + x[1]) / 2; x = [middle - least / 2, middle + least / 2]; }
      const width = Math.min(x[1] - x[0], whole.x[1] - whole.x[0]);
      const left = Math.min(Math.max(x[0], whole.x[0]), whole.x[1] - width);
      shown = { x: [left, left + width], y: [...whole.y] };
      if (y) shown.y = y; else if (width < whole.x[1] - whole.x[0]) fit();
      draw();
      if (at) read(at);
    };

    const hide = () => { cursor.hidden = reading.hidden = true; at = null; };
    const read = (row) => {
      at = row;
      const place = share(row.x, shown.x);
      cursor.hidden = reading.hidden = place < -1e-9 || place > 1 + 1e-9;
      cursor.style.left = `${100 * place}%`;
      reading.style.left = place < 0.5 ? `calc(${100 * place}% + 10px)` : "auto";
      reading.style.right = place < 0.5 ? "auto" : `calc(${100 - 100 * place}% + 10px)`;
      reading.replaceChildren();
      element("p", "", reading).textContent = `${word} ${row.name}`;
      for (const value of visible(row)) {
        const line = element("div", "", reading);
        const key = legend[value.line].querySelector(".key").cloneNode();
        key.style.cssText = legend[value.line].style.cssText;
        line.append(key);
        element("span", "", line).textContent = names[value.line];
        element("span", "", line).textContent = value.text;
      }
      plot.setAttribute("aria-valuenow", row.x);
      plot.setAttribute("aria-valuetext", said(row));
    };
    const nearest = (x) => inside().reduce((best, row) => !best || Math.abs(row.x - x) < Math.abs(best.x - x) ? row : best, null);

    // A slider is what screen readers know how to move with arrows; its text is the reading.
    plot.tabIndex = 0;
    plot.setAttribute("role", "slider");
    plot.setAttribute("aria-label", `Values of ${figure.querySelector(".title").textContent}`);
    plot.setAttribute("aria-valuemin", whole.x[0]);
    plot.setAttribute("aria-valuemax", whole.x[1]);
    const last = rows[rows.length - 1];
    plot.setAttribute("aria-valuenow", last ? last.x : whole.x[1]);
    plot.setAttribute("aria-valuetext", last ? said(last) : "no value");
    plot.addEventListener("focus", () => { if (plot.matches(":focus-visible")) read(at || inside().at(-1) || last); });
    plot.addEventListener("blur", hide);
    plot.addEventListener("keydown", (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      const seen = inside(), place = seen.indexOf(at), middle = at ? at.x : (shown.x[0] + shown.x[1]) / 2;
      const by = (factor) => {
        const width = (shown.x[1] - shown.x[0]) * factor;
        zoom([middle - width / 2, middle + width / 2]);
      };
      const step = (to) => { if (seen.length) read(seen[Math.min(Math.max(to, 0), seen.length - 1)]); };
      const move = { ArrowRight: place + 1, ArrowUp: place + 1, ArrowLeft: place - 1, ArrowDown: place - 1, PageUp: place + 10, PageDown: place - 10, Home: 0, End: seen.length - 1 };
      if (event.key in move) step(move[event.key]);
      else if (event.key === "+" || event.key === "=") by(0.5);
      else if (event.key === "-") by(2);
      else if (event.key === "0" || event.key === "Escape") zoom(whole.x);
      else return;
      event.preventDefault();
    });
    reset.addEventListener("click", () => zoom(whole.x));

    // Dragging chooses a range of the horizontal axis, or a box if it is high enough to be meant.
    let from = null, box = null;
    const where = (event) => {
      const area = plot.getBoundingClientRect();
      const limit = (value) => Math.min(Math.max(value, 0), 1);
      return { x: limit((event.clientX - area.left) / area.width), y: limit((event.clientY - area.top) / area.height) };
    };
    const value = (part, [low, high]) => low + part * (high - low);
    const isBox = (a, b) => Math.abs(a.y - b.y) > 0.15;
    plot.addEventListener("pointerdown", (event) => {
      if (event.button !== 0 || event.pointerType === "touch") return;
      from = where(event);
      plot.setPointerCapture(event.pointerId);
    });
    plot.addEventListener("pointermove", (event) => {
      const to = where(event);
      const row = nearest(value(to.x, shown.x));
      if (row) read(row);
      if (!from || Math.abs(to.x - from.x) < 0.02) return;
      box = box || element("div", "drag", plot);
      const isHigh = isBox(from, to);
      Object.assign(box.style, {
        left: `${100 * Math.min(from.x, to.x)}%`, width: `${100 * Math.abs(from.x - to.x)}%`,
        top: isHigh ? `${100 * Math.min(from.y, to.y)}%` : "0", height: isHigh ? `${100 * Math.abs(from.y - to.y)}%` : "100%",
      });
    });
    const drop = (event) => {
      const to = where(event), start = from;
      from = null;
      if (!box) return;
      box.remove();
      box = null;
      if (event.type !== "pointerup") return;
      const sorted = (a, b) => a < b ? [a, b] : [b, a];
      const x = sorted(value(start.x, shown.x), value(to.x, shown.x));
      const y = sorted(value(1 - start.y, shown.y), value(1 - to.y, shown.y));
      zoom(x, isBox(start, to) ? y : null);
    };
    plot.addEventListener("pointerup", drop);
    plot.addEventListener("pointercancel", drop);
    plot.addEventListener("pointerleave", () => { if (!from && document.activeElement !== plot) hide(); });
    plot.addEventListener("dblclick", () => zoom(whole.x));

    legend.forEach((entry, line) => {
      entry.addEventListener("click", () => {
        const isShown = hidden.has(line);
        if (isShown) hidden.delete(line); else hidden.add(line);
        entry.setAttribute("aria-pressed", isShown);
        groups[line].toggleAttribute("hidden", !isShown);
        if (at) read(at);
      });
      const pick = (is) => { plot.classList.toggle("picked", is && !hidden.has(line)); groups[line].classList.toggle("chosen", is); };
      entry.addEventListener("pointerenter", () => pick(true));
      entry.addEventListener("pointerleave", () => pick(false));
    });
  });
})();
