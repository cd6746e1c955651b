// Draws each figure when it comes near the window, in the colours of the page, and anew when those change.
(function () {
  "use strict";
  var figures = JSON.parse(document.getElementById("figures").textContent);
  var dark = window.matchMedia("(prefers-color-scheme: dark)");
  var drawn = new Set();
  function merge(base, more) {
    var out = Object.assign({}, base);
    Object.keys(more).forEach(function (key) {
      var both = out[key] && typeof out[key] === "object" && !Array.isArray(out[key]) && typeof more[key] === "object";
      out[key] = both ? merge(out[key], more[key]) : more[key];
    });
    return out;
  }
  function draw(element) {
    var figure = figures[Number(element.id.slice(5))];
    var style = getComputedStyle(document.documentElement);
    var ink = style.getPropertyValue("--ink").trim(), line = style.getPropertyValue("--line").trim();
    var axis = { gridcolor: line, linecolor: line, zerolinecolor: line, zeroline: false, automargin: true };
    var base = {
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
      font: { color: ink, family: getComputedStyle(document.body).fontFamily, size: 13 },
      margin: { l: 56, r: 16, t: 24, b: 84 }, hovermode: "closest",
      modebar: { bgcolor: "rgba(0,0,0,0)" },
      legend: { orientation: "h", y: -0.28, yanchor: "top", x: 0, font: { size: 12 } },
      hoverlabel: { align: "left" }, xaxis: axis, yaxis: axis
    };
    Object.keys(figure.layout).forEach(function (key) { if (/^xaxis/.test(key)) { base[key] = axis; } });
    var data = figure.data.map(function (trace) {
      if (trace.type !== "sankey") { return trace; }
      return merge(trace, { textfont: { color: ink, shadow: "none", size: 12 } });
    });
    var options = { displaylogo: false, responsive: true, modeBarButtons: [["toImage"]] };
    Plotly.react(element, data, merge(base, figure.layout), options);
    drawn.add(element);
  }
  var plots = Array.prototype.slice.call(document.querySelectorAll(".plot"));
  var watcher = new IntersectionObserver(function (entries) {
    entries.forEach(function (entry) {
      if (entry.isIntersecting && !drawn.has(entry.target)) { draw(entry.target); }
    });
  }, { rootMargin: "600px" });
  plots.forEach(function (element) { watcher.observe(element); });
  dark.addEventListener("change", function () { drawn.forEach(draw); });
  window.addEventListener("beforeprint", function () { plots.forEach(draw); });
})();
