// Draws the timelines of a report. All data come from data/*.js in this folder; nothing is fetched.
//
// A run: {id, words, end_s, starts_s, dates, nodes: [node]}; a node: {name, asleep, clocks, walls, tracks}. Times are
// seconds of world time. dates: {from_s, zone, offsets} where people know the run by its dates, else null: Unix time at
// world time 0, the name of their time zone, and its offsets from UTC as [[since when, seconds]]. Every plot of a page
// shows one range of one time axis: world time, or each node's own wall clock.
"use strict";

const MESHWAKE = (() => {
  const runs = new Map();
  const plots = []; // {run, node, box, div, drawn}
  const page = { axis: "world", range: null, cursor: null };
  const NARROW_PX = 760;
  const DAY_S = 86400;
  const STEPS_S = [1, 5, 15, 30, 60, 300, 900, 1800, 3600, 3 * 3600, 6 * 3600, 12 * 3600, DAY_S, 2 * DAY_S, 7 * DAY_S,
    14 * DAY_S, 30 * DAY_S, 90 * DAY_S, 365 * DAY_S];
  const HEIGHT = { fresh: .2, overdue: .2, expired: .4, "expired-asleep": .4, works: .08, fails: .36, fault: .24 };
  const COLOUR = { fresh: "--fresh", overdue: "--overdue", expired: "--expired", "expired-asleep": "--expired",
    works: "--works", fails: "--fails", fault: "--fault" };
  const MARKS = {
    due: ["diamond-open", "--overdue", "renewal due"], renewed: ["triangle-up", "--fresh", "renewed"],
    issued: ["circle", "--fresh", "issued"], dropped: ["x-thin-open", "--expired", "dropped"],
    refused: ["line-ns-open", "--soft", "request not answered"], failed: ["line-ns-open", "--card", "failed"],
    restarted: ["star-triangle-up", "--good", "restart"], stepped: ["hourglass", "--fault", "step"],
    alerted: ["star", "--bad", "alert"],
  };

  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const two = (number) => String(number).padStart(2, "0");
  const clamp = (value, least, most) => Math.min(Math.max(value, least), most);

  // --- words ---------------------------------------------------------------------------------------------------------

  const DAYS = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"];

  // "Local" seconds are those since 1970 by the clock on a wall, so that UTC's calendar shows them.
  const UTC = { from_s: 0, zone: "UTC", offsets: [[0, 0]] };
  function offsetAt(dates, unix_s) {
    let found = dates.offsets[0][1];
    for (const [since_s, offset_s] of dates.offsets) if (since_s <= unix_s) found = offset_s;
    return found;
  }
  const localOf = (dates, unix_s) => unix_s + offsetAt(dates, unix_s);
  // Whether clocks show the same at another moment, as in the hour in which summer time ends.
  function isRepeated(dates, unix_s) {
    const local_s = localOf(dates, unix_s), others = dates.offsets.map(([, offset_s]) => local_s - offset_s);
    return others.some((other_s) => other_s !== unix_s && localOf(dates, other_s) === local_s);
  }
  function offsetText(offset_s) {
    const minutes = Math.abs(offset_s) / 60;
    return `${offset_s < 0 ? "-" : "+"}${two(Math.floor(minutes / 60))}:${two(minutes % 60)}`;
  }

  function moment(run, world_s, exact) {
    if (run.dates) return dateText(run.dates, Math.floor(run.dates.from_s + world_s + 1e-6), exact);
    const at = Math.floor(world_s + 1e-6), day = Math.floor(at / DAY_S), rest = at - day * DAY_S;
    const text = `day ${day} ${two(Math.floor(rest / 3600))}:${two(Math.floor(rest / 60) % 60)}`;
    return exact ? `${text}:${two(rest % 60)}` : text;
  }
  function wallText(dates, unix_s, exact) {
    const text = new Date(localOf(dates, unix_s) * 1000).toISOString().replace("T", " ").slice(0, exact ? 19 : 16);
    return isRepeated(dates, unix_s) ? `${text} ${offsetText(offsetAt(dates, unix_s))}` : text;
  }
  const dateText = (dates, unix_s, exact) => `${DAYS[new Date(localOf(dates, unix_s) * 1000).getUTCDay()]} ${wallText(dates, unix_s, exact)}`;
  // The wall clock of a run that was moved to other years shows the dates that people know it by.
  const shownWall = (run, wall_s) => (run.dates ? wall_s - run.starts_s + run.dates.from_s : wall_s);
  function lasting(length_s) {
    const sign = length_s < 0 ? "-" : "", rest = Math.abs(length_s);
    if (rest < 60) return `${sign}${Math.round(rest * 10) / 10} s`;
    for (const [small, small_s, large, large_s] of [["s", 1, "m", 60], ["m", 60, "h", 3600], ["h", 3600, "d", DAY_S]]) {
      const whole = Math.round(rest / small_s), ratio = large_s / small_s, many = Math.floor(whole / ratio), few = whole % ratio;
      if (large === "d" || rest < (large === "m" ? 3600 : DAY_S)) return `${sign}${many} ${large}${few ? ` ${few} ${small}` : ""}`;
    }
    return "";
  }

  // --- the time axis -------------------------------------------------------------------------------------------------

  // Both ways along the (world, wall) points of a node, between which the wall clock is a straight line.
  function along(points, from, to, value) {
    let low = 0, high = points.length - 1;
    if (high < 0) return value;
    if (value <= points[0][from]) return points[0][to] + value - points[0][from];
    if (value >= points[high][from]) return points[high][to] + value - points[high][from];
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      if (points[middle][from] <= value) low = middle; else high = middle;
    }
    const run = points[high][from] - points[low][from];
    return points[low][to] + (run ? (value - points[low][from]) / run * (points[high][to] - points[low][to]) : 0);
  }
  const toAxis = (node, world_s) => (page.axis === "world" ? world_s : along(node.walls, 0, 1, world_s));
  const fromAxis = (node, value) => (page.axis === "world" ? value : along(node.walls, 1, 0, value));

  function whole() {
    if (page.axis === "world") return [0, Math.max(...plots.map((plot) => plot.run.end_s))];
    const ends = plots.map((plot) => [toAxis(plot.node, 0), toAxis(plot.node, plot.run.end_s)]);
    return [Math.min(...ends.map((pair) => pair[0])), Math.max(...ends.map((pair) => pair[1]))];
  }
  // What the axis of a run shows: by how much Unix time is ahead of its values, and the offsets of its zone. World time
  // without dates is shown as it is.
  function shownAs(run) {
    if (!run.dates) return { ahead: 0, dates: UTC };
    return { ahead: page.axis === "world" ? run.dates.from_s : run.dates.from_s - run.starts_s, dates: run.dates };
  }
  // The parts of an axis with one offset from UTC, each with how far ahead of its values clocks are there.
  function spansOf(run, range) {
    const { ahead, dates } = shownAs(run);
    return dates.offsets.map(([since_s, offset_s], at, all) => ({
      from: at ? Math.max(range[0], since_s - ahead) : range[0],
      to: at + 1 < all.length ? Math.min(range[1], all[at + 1][0] - ahead - 1e-6) : range[1],
      local: ahead + offset_s,
    })).filter((span) => span.from <= span.to);
  }
  function ticks(run, range, width_px) {
    const length = range[1] - range[0], day_px = showsDays(run) ? 62 : 84;
    const fits = (step) => length / step <= Math.max(2, Math.floor(width_px / (step >= DAY_S ? day_px : 95)));
    const step = STEPS_S.find(fits) || STEPS_S[STEPS_S.length - 1];
    const values = [], texts = [];
    for (const { from, to, local } of spansOf(run, range)) {
      for (let at = Math.ceil((from + local) / step) * step - local; at <= to && values.length < 60; at += step) {
        values.push(at);
        texts.push(tickText(run, at + local, step, values.length === 1));
      }
    }
    return { tickvals: values, ticktext: texts };
  }
  // Days of world time, not dates.
  const showsDays = (run) => page.axis === "world" && !run.dates;
  // `at`: local seconds, or world time where the run has no dates.
  function tickText(run, at, step, first) {
    const rest = ((at % DAY_S) + DAY_S) % DAY_S, day = dayText(run, at);
    const time = `${two(Math.floor(rest / 3600))}:${two(Math.floor(rest / 60) % 60)}${step < 60 ? `:${two(rest % 60)}` : ""}`;
    if (step >= DAY_S) return day;
    return first || rest === 0 ? `${time}<br>${day}` : time;
  }
  function dayText(run, at) {
    if (showsDays(run)) return `day ${Math.floor(at / DAY_S)}`;
    return new Date(at * 1000).toISOString().slice(0, 10);
  }

  // --- a plot --------------------------------------------------------------------------------------------------------

  function rectangles(node, spans, low, high) {
    const x = [], y = [];
    for (const [from, to, at = 0] of spans) {
      const a = toAxis(node, from), b = toAxis(node, to);
      x.push(a, b, b, a, a, null);
      y.push(at + low, at + low, at + high, at + high, at + low, null);
    }
    return { x, y };
  }
  function filled(node, spans, low, high, paint, more) {
    return { ...rectangles(node, spans, low, high), type: "scatter", mode: "lines", fill: "toself", fillcolor: paint,
      line: { width: .6, color: paint }, hoverinfo: "skip", showlegend: false, ...more };
  }
  function unitOf(most_s) {
    if (most_s < 180) return [1, "s"];
    if (most_s < 3 * 3600) return [60, "min"];
    return most_s < 4 * DAY_S ? [3600, "h"] : [DAY_S, "d"];
  }

  function clockTraces(plot) {
    const { node } = plot, { t, wall, mono, boot } = node.clocks;
    const all = [...wall, ...mono, ...boot, 0];
    const [unit_s, unit] = unitOf(Math.max(...all.map(Math.abs)));
    const least = Math.min(...all) / unit_s, most = Math.max(...all) / unit_s, air = Math.max((most - least) * .14, 5 / unit_s);
    plot.clockRange = [least - air, most + air];
    plot.unit = unit;
    const x = t.map((at) => toAxis(node, at));
    const line = (name, values, paint, more) => ({ type: "scatter", mode: "lines", name, x, y: values.map((v) => v / unit_s),
      line: { color: colour(paint), width: 2.2 }, hoverinfo: "skip", showlegend: false, ...more });
    return [
      filled(node, node.asleep, plot.clockRange[0], plot.clockRange[1], colour("--asleep"), { name: "asleep" }),
      line("monotonic", mono, "--mono"),
      line("wall", wall, "--wall", { fill: "tonexty", fillcolor: colour("--drift") }),
      line("boottime", boot, "--boot", { line: { color: colour("--boot"), width: 1.6, dash: "dot" } }),
    ];
  }
  // Where in its row a track is drawn. On a narrow screen its name is above it, in the first third of the row.
  const NARROW_LANE = { centre: .17, scale: .78, name: -.36 }, WIDE_LANE = { centre: 0, scale: 1 };
  const isNarrow = (plot) => plot.box.clientWidth < NARROW_PX;
  const laneOf = (plot) => (isNarrow(plot) ? NARROW_LANE : WIDE_LANE);

  function trackTraces(plot) {
    const { node } = plot, tracks = node.tracks, traces = [], lane = laneOf(plot);
    traces.push(filled(node, node.asleep, -.8, tracks.length - .4, colour("--asleep"), { yaxis: "y2", name: "asleep" }));
    for (const state of Object.keys(HEIGHT)) {
      const spans = tracks.flatMap((track, row) => track.bars.filter((bar) => bar[2] === state)
        .map((bar) => [bar[0], bar[1], row + lane.centre]));
      if (!spans.length) continue;
      const half = HEIGHT[state] * lane.scale;
      traces.push(filled(node, spans, -half, half, colour(COLOUR[state]),
        { yaxis: "y2", name: state, opacity: state === "expired-asleep" ? .35 : 1 }));
    }
    for (const [kind, [symbol, paint]] of Object.entries(MARKS)) {
      const marks = tracks.flatMap((track, row) => track.marks.filter((mark) => mark[1] === kind).map((mark) => [mark[0], row]));
      if (!marks.length || (kind === "failed" && plot.dense)) continue;
      const lifted = lane.centre + (kind === "due" || kind === "renewed" || kind === "issued" ? -.37 * lane.scale : 0);
      traces.push({ type: "scatter", mode: "markers", name: kind, yaxis: "y2", x: marks.map((mark) => toAxis(node, mark[0])),
        y: marks.map((mark) => mark[1] + lifted), hoverinfo: "skip", showlegend: false, cliponaxis: false,
        marker: { symbol, size: kind === "failed" ? 5 : kind === "refused" ? 7 : 8, color: colour(paint),
          line: { width: symbol.endsWith("open") ? 1.3 : 0, color: colour(paint) } } });
    }
    return traces;
  }

  function layoutOf(plot) {
    const width = plot.box.clientWidth, narrow = isNarrow(plot), tracks = plot.node.tracks;
    const track_px = narrow ? 58 : 34, clocks_px = narrow ? 96 : 128, gap_px = 14, top = 10, bottom = 46;
    const tracks_px = track_px * Math.max(tracks.length, 1), height = top + clocks_px + gap_px + tracks_px + bottom;
    const inner = height - top - bottom, soft = colour("--soft"), left = narrow ? 58 : 252;
    const grid = { gridcolor: colour("--line"), zeroline: false, linecolor: colour("--line") };
    const font = { family: "system-ui, -apple-system, Segoe UI, Roboto, DejaVu Sans, sans-serif", size: 12, color: soft };
    plot.left = left;
    return {
      height, margin: { l: left, r: 16, t: top, b: bottom }, font, hovermode: false, dragmode: "zoom", showlegend: false,
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", modebar: { color: soft, bgcolor: "rgba(0,0,0,0)" },
      xaxis: { ...grid, anchor: "y2", range: page.range, ...ticks(plot.run, page.range, width - left - 16), ticks: "outside",
        tickcolor: colour("--line"), showspikes: false },
      yaxis: { ...grid, domain: [1 - clocks_px / inner, 1], fixedrange: true, range: plot.clockRange, nticks: 4,
        ticksuffix: ` ${plot.unit}`, zeroline: true, zerolinecolor: colour("--line") },
      yaxis2: { ...grid, domain: [0, tracks_px / inner], fixedrange: true, range: [tracks.length - .5, -.6], showgrid: false,
        tickmode: "array", tickvals: tracks.map((_, row) => row), ticktext: narrow ? tracks.map(() => "") : tracks.map((track) => shortened(track.label)) },
      annotations: [
        ...(narrow ? tracks.map((track, row) => ({ text: shortened(track.label), xref: "paper", x: 0, xanchor: "left", yref: "y2",
          y: row + NARROW_LANE.name, yanchor: "middle", showarrow: false, font: { size: 10, color: soft } })) : []),
        { text: narrow ? "clock − world" : "clock − world,<br>since the start", xref: "paper", x: narrow ? 0 : -.008, xanchor: narrow ? "left" : "right",
          yref: "y domain", y: narrow ? .02 : .5, yanchor: narrow ? "bottom" : "middle", showarrow: false, align: "right",
          xshift: narrow ? 4 : -62, font: { size: narrow ? 10 : 12, color: soft } },
        ...clockNames(plot),
      ],
      shapes: cursorShapes(plot),
    };
  }
  const shortened = (label) => (label.length > 38 ? `${label.slice(0, 18)}…${label.slice(-18)}` : label);
  function clockNames(plot) {
    const { clocks } = plot.node, last = clocks.t.length - 1;
    if (last < 0) return [];
    const [unit_s] = unitOf(Math.max(...clocks.wall.concat(clocks.mono, clocks.boot).map(Math.abs), 0));
    const apart = Math.abs(clocks.wall[last] - clocks.mono[last]) > (plot.clockRange[1] - plot.clockRange[0]) * unit_s * .2;
    const name = (text, value, paint, shift) => ({ text: `<b>${text}</b>`, xref: "x domain", x: 1, xanchor: "right", yref: "y",
      y: value / unit_s, yanchor: "bottom", yshift: shift, showarrow: false, font: { size: 11, color: colour(paint) } });
    if (!apart) return [];
    const above = clocks.wall[last] >= clocks.mono[last];
    return [name("wall", clocks.wall[last], "--wall", above ? -17 : 0), name("monotonic", clocks.mono[last], "--mono", above ? 0 : -17),
      { text: `clock drift ${lasting(clocks.wall[last] - clocks.mono[last])}`, xref: "x domain", x: 1, xanchor: "right", yref: "y",
        y: (clocks.wall[last] + clocks.mono[last]) / 2 / unit_s, yanchor: "middle", showarrow: false, font: { size: 12, color: colour("--mono") } }];
  }
  function cursorShapes(plot) {
    if (page.cursor === null) return [];
    const x = toAxis(plot.node, page.cursor);
    return [{ type: "line", xref: "x", x0: x, x1: x, yref: "paper", y0: 0, y1: 1, line: { color: colour("--ink"), width: 1.2, dash: "dot" } }];
  }

  // So many failed attempts that their marks would hide the red below them.
  function isDense(plot) {
    const [from, to] = page.range.map((at) => fromAxis(plot.node, at));
    const shown = plot.node.tracks.map((track) => track.marks.filter(([at, kind]) => kind === "failed" && from <= at && at <= to).length);
    const red = plot.node.tracks.map((track) => track.bars.filter((bar) => bar[2] === "fails")
      .reduce((sum, [a, b]) => sum + Math.max(Math.min(b, to) - Math.max(a, from), 0), 0));
    return shown.some((many, row) => many * 5 > red[row] / Math.max(to - from, 1e-9) * plot.box.clientWidth);
  }

  function draw(plot) {
    if (!plot.box.clientWidth) return;
    plot.dense = isDense(plot);
    const traces = [...clockTraces(plot), ...trackTraces(plot)];
    traces.forEach((trace) => { if (!trace.yaxis) trace.yaxis = "y"; });
    const first = !plot.drawn;
    plot.drawn = true;
    Plotly.react(plot.div, traces, layoutOf(plot), { displaylogo: false, responsive: false, doubleClick: false,
      modeBarButtons: [["toImage"]], toImageButtonOptions: { filename: `${plot.run.id}-${plot.node.name}`, scale: 2 } });
    if (first) attach(plot);
  }
  const shown = () => plots.filter((plot) => plot.box.closest("details")?.open !== false);
  function drawAll() { shown().forEach(draw); showRange(); }

  function attach(plot) {
    plot.div.on("plotly_relayout", (change) => {
      if (change["xaxis.range[0]"] !== undefined) show([change["xaxis.range[0]"], change["xaxis.range[1]"]]);
    });
    plot.div.on("plotly_doubleclick", () => show(whole()));
    plot.box.addEventListener("mousemove", (event) => point(plot, event));
    plot.box.addEventListener("mouseleave", () => { plot.tip.hidden = true; });
    plot.box.addEventListener("click", (event) => { const at = under(plot, event); if (at !== null) look(at, plot); });
    plot.box.addEventListener("keydown", (event) => press(plot, event));
  }

  function show(range) {
    const [from, to] = whole(), length = clamp(range[1] - range[0], 1, (to - from) * 1.04);
    const begin = clamp(range[0], from - (to - from) * .02, to + (to - from) * .02 - length);
    page.range = [begin, begin + length];
    for (const plot of shown()) {
      if (!plot.drawn || plot.dense !== isDense(plot)) draw(plot);
      else {
        const { tickvals, ticktext } = ticks(plot.run, page.range, plot.box.clientWidth - plot.left - 16);
        Plotly.relayout(plot.div, { "xaxis.range": [...page.range], "xaxis.tickvals": tickvals, "xaxis.ticktext": ticktext });
      }
    }
    showRange();
  }
  function zoom(factor, about) {
    const [a, b] = page.range, centre = about ?? (a + b) / 2;
    show([centre - (centre - a) * factor, centre + (b - centre) * factor]);
  }
  function showRange() {
    const exact = page.range[1] - page.range[0] < 3600, texts = new Set(plots.map((plot) => rangeText(plot.run, exact)));
    document.querySelectorAll(".tools .range").forEach((span) => { span.textContent = [...texts].join(" · "); });
  }
  // Of one run; two runs of a page may have different calendars.
  function rangeText(run, exact) {
    const { ahead, dates } = shownAs(run);
    const text = page.range.map((at) => (page.axis === "world" ? moment(run, at, exact) : wallText(dates, Math.floor(at + ahead + 1e-6))));
    const zone = showsDays(run) ? "" : ` ${dates.zone}`;
    return `${text[0]} to ${text[1]}${zone}`;
  }

  // --- what is at a moment ---------------------------------------------------------------------------------------------

  function under(plot, event) {
    const axis = plot.div._fullLayout?.xaxis;
    if (!axis) return null;
    const px = event.clientX - plot.div.getBoundingClientRect().left - axis._offset;
    return px < 0 || px > axis._length ? null : fromAxis(plot.node, axis.p2l(px));
  }
  function detailsAt(plot, world_s, near_s) {
    const { node } = plot, rows = [];
    for (const track of node.tracks) {
      const bar = track.bars.find(([from, to]) => from <= world_s && world_s < to);
      const marks = track.marks.filter(([at]) => Math.abs(at - world_s) <= near_s).slice(0, 3);
      if (!bar && !marks.length) continue;
      const words = [...(bar ? [track.texts[bar[3]]] : []), ...marks.map((mark) => markWords(mark, track.texts[mark[2]]))];
      rows.push([bar ? COLOUR[bar[2]] : MARKS[marks[0][1]][1], track.label, words.join("; ")]);
    }
    return rows;
  }
  const markWords = ([, kind], text) => (kind === "failed" ? `attempt failed: ${text}` : text);
  function clocksAt(node, world_s) {
    const { t, wall, mono } = node.clocks;
    if (!t.length) return 0;
    const held = clamp(world_s, t[0], t[t.length - 1]), at = (values) => along(t.map((each, i) => [each, values[i]]), 0, 1, held);
    return at(wall) - at(mono);
  }
  function fill(place, plot, world_s, near_s) {
    const asleep = plot.node.asleep.some(([from, to]) => from <= world_s && world_s < to);
    const head = document.createElement("div"), list = document.createElement("ul");
    const strong = document.createElement("b");
    strong.textContent = moment(plot.run, world_s, true);
    const dates = plot.run.dates ?? UTC, wall_s = Math.floor(shownWall(plot.run, along(plot.node.walls, 0, 1, world_s)));
    head.append(strong, ` · wall ${wallText(dates, wall_s, true)} ${dates.zone} · clock drift ${lasting(clocksAt(plot.node, world_s))}${asleep ? " · asleep" : ""}`);
    for (const [paint, label, words] of detailsAt(plot, world_s, near_s)) {
      const item = document.createElement("li"), name = document.createElement("b");
      item.style.setProperty("--of", `var(${paint})`);
      name.textContent = label;
      item.append(name, ` ${words}`);
      list.append(item);
    }
    place.replaceChildren(head, list);
  }
  const nearOf = (plot) => (page.range[1] - page.range[0]) / Math.max(plot.box.clientWidth, 1) * 5;
  function point(plot, event) {
    const at = under(plot, event);
    plot.tip.hidden = at === null || event.buttons > 0;
    if (plot.tip.hidden) return;
    fill(plot.tip, plot, at, nearOf(plot));
    const box = plot.box.getBoundingClientRect(), x = event.clientX - box.left, y = event.clientY - box.top;
    const left = x + 18 + plot.tip.offsetWidth > box.width ? x - plot.tip.offsetWidth - 14 : x + 16;
    plot.tip.style.left = `${Math.max(left, 4)}px`;
    plot.tip.style.top = `${y + 16}px`;
  }
  function look(world_s, plot) {
    page.cursor = world_s;
    for (const each of shown()) if (each.drawn) Plotly.relayout(each.div, { shapes: cursorShapes(each) });
    fill(plot.readout, plot, world_s, nearOf(plot));
  }

  // --- keyboard, buttons, jumps ------------------------------------------------------------------------------------------

  function moments(node) {
    const found = new Set([0]);
    for (const track of node.tracks) {
      track.bars.forEach(([from, to]) => { found.add(from); found.add(to); });
      track.marks.forEach(([at]) => found.add(at));
    }
    node.asleep.forEach(([from, to]) => { found.add(from); found.add(to); });
    return [...found].sort((a, b) => a - b);
  }
  function press(plot, event) {
    const now = page.cursor ?? 0, keys = {
      ArrowRight: () => look(moments(plot.node).find((at) => at > now + 1e-6) ?? now, plot),
      ArrowLeft: () => look(moments(plot.node).reverse().find((at) => at < now - 1e-6) ?? 0, plot),
      Home: () => look(0, plot), End: () => look(plot.run.end_s, plot),
      "+": () => zoom(.5, toAxis(plot.node, now)), "=": () => zoom(.5, toAxis(plot.node, now)),
      "-": () => zoom(2, toAxis(plot.node, now)), 0: () => show(whole()),
    };
    if (!keys[event.key] || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    keys[event.key]();
    const x = toAxis(plot.node, page.cursor ?? 0);
    if (x < page.range[0] || x > page.range[1]) show([x - (page.range[1] - page.range[0]) / 2, x + (page.range[1] - page.range[0]) / 2]);
  }
  function jump(runId, name, world_s) {
    const plot = plots.find((each) => each.run.id === runId && (!name || each.node.name === name)) || plots[0];
    if (!plot) return;
    const details = plot.box.closest("details");
    if (details) details.open = true;
    if (!plot.drawn) draw(plot);
    const length = Math.max(plot.run.end_s / 12, 120), x = toAxis(plot.node, world_s);
    show([x - length / 2, x + length / 2]);
    look(world_s, plot);
    plot.box.scrollIntoView({ block: "center", behavior: "smooth" });
    plot.box.focus({ preventScroll: true });
  }
  function setAxis(axis) {
    if (axis === page.axis) return;
    const node = plots[0].node, world = page.range.map((at) => fromAxis(node, at));
    const full = JSON.stringify(page.range) === JSON.stringify(whole());
    page.axis = axis;
    page.range = full ? whole() : world.map((at) => toAxis(node, at));
    document.querySelectorAll("[data-axis]").forEach((button) => button.setAttribute("aria-pressed", String(button.dataset.axis === axis)));
    drawAll();
  }
  function setTheme(theme, keep) {
    document.documentElement.dataset.theme = theme;
    document.querySelectorAll("[data-do=theme]").forEach((button) => { button.textContent = theme === "dark" ? "Light" : "Dark"; });
    if (keep) try { localStorage.setItem("meshwake-theme", theme); } catch { /* a browser may refuse that to files */ }
    if (page.range) drawAll();
  }
  function wanted() {
    let kept = null;
    try { kept = localStorage.getItem("meshwake-theme"); } catch { /* as above */ }
    return kept || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
  }

  // --- the page ----------------------------------------------------------------------------------------------------------

  function place(holder) {
    const run = runs.get(holder.dataset.run), node = run?.nodes[Number(holder.dataset.node)];
    if (!node) return;
    const div = document.createElement("div"), tip = document.createElement("div"), readout = document.createElement("div");
    tip.className = "tip";
    tip.hidden = true;
    readout.className = "readout";
    readout.setAttribute("aria-live", "polite");
    readout.textContent = "Point at the timeline, or click it; with the keyboard: arrows go from event to event, + and − zoom, 0 shows all.";
    holder.replaceChildren(div, tip);
    holder.after(readout);
    holder.tabIndex = 0;
    holder.setAttribute("role", "application");
    holder.setAttribute("aria-roledescription", "timeline");
    plots.push({ run, node, box: holder, div, tip, readout, drawn: false });
  }
  function sortTable(button) {
    const heading = button.closest("th"), table = heading.closest("table"), column = [...heading.parentNode.children].indexOf(heading);
    const down = heading.getAttribute("aria-sort") === "ascending";
    table.querySelectorAll("th").forEach((each) => each.removeAttribute("aria-sort"));
    heading.setAttribute("aria-sort", down ? "descending" : "ascending");
    const key = (row) => row.children[column].dataset.value ?? row.children[column].textContent.trim();
    const compare = (a, b) => (isNaN(key(a)) || isNaN(key(b)) ? key(a).localeCompare(key(b)) : key(a) - key(b));
    const rows = [...table.tBodies[0].rows].sort((a, b) => (down ? -1 : 1) * compare(a, b));
    table.tBodies[0].append(...rows);
  }
  function filterRows(input) {
    const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    document.querySelectorAll("table[data-filtered] tbody tr").forEach((row) => {
      row.hidden = !words.every((word) => row.textContent.toLowerCase().includes(word));
    });
  }
  const ACTIONS = {
    theme: () => setTheme(document.documentElement.dataset.theme === "dark" ? "light" : "dark", true),
    in: () => zoom(.5), out: () => zoom(2), all: () => show(whole()),
    jump: (button) => jump(button.dataset.run, button.dataset.node, Number(button.dataset.at)),
    sort: (button) => sortTable(button),
    axis: (button) => setAxis(button.dataset.axis),
  };

  function start() {
    setTheme(wanted(), false);
    document.querySelectorAll(".plot[data-run]").forEach(place);
    document.addEventListener("click", (event) => {
      const button = event.target.closest("[data-do]");
      if (button) ACTIONS[button.dataset.do]?.(button);
    });
    document.querySelectorAll("input[data-filter]").forEach((input) => input.addEventListener("input", () => filterRows(input)));
    document.querySelectorAll("details.node").forEach((each) => each.addEventListener("toggle", () => { if (each.open) drawAll(); }));
    if (plots.length) { page.range = whole(); drawAll(); }
    let waiting = null;
    addEventListener("resize", () => { clearTimeout(waiting); waiting = setTimeout(() => plots.length && drawAll(), 120); });
    addEventListener("beforeprint", () => { document.querySelectorAll("details").forEach((each) => { each.open = true; }); setTheme("light", false); drawAll(); });
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => setTheme(wanted(), false));
    document.documentElement.dataset.ready = "yes";
  }

  return { add: (run) => runs.set(run.id, run), start, runs, plots, page, place, show, jump, setAxis, setTheme, drawAll, whole, moment, lasting };
})();

