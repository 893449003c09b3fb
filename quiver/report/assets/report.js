"use strict";
(() => {
  // Tables: a click on a heading sorts by its column, a second click turns the order round.
  const value = (row, column) => row.children[column].dataset.v ?? "";
  const compare = (a, b) => {
    if (a === "" || b === "") return (a === "") - (b === "");
    const x = Number(a), y = Number(b);
    return Number.isNaN(x) || Number.isNaN(y) ? a.localeCompare(b) : x - y;
  };
  for (const button of document.querySelectorAll("button.sort")) {
    button.addEventListener("click", () => {
      const heading = button.parentElement, column = heading.cellIndex;
      const up = heading.getAttribute("aria-sort") !== "ascending";
      for (const other of heading.parentElement.children) other.removeAttribute("aria-sort");
      heading.setAttribute("aria-sort", up ? "ascending" : "descending");
      const body = heading.closest("table").tBodies[0];
      const rows = [...body.rows].map((row) => [value(row, column), row]);
      // Empty cells stay last in either order.
      rows.sort(([a], [b]) => (a === "" || b === "" || up ? compare(a, b) : compare(b, a)));
      body.append(...rows.map(([, row]) => row));
    });
  }

  // The layer view: the page holds every task's shares, two letters of 6 bits each.
  const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
  const steps = 16;
  for (const box of document.querySelectorAll("[data-layers]")) {
    const data = JSON.parse(document.getElementById(box.dataset.layers).textContent);
    const count = data.layers.length * data.adapters.length;
    const cells = [...box.querySelectorAll("rect.cell")].slice(0, count);
    const index = new Map(cells.map((cell, i) => [cell, i]));
    const frame = box.querySelector("rect.column");
    const select = box.querySelector("select");
    const share = (i) => {
      const packed = data.shares[select.selectedIndex];
      return (letters.indexOf(packed[2 * i]) * 64 + letters.indexOf(packed[2 * i + 1])) / 4095;
    };
    const show = () => {
      cells.forEach((cell, i) => {
        const step = Math.min(steps - 1, Math.floor(Math.sqrt(share(i) / data.high) * steps));
        cell.setAttribute("class", "cell q" + step);
        cell.replaceChildren();
      });
      const own = data.own[select.selectedIndex];
      frame.classList.toggle("hidden", own < 0);
      if (own >= 0) frame.setAttribute("x", cells[own].getAttribute("x"));
    };
    select.addEventListener("change", show);
    box.addEventListener("mouseover", (event) => {
      const i = index.get(event.target);
      if (i === undefined || event.target.firstChild) return;
      const title = document.createElementNS("http://www.w3.org/2000/svg", "title");
      const layer = data.layers[Math.floor(i / data.adapters.length)];
      title.textContent = `${layer}, ${data.adapters[i % data.adapters.length]}: ${(100 * share(i)).toFixed(1)} %`;
      event.target.append(title);
    });
  }

  // On paper nothing can be unfolded: the settings belong there, long tables only if the reader opened them.
  let folded = [];
  addEventListener("beforeprint", () => {
    folded = [...document.querySelectorAll("details.settings:not([open])")];
    for (const details of folded) details.open = true;
  });
  addEventListener("afterprint", () => {
    for (const details of folded) details.open = false;
  });
})();
