"use strict";
(() => {
  const data = JSON.parse(document.getElementById("trace").textContent);
  const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
  const columns = data.adapters.length, tokens = data.tokens;
  const weight = (l, t, n) => {
    const i = 2 * ((l * tokens + t) * columns + n);
    return (letters.indexOf(data.weights[i]) * 64 + letters.indexOf(data.weights[i + 1])) / 4095;
  };
  const layer = document.getElementById("layer"), spans = [...document.querySelectorAll(".tok")];
  const layers = () => layer.value === "" ? data.layers.map((_, i) => i) : [Number(layer.value)];
  const mean = (t, n) => layers().reduce((sum, l) => sum + weight(l, t, n), 0) / layers().length;
  let chosen = 0;
  const paint = () => {
    spans.forEach((span, t) => {
      const all = data.adapters.map((_, n) => mean(t, n));
      const best = all.indexOf(Math.max(...all));
      const colour = data.colours[best];
      span.style.borderBottomColor = colour;
      span.style.backgroundColor = colour + Math.round(255 * Math.min(0.55, all[best] * 0.6)).toString(16).padStart(2, "0");
      span.title = `${data.adapters[best]}: ${(100 * all[best]).toFixed(0)} %`;
    });
  };
  const show = (t) => {
    spans[chosen].classList.remove("on");
    chosen = t;
    spans[t].classList.add("on");
    document.getElementById("which").textContent = `Token ${t + 1}: "${spans[t].textContent}"`;
    const body = document.getElementById("weights");
    body.replaceChildren(...data.layers.map((name, l) => {
      const row = document.createElement("tr"), head = document.createElement("th");
      head.scope = "row";
      head.textContent = name;
      row.append(head, ...data.adapters.map((_, n) => {
        const cell = document.createElement("td"), w = weight(l, t, n);
        cell.textContent = w < 0.005 ? "" : (100 * w).toFixed(0);
        if (w >= 0.005) cell.style.backgroundColor = data.colours[n] + Math.round(255 * Math.min(0.75, w * 0.8)).toString(16).padStart(2, "0");
        return cell;
      }));
      return row;
    }));
  };
  layer.addEventListener("change", paint);
  spans.forEach((span, t) => span.addEventListener("click", () => show(t)));
  document.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step || event.target === layer) return;
    show(Math.min(spans.length - 1, Math.max(0, chosen + step)));
    spans[chosen].focus();
  });
  paint();
  show(0);
})();
