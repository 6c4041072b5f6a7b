// Search, facets, list and map of an atlas. The index is scripts that call `deepgpsAtlas`, so that it also loads
// where pages may not fetch: from a folder. Text of the index never becomes markup.
"use strict";

const deepgpsAtlas = (() => {
  // The order in which the index holds a protein.
  const [NAME, ID, ACCESSION, SYNONYMS, STEM, LENGTH, OVERALL, KNOWN, PREDICTED, CONFIDENCE, CERTAINTY, AGREEMENT,
    CONFLICT, SIGNALS, WORDS, X, Y] = Array(17).keys();
  const ROW = 88, AROUND = 6, POINT = 2.2, NEAR = 14, MAP = 9999;
  const BINS = [[95, 101, "0.95 or more"], [85, 95, "0.85 to 0.95"], [75, 85, "0.75 to 0.85"], [65, 75, "0.65 to 0.75"],
    [55, 65, "0.55 to 0.65"], [0, 55, "below 0.55"]];
  const at = (id) => document.getElementById(id);
  const make = (tag, text, parent) => {
    const element = document.createElement(tag);
    if (text) element.textContent = text;
    if (parent) parent.append(element);
    return element;
  };
  const pageOf = (row) => `p/${row[STEM].split("/").map(encodeURIComponent).join("/")}.html`;
  const imageOf = (row) => `${pageOf(row).slice(0, -5)}.${encodeURIComponent(about.image)}.webp`;

  let about, loaded = 0, rows = [], shards = [], texts = [], options = [], words = [], found = [], chosen = null, own = "";
  let state = { q: "", sort: "", view: "", facets: {} };

  // --- facets: name, title, options, and the options of a protein

  let facets = [];

  function defineFacets() {
    const classes = about.classes, bin = (value) => BINS.findIndex(([low, high]) => value !== null && value >= low && value < high);
    facets = [
      ["overall", "Overall", classes, (row) => row[OVERALL]],
      ["known", "Known", [...classes, "nothing"], (row) => row[KNOWN].length ? row[KNOWN] : [classes.length]],
      ["predicted", "Predicted", classes, (row) => row[PREDICTED]],
      ["confidence", "Confidence", BINS.map((each) => each[2]), (row) => [bin(row[CONFIDENCE])]],
      ["agreement", "Agreement", about.agreements, (row) => [row[AGREEMENT]]],
      ["sources", "Sources", ["do not differ", "differ"], (row) => [row[CONFLICT]]],
      ["signals", "Signals", [...about.signals.map((each) => each[1]), "none"],
        (row) => row[SIGNALS].length ? row[SIGNALS] : [about.signals.length]],
    ].map(([name, title, options, of]) => ({ name, title, options, of, inputs: [] }));
    for (const facet of facets) {
      const details = make("details", "", at("facets"));
      facet.summary = make("summary", facet.title, details);
      const set = make("fieldset", "", details);
      make("legend", facet.title, set).className = "hidden";
      facet.options.forEach((option, place) => {
        const label = make("label", "", set), input = make("input", "", label);
        input.type = "checkbox";
        input.addEventListener("change", () => {
          const now = new Set(state.facets[facet.name] || []);
          if (input.checked) now.add(place); else now.delete(place);
          state.facets[facet.name] = [...now].sort((a, b) => a - b);
          change();
        });
        label.append(option);
        facet.inputs.push({ input, label, count: make("span", "", label) });
      });
    }
  }

  // --- state, in the address

  function readState() {
    const given = new URLSearchParams(location.hash.slice(1));
    state = { q: given.get("q") || "", sort: given.get("sort") || "", view: given.get("view") || "", facets: {} };
    for (const facet of facets) {
      const chosen = (given.get(facet.name) || "").split(",").filter((each) => /^\d+$/.test(each)).map(Number)
        .filter((each) => each < facet.options.length);
      if (chosen.length) state.facets[facet.name] = chosen;
    }
    at("q").value = state.q;
    at("sort").value = state.sort;
    if (!at("sort").value) at("sort").value = state.sort = "";
  }

  function writeState() {
    const given = new URLSearchParams();
    for (const name of ["q", "sort", "view"]) if (state[name]) given.set(name, state[name]);
    for (const [name, chosen] of Object.entries(state.facets)) if (chosen.length) given.set(name, chosen.join(","));
    own = given.toString() ? `#${given}` : "#";
    if ((location.hash || "#") !== own) location.replace(own);
  }

  const change = () => { writeState(); search(); window.scrollTo(0, Math.min(window.scrollY, at("app").offsetTop)); };

  // --- search

  function score(place, tokens, named) {
    const row = rows[place], text = texts[place];
    let sum = 0;
    for (let number = 0; number < tokens.length; number++) {
      const token = tokens[number], spot = text.indexOf(token);
      if (spot < 0) {
        if (!named[number].size || !row[WORDS].some((each) => named[number].has(each))) return -1;
        continue;
      }
      const names = [row[NAME], row[ID], row[ACCESSION]];
      if (names.some((each) => each.toLowerCase() === token)) sum += 8;
      else if (` ${row[SYNONYMS].toLowerCase()} `.includes(` ${token} `)) sum += 4;
      else sum += spot ? 1 : 2;
    }
    return sum;
  }

  function search() {
    const tokens = state.q.toLowerCase().split(/\s+/).filter(Boolean);
    // The words of sources that hold each token.
    const named = tokens.map((token) => new Set(words.flatMap((word, place) => (word.includes(token) ? [place] : []))));
    const active = facets.map((facet) => new Set(state.facets[facet.name] || []));
    const counts = facets.map((facet) => new Uint32Array(facet.options.length));
    const scores = new Float32Array(rows.length);
    found = [];
    for (let place = 0; place < rows.length; place++) {
      scores[place] = tokens.length ? score(place, tokens, named) : 0;
      if (scores[place] < 0) continue;
      let misses = 0, missed = -1;
      const own = options[place];
      for (let number = 0; number < facets.length && misses < 2; number++) {
        if (active[number].size && !own[number].some((each) => active[number].has(each))) { misses++; missed = number; }
      }
      if (misses > 1) continue;
      // A facet counts what the other facets find, so that its numbers say what choosing it would give.
      for (let number = 0; number < facets.length; number++) {
        if (misses === 0 || missed === number) for (const each of own[number]) if (each >= 0) counts[number][each]++;
      }
      if (!misses) found.push(place);
    }
    const by = {
      confidence: (a, b) => rows[b][CONFIDENCE] - rows[a][CONFIDENCE],
      unsure: (a, b) => rows[a][CONFIDENCE] - rows[b][CONFIDENCE],
      predicted: (a, b) => rows[b][CERTAINTY] - rows[a][CERTAINTY],
    }[state.sort] || ((a, b) => scores[b] - scores[a]);
    // Rows are in the order of names, and the sort keeps it.
    if (state.sort !== "name" && (state.sort || tokens.length)) found.sort(by);
    facets.forEach((facet, number) => {
      const size = active[number].size;
      facet.summary.textContent = size ? `${facet.title} (${size})` : facet.title;
      facet.inputs.forEach(({ input, label, count }, place) => {
        input.checked = active[number].has(place);
        count.textContent = counts[number][place].toLocaleString("en");
        label.hidden = !counts[number][place] && !input.checked;
      });
    });
    const rest = loaded < about.shards ? `, ${rows.length.toLocaleString("en")} of ${about.count.toLocaleString("en")} loaded` : "";
    at("count").textContent = `${found.length.toLocaleString("en")} ${found.length === 1 ? "protein" : "proteins"}${rest}`;
    show();
  }

  // --- list

  const shown = new Map();

  function line(place, number) {
    const row = rows[place], item = document.createElement("li"), names = (own) => own.map((each) => about.classes[each]).join(", ");
    if (about.image !== null) {
      const image = make("img", "", item);
      image.alt = "";
      image.loading = "lazy";
      image.width = image.height = 72;
      image.src = imageOf(row);
    }
    const text = make("div", "", item), first = make("p", "", text);
    make("a", row[NAME], first).href = pageOf(row);
    const others = [row[ID], row[ACCESSION], row[SYNONYMS]].filter(Boolean).join(" · ");
    if (others) make("small", ` ${others}`, first);
    make("p", `${names(row[OVERALL]) || "no label"}${row[CONFIDENCE] === null ? "" : ` ${(row[CONFIDENCE] / 100).toFixed(2)}`}`, text);
    const agreement = about.agreements[row[AGREEMENT]];
    make("p", `known: ${names(row[KNOWN]) || "nothing"} · predicted: ${names(row[PREDICTED])}${agreement === "differ" ? " · differ" : ""}`, text)
      .className = "faint";
    item.setAttribute("aria-posinset", number + 1);
    item.setAttribute("aria-setsize", found.length);
    item.style.transform = `translateY(${number * ROW}px)`;
    return item;
  }

  function showList() {
    const list = at("list");
    list.style.height = `${found.length * ROW}px`;
    const top = list.getBoundingClientRect().top;
    const first = Math.max(0, Math.floor(-top / ROW) - AROUND);
    const last = Math.min(found.length, Math.ceil((window.innerHeight - top) / ROW) + AROUND);
    const wanted = new Set();
    for (let number = first; number < last; number++) wanted.add(`${number} ${found[number]} ${found.length}`);
    for (const [key, item] of shown) if (!wanted.has(key)) { item.remove(); shown.delete(key); }
    let before = null;
    for (let number = last - 1; number >= first; number--) {
      const key = `${number} ${found[number]} ${found.length}`;
      if (!shown.has(key)) {
        shown.set(key, line(found[number], number));
        list.insertBefore(shown.get(key), before);
      }
      before = shown.get(key);
    }
  }

  function show() {
    const map = state.view === "map";
    at("list").hidden = map;
    at("map").hidden = !map;
    at("as-list").setAttribute("aria-pressed", String(!map));
    at("as-map").setAttribute("aria-pressed", String(map));
    if (map) draw(); else showList();
  }

  // --- map

  let view = { x: 0.5, y: 0.5, zoom: 1 }, drawing = false;

  const colours = () => {
    const style = getComputedStyle(document.documentElement), own = (name) => style.getPropertyValue(name).trim();
    return { of: (place) => own(`--c${Math.min(place, about.classes.length - 1) === about.classes.length - 1 ? 12 : place % 12}`), away: own("--away"), ink: own("--ink") };
  };

  // Each axis fills the canvas: their units mean nothing.
  const scale = (canvas) => [canvas.clientWidth, canvas.clientHeight].map((edge) => edge * 0.94 * view.zoom);
  const toScreen = (row, [wide, high], canvas) => [
    canvas.clientWidth / 2 + (row[X] / MAP - view.x) * wide,
    canvas.clientHeight / 2 - (row[Y] / MAP - view.y) * high,
  ];

  function draw() {
    if (drawing) return;
    drawing = true;
    requestAnimationFrame(() => {
      drawing = false;
      const canvas = at("canvas"), dense = window.devicePixelRatio || 1;
      canvas.width = canvas.clientWidth * dense;
      canvas.height = canvas.clientHeight * dense;
      const paint = canvas.getContext("2d"), colour = colours(), size = POINT * Math.min(3, Math.sqrt(view.zoom));
      paint.scale(dense, dense);
      const scales = scale(canvas);
      const dot = (row, radius) => {
        const [x, y] = toScreen(row, scales, canvas);
        paint.moveTo(x + radius, y);
        paint.arc(x, y, radius, 0, 7);
      };
      const groups = about.classes.map(() => []), here = new Uint8Array(rows.length);
      for (const place of found) { here[place] = 1; groups[rows[place][OVERALL][0] ?? about.classes.length - 1].push(rows[place]); }
      paint.fillStyle = colour.away;
      paint.beginPath();
      rows.forEach((row, place) => { if (!here[place]) dot(row, size * 0.8); });
      paint.fill();
      groups.forEach((group, place) => {
        paint.fillStyle = colour.of(place);
        paint.beginPath();
        for (const row of group) dot(row, size);
        paint.fill();
      });
      if (chosen) {
        paint.strokeStyle = colour.ink;
        paint.lineWidth = 2;
        paint.beginPath();
        dot(chosen, size + 4);
        paint.stroke();
      }
    });
  }

  function drawLegend() {
    const present = new Set(rows.map((row) => row[OVERALL][0]));
    at("legend").replaceChildren(...about.classes.map((name, place) => [name, place]).filter(([, place]) => present.has(place)).map(([name, place]) => {
      const item = make("li"), mark = document.createElementNS("http://www.w3.org/2000/svg", "svg");
      mark.setAttribute("viewBox", "0 0 10 10");
      mark.setAttribute("aria-hidden", "true");
      const circle = document.createElementNS("http://www.w3.org/2000/svg", "circle");
      for (const [key, value] of [["cx", 5], ["cy", 5], ["r", 5]]) circle.setAttribute(key, value);
      circle.style.fill = colours().of(place);
      mark.append(circle);
      item.append(mark, name);
      return item;
    }));
  }

  function choose(x, y) {
    const canvas = at("canvas"), scales = scale(canvas);
    let best = null, least = NEAR ** 2;
    for (const place of found) {
      const [a, b] = toScreen(rows[place], scales, canvas), distance = (a - x) ** 2 + (b - y) ** 2;
      if (distance < least) { least = distance; best = rows[place]; }
    }
    chosen = best;
    const text = at("chosen");
    text.replaceChildren();
    if (best) {
      make("a", best[NAME], text).href = pageOf(best);
      text.append(` ${[best[ID], best[SYNONYMS]].filter(Boolean).join(" · ")} – ${best[OVERALL].map((each) => about.classes[each]).join(", ")}`);
    }
    draw();
  }

  function zoomBy(factor, x, y) {
    const canvas = at("canvas"), before = scale(canvas);
    view.zoom = Math.max(0.8, Math.min(200, view.zoom * factor));
    // What is below the pointer stays there.
    const [across, up] = scale(canvas).map((now, axis) => 1 / before[axis] - 1 / now);
    view.x += (x - canvas.clientWidth / 2) * across;
    view.y -= (y - canvas.clientHeight / 2) * up;
    draw();
  }

  function moveBy(x, y) {
    const [wide, high] = scale(at("canvas"));
    view.x -= x / wide;
    view.y += y / high;
    draw();
  }

  function listenToMap() {
    const canvas = at("canvas"), middle = () => [canvas.clientWidth / 2, canvas.clientHeight / 2];
    const pointers = new Map();
    let moved = 0;
    const spread = () => { const [a, b] = [...pointers.values()]; return Math.hypot(a[0] - b[0], a[1] - b[1]); };
    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      if (!pointers.size) moved = 0;
      pointers.set(event.pointerId, [event.offsetX, event.offsetY]);
    });
    canvas.addEventListener("pointermove", (event) => {
      const before = pointers.get(event.pointerId);
      if (!before) return;
      const now = [event.offsetX, event.offsetY];
      moved += Math.hypot(now[0] - before[0], now[1] - before[1]);
      if (pointers.size === 2) {
        const wide = spread();
        pointers.set(event.pointerId, now);
        const [a, b] = [...pointers.values()];
        if (wide > 0) zoomBy(spread() / wide, (a[0] + b[0]) / 2, (a[1] + b[1]) / 2);
        return;
      }
      pointers.set(event.pointerId, now);
      if (moved > 4) moveBy(now[0] - before[0], now[1] - before[1]);
    });
    const end = (event) => {
      if (pointers.delete(event.pointerId) && event.type === "pointerup" && moved <= 4) choose(event.offsetX, event.offsetY);
    };
    canvas.addEventListener("pointerup", end);
    canvas.addEventListener("pointercancel", end);
    canvas.addEventListener("wheel", (event) => {
      event.preventDefault();
      zoomBy(Math.exp(-event.deltaY / 400), event.offsetX, event.offsetY);
    }, { passive: false });
    canvas.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: [40, 0], ArrowRight: [-40, 0], ArrowUp: [0, 40], ArrowDown: [0, -40] }[event.key];
      if (step) moveBy(...step);
      else if (event.key === "+" || event.key === "=") zoomBy(1.4, ...middle());
      else if (event.key === "-") zoomBy(1 / 1.4, ...middle());
      else if (event.key === "Enter") choose(...middle());
      else return;
      event.preventDefault();
    });
    at("closer").addEventListener("click", () => zoomBy(1.6, ...middle()));
    at("farther").addEventListener("click", () => zoomBy(1 / 1.6, ...middle()));
    at("whole").addEventListener("click", () => { view = { x: 0.5, y: 0.5, zoom: 1 }; draw(); });
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { drawLegend(); if (state.view === "map") draw(); });
  }

  // --- loading

  function load(number) {
    if (number >= about.shards) return;
    const script = document.createElement("script");
    script.src = `index/${number}.js`;
    script.addEventListener("error", () => { at("count").textContent = `The index cannot be loaded (index/${number}.js).`; });
    document.head.append(script);
  }

  function start(given) {
    about = given;
    words = about.words.map((each) => each.toLowerCase());
    at("app").hidden = false;
    defineFacets();
    readState();
    at("search").addEventListener("submit", (event) => event.preventDefault());
    at("q").addEventListener("input", () => { state.q = at("q").value; change(); });
    at("sort").addEventListener("change", () => { state.sort = at("sort").value; change(); });
    at("as-list").addEventListener("click", () => { state.view = ""; change(); });
    at("as-map").addEventListener("click", () => { state.view = "map"; change(); });
    window.addEventListener("hashchange", () => { if ((location.hash || "#") !== own) { readState(); own = location.hash; search(); } });
    window.addEventListener("scroll", () => { if (state.view !== "map") showList(); }, { passive: true });
    window.addEventListener("resize", show);
    listenToMap();
  }

  // Shards arrive in order: each is asked for after the one before it.
  function add(number, given) {
    if (shards[number]) return;
    shards[number] = true;
    loaded++;
    const classes = (row) => row[OVERALL].map((each) => about.classes[each]).join(" ");
    for (const row of given) {
      rows.push(row);
      options.push(facets.map((facet) => facet.of(row)));
      texts.push([row[NAME], row[ID], row[ACCESSION], row[SYNONYMS], classes(row)].join(" ").toLowerCase());
    }
    if (loaded === about.shards || loaded === 1 || loaded % 8 === 0) { search(); drawLegend(); }
    setTimeout(() => load(number + 1), loaded === 1 ? 200 : 0);
  }

  return { start, add };
})();
