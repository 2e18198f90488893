(() => {
  "use strict";
  const report = JSON.parse(document.getElementById("report").textContent);
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const views = new Map();

  const named = (node, names) => {
    if (node && typeof node === "object") {
      if (node.data && node.data.name) names.add(node.data.name);
      Object.values(node).forEach((part) => named(part, names));
    }
    return names;
  };

  // Where there is little room: names of layers cut shorter, legends in two columns at most.
  const narrowed = (node) => {
    if (!node || typeof node !== "object") return;
    if (node.legend) node.legend.columns = Math.min(node.legend.columns, 2);
    if (node.axis?.labelLimit) node.axis.labelLimit = 115;
    Object.values(node).forEach(narrowed);
  };

  const runOf = (element) => element.closest("[data-run]")?.dataset.run;

  async function draw(div) {
    div.dataset.state ||= "begun";
    const spec = structuredClone(report.specs[div.dataset.spec]);
    const narrow = div.clientWidth < 480;
    if (narrow) {
      narrowed(spec);
      if (div.closest("aside")) spec.height = 130;
    }
    spec.width = "container";
    spec.autosize = { type: "fit-x", contains: "padding" };
    spec.datasets = Object.fromEntries([...named(spec, new Set())].map((name) => [name, report.datasets[name]]));
    const config = structuredClone(report.config[dark.matches ? "dark" : "light"]);
    config.background = "transparent";
    views.get(div)?.finalize();
    const result = await vegaEmbed(div, spec, {
      mode: "vega-lite", renderer: "svg", actions: false, config, tooltip: { theme: dark.matches ? "dark" : "light" },
    });
    views.set(div, result);
    if (spec.params) result.view.signal("layer", report.chosen[runOf(div)]).runAsync();
    result.view.addEventListener("click", (event, item) => {
      const run = runOf(div);
      if (run === undefined || !item || !item.datum) return;
      const layer = item.datum.layer;
      if (layer !== undefined && div.dataset.name !== "cumulative") choose(run, layer);
    });
    div.dataset.state = "done";
  }

  // Of a heat map's row label, which may have lost its end.
  const layerOf = (run, label) => {
    const index = label.match(/^\d+(?= )/)?.[0];
    return report.layers[run][index]?.startsWith(label.replace(/…$/, "")) ? Number(index) : undefined;
  };

  function choose(run, layer) {
    report.chosen[run] = layer;
    const section = document.querySelector(`[data-run="${run}"]`);
    section.querySelectorAll(".chosen:is(h3)").forEach((heading) => { heading.textContent = `Layer ${report.layers[run][layer]}`; });
    section.querySelectorAll("button.show").forEach((button) => {
      const here = Number(button.dataset.layer) === layer;
      button.closest("tr").classList.toggle("chosen", here);
      button.setAttribute("aria-pressed", here);
    });
    for (const [div, { view }] of views) {
      if (runOf(div) === run && (div.dataset.name === "heatmap" || div.dataset.name === "curve")) {
        view.signal("layer", layer).runAsync();
      }
    }
  }

  function sort(table, column, falling) {
    const value = (row) => row.cells[column].dataset.v;
    const numeric = [...table.tBodies[0].rows].every((row) => value(row) === undefined || !Number.isNaN(Number(value(row))));
    const rows = [...table.tBodies[0].rows];
    rows.sort((one, other) => {
      const a = value(one), b = value(other);
      if (a === undefined || b === undefined) return (a === undefined) - (b === undefined);
      const order = numeric ? Number(a) - Number(b) : a.localeCompare(b, "en", { numeric: true });
      return falling ? -order : order;
    });
    table.tBodies[0].append(...rows);
    [...table.tHead.rows[0].cells].forEach((head, i) => {
      if (i === column) head.setAttribute("aria-sort", falling ? "descending" : "ascending");
      else head.removeAttribute("aria-sort");
    });
  }

  document.addEventListener("click", (event) => {
    const show = event.target.closest("button.show");
    if (show) choose(runOf(show), Number(show.dataset.layer));
    const label = event.target.closest("[data-name=heatmap] .role-axis-label text");
    const layer = label && layerOf(runOf(label), label.textContent);
    if (layer) choose(runOf(label), layer);
    const head = event.target.closest("thead th");
    if (head) sort(head.closest("table"), head.cellIndex, head.getAttribute("aria-sort") === "ascending");
  });

  const charts = [...document.querySelectorAll(".chart")];
  const seen = new IntersectionObserver((entries) => {
    entries.filter((entry) => entry.isIntersecting).forEach((entry) => {
      seen.unobserve(entry.target);
      draw(entry.target);
    });
  }, { rootMargin: "800px" });
  charts.forEach((div) => seen.observe(div));
  // What nobody has scrolled to yet is drawn one after another meanwhile, so that nothing lacks on paper.
  const rest = async () => {
    for (const div of charts) {
      if (views.has(div) || div.dataset.state) continue;
      seen.unobserve(div);
      await draw(div);
      await new Promise((next) => setTimeout(next));
    }
  };
  addEventListener("load", () => setTimeout(rest, 300));
  const redraw = () => views.forEach((_, div) => draw(div));
  dark.addEventListener("change", redraw);
  matchMedia("(max-width: 760px)").addEventListener("change", redraw);
  addEventListener("beforeprint", () => charts.filter((div) => !views.has(div)).forEach(draw));
  Object.entries(report.chosen).forEach(([run, layer]) => choose(run, layer));
})();
