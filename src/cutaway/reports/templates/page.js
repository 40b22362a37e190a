(function () {
  "use strict";
  var places = [];
  document.querySelectorAll('script[type="application/json"][data-figure]').forEach(function (holder) {
    var spec = JSON.parse(holder.textContent);
    var place = document.getElementById(holder.dataset.figure);
    places.push(place);
    ["paper_bgcolor", "plot_bgcolor"].forEach(function (ground) {
      if (spec.layout[ground] === "#ffffff") spec.layout[ground] = "rgba(0,0,0,0)";
    });
    place.closest("figure").classList.add("live");
    Plotly.newPlot(place, spec.data, spec.layout, {
      responsive: true,
      displaylogo: false,
      plotlyServerURL: "",
      displayModeBar: false
    });
  });
  // A4 less its margins, at 96 dots to the inch: figures are drawn again at that width before they are printed.
  var paper = 672;
  function resize(width) {
    places.forEach(function (place) {
      Plotly.relayout(place, width ? { autosize: false, width: width } : { autosize: true, width: null });
    });
  }
  window.addEventListener("beforeprint", function () { resize(paper); });
  window.addEventListener("afterprint", function () { resize(null); });
})();
