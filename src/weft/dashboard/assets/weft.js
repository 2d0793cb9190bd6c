// The dashboard's own script: how values are written, cells of tables, colours of charts.
(() => {
  const text = (n, d) => n.toLocaleString("en-US", {minimumFractionDigits: d, maximumFractionDigits: d});
  const span = s => s >= 172800 ? Math.round(s / 86400) + " d" : s >= 7200 ? Math.round(s / 3600) + " h"
    : s >= 120 ? Math.round(s / 60) + " min" : Math.round(s) + " s";
  const absent = v => v === null || v === undefined || v === "";
  const weft = window.weft = {
    rate: v => absent(v) ? "–" : v === 0 ? "0" : text(v, v >= 100 ? 0 : v >= 10 ? 1 : 2),
    ms: v => absent(v) ? "–" : v >= 100 ? text(v, 0) + " s" : v >= 1 ? text(v, 1) + " s"
      : v >= 0.01 ? text(v * 1000, 0) + " ms" : text(v * 1000, 1) + " ms",
    span: v => absent(v) ? "–" : span(v),
    percent: v => absent(v) ? "–" : v >= 0.9995 && v < 1 ? "99.9 %" : text(v * 100, v >= 0.9995 ? 0 : 1) + " %",
    count: v => absent(v) ? "–" : text(v, 0),
    plain: v => absent(v) ? "–" : String(v),
    money: v => absent(v) ? "–" : "$" + text(v, v >= 100 ? 0 : v >= 1 ? 2 : 4),
    ago: v => {
      if (absent(v)) return "–";
      const d = v - Date.now() / 1000;
      return Math.abs(d) < 2 ? "just now" : d > 0 ? "in " + span(d) : span(-d) + " ago";
    },
    at: v => absent(v) ? "" : new Date(v * 1000).toISOString().replace("T", " ").slice(0, 19) + " UTC",
    link: field => p => {
      const to = p.data && p.data[field];
      if (typeof to !== "string" || !to.startsWith("/dashboard/")) return document.createTextNode(weft.plain(p.value));
      const a = document.createElement("a");
      a.className = "weft-link"; a.textContent = weft.plain(p.value); a.href = to; a.tabIndex = -1;
      return a;
    },
    state: field => p => {
      const s = document.createElement("span"), tone = p.data && p.data[field];
      s.className = "weft-state" + (["ok", "warn", "bad", "muted"].includes(tone) ? " weft-" + tone : "");
      s.textContent = weft.plain(p.value);
      return s;
    },
    columns: api => {
      const wide = api.getColumns().filter(c => String(c.getColDef().headerClass || "").includes("weft-wide-column"));
      if (wide.length) api.setColumnsVisible(wide, innerWidth >= 700);
    },
    ready: api => { weft.grids.add(api); weft.columns(api); },
    enter: e => {
      if (!e.event || e.event.key !== "Enter") return;
      const a = e.event.target.querySelector("a");
      (a || e.event.target).click();
    },
    grids: new Set(),
    theme: () => {
      const c = getComputedStyle(document.body), v = n => c.getPropertyValue("--weft-" + n).trim();
      document.querySelectorAll(".weft-chart").forEach(el => {
        const chart = getElement(Number(el.id.slice(1)))?.chart;
        if (!chart) return;
        const had = chart.getOption(), axis = () => ({axisLabel: {color: v("muted")}, nameTextStyle: {color: v("muted")},
          axisLine: {lineStyle: {color: v("line")}}, splitLine: {lineStyle: {color: v("line")}}});
        const patch = {textStyle: {color: v("fg")}};
        if (had.xAxis) patch.xAxis = had.xAxis.map(axis);
        if (had.yAxis) patch.yAxis = had.yAxis.map(axis);
        if (had.legend) patch.legend = had.legend.map(() => ({textStyle: {color: v("fg")}}));
        if (had.title) patch.title = had.title.map(() => ({textStyle: {color: v("fg")}}));
        if (had.tooltip) patch.tooltip = had.tooltip.map(() => ({backgroundColor: v("surface"),
          borderColor: v("line"), textStyle: {color: v("fg")}}));
        chart.setOption(patch);
      });
    },
    // What is typed into a text area is kept in this tab, since it may have to load the page anew.
    draft: id => {
      const area = document.querySelector("#" + id + " textarea") || document.getElementById(id);
      const name = weft.drafted(), kept = sessionStorage.getItem(name);
      if (!area) return;
      if (kept && kept !== area.value) emitEvent("weft-draft", kept);
      area.addEventListener("input", () => {
        try { sessionStorage.setItem(name, area.value); } catch (e) { weft.forget(); }
      });
    },
    drafted: () => "weft-draft " + location.pathname,
    forget: () => sessionStorage.removeItem(weft.drafted()),
    dark: value => {
      document.cookie = "weft-theme=" + value + "; Path=/dashboard; Max-Age=31536000; SameSite=Strict";
    },
  };
  addEventListener("resize", () => weft.grids.forEach(api => api.isDestroyed() ? weft.grids.delete(api) : weft.columns(api)));
  addEventListener("keydown", e => { if (e.key === "Escape" && innerWidth < 700) emitEvent("weft-escape"); });
  document.addEventListener("visibilitychange", () => emitEvent("weft-visible", !document.hidden));
  setInterval(() => {
    weft.grids.forEach(api => {
      if (api.isDestroyed()) { weft.grids.delete(api); return; }
      const times = api.getColumns().filter(c => String(c.getColDef().headerClass || "").includes("weft-time-column"));
      if (times.length) api.refreshCells({columns: times, force: true});
    });
    document.querySelectorAll("time[data-at]").forEach(el => { el.textContent = weft.ago(Number(el.dataset.at)); });
  }, 5000);
  addEventListener("DOMContentLoaded", () => {
    new MutationObserver(weft.theme).observe(document.body, {attributes: true, attributeFilter: ["class"]});
    const state = () => {
      const popup = document.getElementById("popup"), el = document.querySelector(".weft-connection");
      if (!popup || !el) return;
      const lost = popup.ariaHidden === "false";
      el.classList.toggle("weft-bad", lost); el.classList.toggle("weft-ok", !lost);
      el.textContent = lost ? "reconnecting" : "live";
    };
    const popup = document.getElementById("popup");
    if (popup) new MutationObserver(state).observe(popup, {attributes: true});
  });
})();
