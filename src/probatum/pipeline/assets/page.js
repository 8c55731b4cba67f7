"use strict";
// Draw each chart from the JSON beside it, in the page's own colours, and again when width or colour scheme changes.
(function () {
  const style = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const colour = (index) => style("--c" + (index % 4));
  const brief = (v) => (v === null || v === undefined ? "–" : Number.isInteger(v) ? String(v) : v.toPrecision(4).replace(/\.?0+(?=$|e)/, ""));
  const shorten = (text) => (text.length > 18 ? text.slice(0, 17) + "…" : text);

  // A mark is a short stroke across its place, so that it reads as a bound and not as a value.
  function strokes(u, seriesIndex) {
    const path = new Path2D(), half = Math.max(5, u.bbox.width / u.data[0].length / 4);
    u.data[0].forEach((x, i) => {
      const y = u.data[seriesIndex][i];
      if (y === null || y === undefined) return;
      const px = u.valToPos(x, "x", true), py = u.valToPos(y, "y", true);
      path.moveTo(px - half, py);
      path.lineTo(px + half, py);
    });
    return { stroke: path };
  }

  function columns(chart) {
    const named = typeof chart.x[0] === "string";
    const data = [named ? chart.x.map((_, i) => i) : chart.x];
    const series = [{ label: chart.x_name, value: (u, v) => (v === null ? "–" : named ? chart.x[v] : brief(v)) }];
    const bands = [];
    const bars = chart.series.filter((s) => s.type === "bars").length;
    let bar = 0;
    chart.series.forEach((s, index) => {
      const base = { stroke: colour(index), width: 2, points: { show: false }, value: (u, v) => brief(v), spanGaps: true };
      if (s.type === "band") {
        const edge = { ...base, stroke: "transparent", width: 0 };
        data.push(s.upper, s.lower);
        series.push({ ...edge, label: s.name + ", upper" }, { ...edge, label: s.name + ", lower" });
        bands.push({ series: [data.length - 2, data.length - 1], fill: style("--band") });
        return;
      }
      data.push(s.y);
      if (s.type === "line") series.push({ ...base, label: s.name, dash: s.dashed ? [5, 5] : [], points: { show: !s.dashed && s.y.length <= 24, size: 6 } });
      if (s.type === "marks") series.push({ ...base, label: s.name, width: 3, paths: strokes });
      if (s.type === "bars") {
        const size = 0.8 / bars, paths = uPlot.paths.bars({ size: [size, 60], align: bars === 1 ? 0 : bar++ ? 1 : -1 });
        series.push({ ...base, label: s.name, width: 0, fill: colour(index), paths });
      }
    });
    return { data, series, bands, named, bars };
  }

  function options(chart, made, width) {
    const narrow = width < 420, names = made.named ? chart.x.map(shorten) : [];
    const longest = Math.max(0, ...names.map((name) => name.length));
    const tilt = made.named && (longest + 2) * 7 * names.length > width - 70;
    const axis = { stroke: style("--quiet"), grid: { stroke: style("--grid"), width: 1 }, ticks: { stroke: style("--grid"), width: 1 }, font: "12px system-ui, sans-serif", labelFont: "12px system-ui, sans-serif", labelSize: 18 };
    const x = { ...axis, label: chart.x_name };
    if (made.named) {
      const every = Math.max(1, Math.ceil((names.length * 15) / (width - 60)));
      Object.assign(x, { splits: () => names.map((_, i) => i), values: (u, at) => at.map((i) => (i % every ? "" : names[i])), grid: { show: false }, gap: 4 });
      if (tilt) Object.assign(x, { rotate: -55, size: 20 + Math.ceil(longest * 5.6), align: 1 });
    }
    const pad = made.bars || made.named ? 0.5 : 0;
    const step = made.named || chart.x.length < 2 ? 1 : chart.x[1] - chart.x[0];
    const decade = (v, round) => 10 ** round(Math.log10(v));
    const y = chart.log ? { distr: 3, log: 10, range: (u, low, high) => low > 0 ? [decade(low * 0.8, Math.floor), decade(high * 1.1, Math.ceil)] : [0.001, 1] } : { range: (u, low, high) => [Math.min(0, low), Math.max(0, high) * 1.05 || 1] };
    return {
      width,
      height: (narrow ? 250 : 280) + (tilt ? Math.ceil(longest * 4) : 0),
      scales: { x: { time: false, range: (u, low, high) => chart.x_range || [low - pad * step, high + pad * step] }, y },
      axes: [x, { ...axis, label: chart.y_name, size: 52, values: (u, at) => at.map((v) => (v === null ? "" : brief(v))) }],
      series: made.series,
      bands: made.bands,
      cursor: { drag: { x: false, y: false } },
      legend: { live: true },
    };
  }

  function draw(box) {
    const width = Math.floor(box.clientWidth);
    if (!width || box.drawn === width) return;
    box.drawn = width;
    if (box.plot) box.plot.destroy();
    const chart = JSON.parse(document.getElementById(box.dataset.chart).textContent);
    const made = columns(chart);
    box.plot = new uPlot(options(chart, made, width), made.data, box);
    box.plot.root.setAttribute("aria-hidden", "true");
  }

  const boxes = new Set();
  const observer = new ResizeObserver((entries) => requestAnimationFrame(() => entries.forEach((entry) => draw(entry.target))));

  // Find charts that are new, and let go of those that were taken off the page.
  function scan() {
    boxes.forEach((box) => {
      if (box.isConnected) return;
      observer.unobserve(box);
      if (box.plot) box.plot.destroy();
      boxes.delete(box);
    });
    document.querySelectorAll(".chart").forEach((box) => {
      if (boxes.has(box)) return;
      boxes.add(box);
      draw(box);
      observer.observe(box);
    });
  }
  document.addEventListener("charts", scan);
  scan();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => boxes.forEach((box) => {
    box.drawn = 0;
    draw(box);
  }));
})();
