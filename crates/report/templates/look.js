// The script of a run's page: the map of its test images and the lists of images.
"use strict";
(() => {
  const data = JSON.parse(document.getElementById("points").textContent);
  const root = document.documentElement;
  const box = document.querySelector(".mapbox"), canvas = box.querySelector("canvas");
  const brush = canvas.getContext("2d");
  const hover = box.querySelector(".hover"), about = box.querySelector(".about-view");
  const count = data.numbers.length, SIDE = 10000;
  const still = matchMedia("(prefers-reduced-motion: reduce)");
  const system = matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : system.matches);
  box.hidden = false;

  // What is seen: the view, the way of coloring, the class that is picked, and the part of the map.
  let view = 0, coloring = "class", picked = null;
  let camera = { x: SIDE / 2, y: SIDE / 2, zoom: 1 };
  const places = Float32Array.from(data.views[0].places);
  let selected = null;
  const isRight = (i) => data.labels[i] === data.predictions[i];
  // Classes beyond the colors of the palette begin again with another mark.
  const MARKS = ["●", "■", "▲", "◆"];
  const perMark = new Set(data.colors.map(String)).size;
  const mark = (label) => Math.floor(label / perMark) % MARKS.length;

  const scale = () => (0.94 * Math.min(canvas.clientWidth, canvas.clientHeight) / SIDE) * camera.zoom;
  const toScreen = (i) => {
    const by = scale();
    return [(places[2 * i] - camera.x) * by + canvas.clientWidth / 2, (places[2 * i + 1] - camera.y) * by + canvas.clientHeight / 2];
  };

  const RIGHT = [["#767676", "#8a8f95"], ["#c41e1e", "#ff6f61"]];
  let loop = [], frame = 0;
  // The dots of each color, faint ones first; kept until the coloring, the class or the loop changes.
  let kept = null;
  const groups = () => {
    if (kept && kept.coloring === coloring && kept.picked === picked && kept.selected === selected) return kept.groups;
    const inLoop = selected && new Set(selected), found = new Map();
    for (let i = 0; i < count; i += 1) {
      const isFaint = (picked !== null && data.labels[i] !== picked) || (inLoop !== null && !inLoop.has(i));
      const key = coloring === "class" ? data.labels[i] : (isRight(i) ? 0 : 1);
      const name = isFaint ? -1 - key : key;
      if (!found.has(name)) found.set(name, { key, isFaint, members: [] });
      found.get(name).members.push(i);
    }
    kept = { coloring, picked, selected, groups: [...found.keys()].sort((a, b) => a - b).map((name) => found.get(name)) };
    return kept.groups;
  };
  const draw = () => {
    frame = 0;
    const dense = devicePixelRatio || 1, width = canvas.clientWidth, height = canvas.clientHeight;
    if (canvas.width !== Math.round(width * dense) || canvas.height !== Math.round(height * dense)) {
      canvas.width = Math.round(width * dense);
      canvas.height = Math.round(height * dense);
    }
    brush.setTransform(dense, 0, 0, dense, 0, 0);
    brush.clearRect(0, 0, width, height);
    const theme = isDark() ? 1 : 0, by = scale();
    const size = Math.min(9, Math.max(2.6, 3.4 * Math.sqrt(camera.zoom) * (count < 2000 ? 1.6 : 1)));
    const halfX = width / 2, halfY = height / 2, half = size / 2;
    for (const { key, isFaint, members } of groups()) {
      brush.globalAlpha = isFaint ? 0.12 : 0.85;
      brush.fillStyle = coloring === "class" ? data.colors[key][theme] : RIGHT[key][theme];
      const form = coloring === "class" ? mark(key) : 0;
      // One path for all dots of a color: filling each alone would not keep up with the screen.
      brush.beginPath();
      for (const i of members) {
        const x = (places[2 * i] - camera.x) * by + halfX, y = (places[2 * i + 1] - camera.y) * by + halfY;
        if (x < -size || y < -size || x > width + size || y > height + size) continue;
        if (form === 1) brush.rect(x - half, y - half, size, size);
        else if (form === 0) { brush.moveTo(x + half, y); brush.arc(x, y, half, 0, 6.2832); }
        else if (form === 2) { brush.moveTo(x, y - half); brush.lineTo(x + half, y + half); brush.lineTo(x - half, y + half); brush.closePath(); }
        else { brush.moveTo(x, y - half * 1.3); brush.lineTo(x + half, y); brush.lineTo(x, y + half * 1.3); brush.lineTo(x - half, y); brush.closePath(); }
      }
      brush.fill();
    }
    brush.globalAlpha = 1;
    if (loop.length > 1) {
      brush.beginPath();
      loop.forEach(([x, y], i) => (i ? brush.lineTo(x, y) : brush.moveTo(x, y)));
      brush.closePath();
      brush.strokeStyle = theme ? "#7cbcec" : "#0b5a8f";
      brush.lineWidth = 1.5;
      brush.stroke();
      brush.fillStyle = theme ? "rgb(124 188 236 / .12)" : "rgb(11 90 143 / .08)";
      brush.fill();
    }
  };
  const redraw = () => { if (!frame) frame = requestAnimationFrame(draw); };

  const pressed = (group, button) => group.querySelectorAll("button").forEach((other) => other.setAttribute("aria-pressed", other === button));
  const show = (next) => {
    view = next;
    about.textContent = data.views[view].about;
    const from = Float32Array.from(places), to = data.views[view].places, start = performance.now(), length = still.matches ? 0 : 450;
    const step = (now) => {
      const part = length ? Math.min(1, Math.max(0, (now - start) / length)) : 1, eased = part * part * (3 - 2 * part);
      for (let i = 0; i < places.length; i += 1) places[i] = from[i] + (to[i] - from[i]) * eased;
      draw();
      if (part < 1 && view === next) requestAnimationFrame(step);
    };
    step(start);
  };
  box.querySelectorAll("[data-view]").forEach((button) => button.addEventListener("click", () => { pressed(button.parentElement, button); show(Number(button.dataset.view)); }));

  // The legend picks a class, on the map and in the list.
  const legend = box.querySelector(".classes");
  const ofClass = box.querySelector(".of-class"), ofOutcome = box.querySelector(".of-outcome");
  const label = () => {
    legend.replaceChildren();
    const entry = (text, [light, dark], sign, value) => {
      const button = document.createElement("button");
      button.type = "button";
      button.style.cssText = `--c:${light};--d:${dark}`;
      const key = document.createElement("span");
      key.className = "key";
      key.textContent = sign;
      key.setAttribute("aria-hidden", "true");
      button.append(key, text);
      if (value === undefined) button.disabled = true;
      else {
        button.setAttribute("aria-pressed", picked === null || picked === value);
        button.addEventListener("click", () => {
          pick(picked === value ? null : value);
          legend.querySelectorAll("button")[[...ofClass.options].slice(1).findIndex((o) => Number(o.value) === value)].focus();
        });
      }
      legend.append(button);
    };
    if (coloring === "class") {
      for (const option of [...ofClass.options].slice(1)) entry(option.textContent, data.colors[option.value], MARKS[mark(Number(option.value))], Number(option.value));
    } else {
      entry("right", RIGHT[0], "●");
      entry("wrong", RIGHT[1], "●");
    }
  };
  box.querySelectorAll("[data-color]").forEach((button) => button.addEventListener("click", () => {
    pressed(button.parentElement, button);
    coloring = button.dataset.color;
    label();
    redraw();
  }));

  // The list: the images of the loop, of a class, right or wrong.
  const list = box.querySelector(".images"), counted = box.querySelector(".counted");
  const more = box.querySelector(".more"), clear = box.querySelector(".clear");
  const AT_ONCE = 60;
  let listed = [], until = 0;
  const tile = (span, i) => { span.style.setProperty("--x", i % data.columns); span.style.setProperty("--y", Math.floor(i / data.columns)); };
  const said = (i) => (isRight(i) ? `${data.classes[data.labels[i]]} ✓` : `${data.classes[data.labels[i]]}, taken for ${data.classes[data.predictions[i]]} ✗`);
  const extend = () => {
    for (const i of listed.slice(until, until + AT_ONCE)) {
      const item = document.createElement("li");
      if (data.columns) {
        const thumbnail = document.createElement("span");
        thumbnail.className = "tile map";
        thumbnail.setAttribute("aria-hidden", "true");
        tile(thumbnail, i);
        item.append(thumbnail);
      }
      const text = document.createElement("span");
      text.className = isRight(i) ? "is-right" : "is-wrong";
      text.textContent = said(i);
      const number = document.createElement("span");
      number.className = "which";
      number.textContent = ` ${data.numbers[i]}`;
      item.append(text, number);
      list.append(item);
    }
    until = Math.min(until + AT_ONCE, listed.length);
    more.hidden = until >= listed.length;
    const wrong = listed.filter((i) => !isRight(i)).length;
    counted.textContent = `${listed.length} images${selected ? " in the loop" : ""}, ${wrong} of them predicted wrong; ${until} are listed.`;
  };
  const fill = () => {
    const outcome = ofOutcome.value;
    listed = (selected || [...Array(count).keys()]).filter((i) => (picked === null || data.labels[i] === picked) && (!outcome || isRight(i) === (outcome === "right")));
    list.replaceChildren();
    until = 0;
    clear.hidden = !selected;
    extend();
  };
  const pick = (value) => {
    picked = value;
    ofClass.value = value === null ? "" : String(value);
    label();
    redraw();
    fill();
  };
  ofClass.addEventListener("change", () => pick(ofClass.value === "" ? null : Number(ofClass.value)));
  ofOutcome.addEventListener("change", fill);
  more.addEventListener("click", () => { const first = until; extend(); if (more.hidden) { list.children[first].tabIndex = -1; list.children[first].focus(); } });
  clear.addEventListener("click", () => { selected = null; redraw(); fill(); ofClass.focus(); });

  // Pointing and looping.
  const nearest = (x, y) => {
    let best = -1, least = 14 * 14;
    for (let i = 0; i < count; i += 1) {
      if (picked !== null && data.labels[i] !== picked) continue;
      const [px, py] = toScreen(i), square = (px - x) ** 2 + (py - y) ** 2;
      if (square < least) { least = square; best = i; }
    }
    return best;
  };
  const point = (x, y) => {
    const i = nearest(x, y);
    hover.hidden = i < 0;
    if (i < 0) return;
    const thumbnail = hover.querySelector(".tile");
    thumbnail.hidden = !data.columns;
    thumbnail.style.display = data.columns ? "" : "none";
    if (data.columns) tile(thumbnail, i);
    hover.querySelector("p").textContent = `${said(i)} · image ${data.numbers[i]}`;
    const isLeft = x > canvas.clientWidth / 2;
    hover.style.left = isLeft ? "auto" : `${x + 14}px`;
    hover.style.right = isLeft ? `${canvas.clientWidth - x + 14}px` : "auto";
    hover.style.top = `${Math.min(y, canvas.clientHeight - 96)}px`;
  };
  const where = (event) => { const area = canvas.getBoundingClientRect(); return [event.clientX - area.left, event.clientY - area.top]; };
  const holds = (shape, x, y) => {
    let inside = false;
    for (let i = 0, j = shape.length - 1; i < shape.length; j = i, i += 1) {
      const [ax, ay] = shape[i], [bx, by] = shape[j];
      if ((ay > y) !== (by > y) && x < ((bx - ax) * (y - ay)) / (by - ay) + ax) inside = !inside;
    }
    return inside;
  };
  canvas.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    canvas.setPointerCapture(event.pointerId);
    loop = [where(event)];
    hover.hidden = true;
  });
  canvas.addEventListener("pointermove", (event) => {
    const at = where(event);
    if (!loop.length) { point(...at); return; }
    const last = loop[loop.length - 1];
    if ((last[0] - at[0]) ** 2 + (last[1] - at[1]) ** 2 > 16) loop.push(at);
    redraw();
  });
  canvas.addEventListener("pointerup", () => {
    if (loop.length > 3) {
      const shape = loop;
      selected = [...Array(count).keys()].filter((i) => holds(shape, ...toScreen(i)));
      if (!selected.length) selected = null;
    } else if (loop.length) {
      selected = null;
    }
    loop = [];
    redraw();
    fill();
  });
  canvas.addEventListener("pointercancel", () => { loop = []; redraw(); });
  canvas.addEventListener("pointerleave", () => { hover.hidden = true; });

  // Zooming and moving.
  const zoom = (by, x = canvas.clientWidth / 2, y = canvas.clientHeight / 2) => {
    const before = scale(), dx = x - canvas.clientWidth / 2, dy = y - canvas.clientHeight / 2;
    camera.zoom = Math.min(60, Math.max(1, camera.zoom * by));
    const after = scale();
    camera.x += dx / before - dx / after;
    camera.y += dy / before - dy / after;
    if (camera.zoom === 1) camera = { x: SIDE / 2, y: SIDE / 2, zoom: 1 };
    hover.hidden = true;
    redraw();
  };
  const reset = () => { camera = { x: SIDE / 2, y: SIDE / 2, zoom: 1 }; hover.hidden = true; redraw(); };
  const ways = { in: () => zoom(1.6), out: () => zoom(1 / 1.6), reset };
  box.querySelectorAll("[data-zoom]").forEach((button) => button.addEventListener("click", () => ways[button.dataset.zoom]()));
  // A wheel scrolls the page unless the map has the focus.
  canvas.addEventListener("wheel", (event) => {
    if (document.activeElement !== canvas && !event.ctrlKey) return;
    event.preventDefault();
    zoom(Math.exp(-event.deltaY / 400), ...where(event));
  }, { passive: false });
  canvas.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const by = 60 / scale();
    const moves = { ArrowLeft: [-by, 0], ArrowRight: [by, 0], ArrowUp: [0, -by], ArrowDown: [0, by] };
    if (event.key in moves) { camera.x += moves[event.key][0]; camera.y += moves[event.key][1]; redraw(); }
    else if (event.key === "+" || event.key === "=") zoom(1.6);
    else if (event.key === "-") zoom(1 / 1.6);
    else if (event.key === "0" || event.key === "Escape") reset();
    else return;
    event.preventDefault();
  });

  // The neighbors: those of a class, and not all at once.
  const ofQuery = document.querySelector(".of-query"), moreQueries = document.querySelector(".more-queries");
  if (ofQuery) {
    const queries = [...document.querySelectorAll(".queries > li")];
    let most = 20;
    const fit = () => {
      const wanted = queries.filter((query) => ofQuery.value === "" || query.dataset.class === ofQuery.value);
      queries.forEach((query) => { query.hidden = true; });
      wanted.slice(0, most).forEach((query) => { query.hidden = false; });
      moreQueries.hidden = wanted.length <= most;
    };
    ofQuery.addEventListener("change", fit);
    moreQueries.addEventListener("click", () => { most += 20; fit(); });
    fit();
  }

  new ResizeObserver(redraw).observe(canvas);
  new MutationObserver(redraw).observe(root, { attributes: true, attributeFilter: ["data-theme"] });
  system.addEventListener("change", redraw);
  about.textContent = data.views[0].about;
  label();
  fill();
  redraw();
})();