// Two runs of a folder side by side, on one time axis: compare.html?left=ID&right=ID. The address always has the choice,
// so that it can be sent.
const COMPARE = (() => {
  const WORDS = { HOLDS: "good", BROKEN: "bad", UNKNOWN: "unsure" };
  const make = (tag, text, cls) => Object.assign(document.createElement(tag), { textContent: text ?? "", className: cls ?? "" });
  const load = (id) => new Promise((resolve, reject) => {
    if (MESHWAKE.runs.has(id)) { resolve(); return; }
    const script = Object.assign(document.createElement("script"), { src: `data/${encodeURIComponent(id)}.js`, onload: resolve, onerror: reject });
    document.head.append(script);
  });
  const page = { left: null, right: null, options: [], rightWasChosen: false };

  // --- which two ---

  // Why two runs belong together, the strongest reason first; "" where nothing connects them.
  const REASONS = [
    ["the same timeline with and without a fix", (a, b) => sameTimeline(a, b) && sameSubject(a, b) && (a.fix === "none") !== (b.fix === "none")],
    ["the same scenario on two releases", (a, b) => a.scenario === b.scenario && a.lab === b.lab && a.version !== b.version],
    ["the same scenario on two labs", (a, b) => a.scenario === b.scenario && a.lab !== b.lab],
    ["the same timeline with two fixes", (a, b) => sameTimeline(a, b) && a.fix !== b.fix],
    ["the same scenario", (a, b) => a.scenario === b.scenario],
  ];
  const sameTimeline = (a, b) => a.timeline === b.timeline;
  const sameSubject = (a, b) => a.lab === b.lab && a.version === b.version;
  const rank = (a, b) => { const found = REASONS.findIndex(([, holds]) => holds(a.dataset, b.dataset)); return found < 0 ? REASONS.length : found; };
  const reason = (a, b) => REASONS[rank(a, b)]?.[0] ?? "";
  const others = (option) => page.options.filter((each) => each !== option);
  // The one that belongs most to `option`; the first of several, and of none the first other.
  const partner = (option) => others(option).reduce((best, each) => (!best || rank(option, each) < rank(option, best) ? each : best), null) ?? option;
  const optionOf = (id) => page.options.find((each) => each.value === id);

  function firstPair() {
    let best = [page.options[0], partner(page.options[0])];
    for (const each of page.options) {
      const other = partner(each);
      if (rank(each, other) < rank(...best)) best = [each, other];
    }
    // What nothing is deployed against is what the other is compared with.
    return best[1].dataset.fix === "none" && best[0].dataset.fix !== "none" ? best.reverse() : best;
  }
  // The second list begins with what belongs to the first choice.
  function fillRight(left) {
    const groups = [["belongs to the first", []], ["other runs", []]];
    others(left).concat(left).forEach((each) => groups[rank(left, each) < REASONS.length && each !== left ? 0 : 1][1].push(each.cloneNode(true)));
    page.right.replaceChildren(...groups.filter(([, members]) => members.length).map(([label, members]) => {
      const group = Object.assign(document.createElement("optgroup"), { label });
      group.append(...members);
      return group;
    }));
  }
  function choose(left, right) {
    fillRight(left);
    page.left.value = left.value;
    page.right.value = right.value;
    const why = left === right ? "the same run twice" : reason(left, right);
    document.getElementById("relation").textContent = why ? `These belong together: ${why}.` : "These two have neither scenario nor timeline in common.";
    const address = `?${new URLSearchParams({ left: left.value, right: right.value })}`;
    try { history.replaceState(null, "", address); } catch { /* an old browser may refuse that to files */ }
    show(left.value, right.value);
  }

  // --- what is shown ---

  const SIDES = ["first", "second"];
  function labelled(cell, side) {
    cell.dataset.label = SIDES[side];
    return cell;
  }
  function rows(pair) {
    const names = [...new Set(pair.flatMap((run) => run.findings.map((finding) => finding.check)))];
    return names.map((name) => {
      const two = pair.map((run) => run.findings.find((finding) => finding.check === name)), row = document.createElement("tr");
      if (two[0]?.verdict !== two[1]?.verdict) row.className = "differs";
      const claim = make("td", "", "first");
      claim.append((two[0] ?? two[1]).title, document.createElement("br"), make("code", name, "soft small"));
      row.append(claim);
      two.forEach((finding, side) => {
        const cell = labelled(make("td", "", "prose"), side);
        if (finding) cell.append(make("span", finding.verdict, `word ${WORDS[finding.verdict]}`), ` ${finding.because}`);
        row.append(cell);
      });
      return row;
    });
  }
  function numbers(pair) {
    return pair[0].facts.map(([label], at) => {
      const row = document.createElement("tr");
      const cells = pair.map((run, side) => labelled(make("td", run.facts[at][1] + (run.facts[at][2] ? ` (${run.facts[at][2]})` : "")), side));
      row.append(make("td", label, "first"), ...cells);
      return row;
    });
  }
  function headline(run) {
    const box = make("section", "", "card"), name = make("h2"), link = make("a", run.words), text = make("p", "", "headline");
    link.href = `${run.id}.html`;
    name.append(link);
    if (run.verdict === "BROKEN") text.classList.add("bad");
    text.append(make("span", run.verdict, `word ${WORDS[run.verdict]}`), ` ${run.headline}`);
    box.append(name, make("p", run.title, "soft small"), text);
    return box;
  }
  function section(run) {
    const box = document.createElement("section");
    box.append(make("h3", run.words));
    run.nodes.forEach((node, at) => {
      const details = make("details", "", "node card"), summary = document.createElement("summary"), plot = make("div", "", "plot");
      details.open = at < 3;
      summary.append(make("h4", node.name), make("span", node.words, "soft"));
      Object.assign(plot.dataset, { run: run.id, node: at });
      plot.setAttribute("aria-label", `Timeline of ${node.name}, ${run.words}: ${node.words}`);
      details.append(summary, plot);
      details.addEventListener("toggle", () => { if (details.open) MESHWAKE.drawAll(); });
      box.append(details);
      MESHWAKE.place(plot);
    });
    return box;
  }
  async function show(left, right) {
    await Promise.all([load(left), load(right)]);
    const pair = [MESHWAKE.runs.get(left), MESHWAKE.runs.get(right)];
    document.querySelectorAll("[data-side]").forEach((cell) => { cell.textContent = pair[Number(cell.dataset.side)].words; });
    document.getElementById("headlines").replaceChildren(...pair.map(headline));
    document.getElementById("numbers").replaceChildren(...numbers(pair));
    document.getElementById("verdicts").replaceChildren(...rows(pair));
    MESHWAKE.plots.length = 0;
    document.getElementById("timelines").replaceChildren(...pair.map(section));
    MESHWAKE.page.range = MESHWAKE.whole();
    MESHWAKE.page.cursor = null;
    MESHWAKE.drawAll();
    document.documentElement.dataset.compared = "yes";
  }
  function start() {
    page.left = document.getElementById("left");
    page.right = document.getElementById("right");
    if (!page.left) return;
    page.options = [...page.left.options];
    const query = new URLSearchParams(location.search), left = optionOf(query.get("left")), right = optionOf(query.get("right"));
    page.rightWasChosen = Boolean(right);
    page.left.addEventListener("change", () => {
      const first = page.left.selectedOptions[0];
      choose(first, page.rightWasChosen ? optionOf(page.right.value) : partner(first));
    });
    page.right.addEventListener("change", () => {
      page.rightWasChosen = true;
      choose(page.left.selectedOptions[0], optionOf(page.right.value));
    });
    if (left) choose(left, right ?? partner(left));
    else if (right) choose(partner(right), right);
    else choose(...firstPair());
  }
  return { start };
})();

document.addEventListener("DOMContentLoaded", () => { MESHWAKE.start(); COMPARE.start(); });
