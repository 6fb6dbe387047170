"use strict";
(() => {
  const NUMBER = /^(?:layer |p < )?([+-]?\d+(?:\.\d+)?(?:e[+-]?\d+)?)%?(?= |$)/;
  const UNDEFINED = new Set(["", "–"]);
  const textOf = (row, column) => row.cells[column].textContent.trim();
  const numberOf = (text) => {
    const found = NUMBER.exec(text.replaceAll("−", "-"));
    return found ? Number(found[1]) : NaN;
  };

  // Rows by a column: numbers as numbers where all that is defined is one, what is undefined last in either direction.
  const sorted = (rows, column, sign) => {
    const numeric = rows.map((row) => textOf(row, column)).filter((text) => !UNDEFINED.has(text))
      .every((text) => !Number.isNaN(numberOf(text)));
    const compared = (a, b) => (numeric ? numberOf(a) - numberOf(b) : a.localeCompare(b, "en", { numeric: true }));
    return [...rows].sort((first, second) => {
      const [a, b] = [textOf(first, column), textOf(second, column)];
      const [none, other] = [UNDEFINED.has(a), UNDEFINED.has(b)];
      return none || other ? none - other : sign * compared(a, b);
    });
  };

  for (const table of document.querySelectorAll("table")) {
    const [body] = table.tBodies;
    const found = [...body.rows];
    if (found.length < 2) continue;
    const headings = [...table.tHead.rows[0].cells];
    headings.forEach((heading, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.title = "Sort by this column";
      button.append(heading.firstChild);
      heading.prepend(button);
      button.addEventListener("click", () => {
        const next = { ascending: "descending", descending: "" }[heading.ariaSort] ?? "ascending";
        headings.forEach((other) => other.removeAttribute("aria-sort"));
        if (next) heading.setAttribute("aria-sort", next);
        body.append(...(next ? sorted(found, column, next === "ascending" ? 1 : -1) : found));
      });
    });
  }

  // A figure opens large; Escape, the button and a click beside it close it.
  const dialog = document.createElement("dialog");
  const close = document.createElement("button");
  close.type = "button";
  close.className = "close";
  close.textContent = "Close";
  close.addEventListener("click", () => dialog.close());
  dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
  document.body.append(dialog);
  for (const picture of document.querySelectorAll("figure img")) {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "enlarge";
    button.title = "Enlarge";
    button.setAttribute("aria-haspopup", "dialog");
    picture.replaceWith(button);
    button.append(picture);
    button.addEventListener("click", () => {
      const large = picture.cloneNode();
      dialog.setAttribute("aria-label", picture.alt);
      dialog.replaceChildren(close, large);
      dialog.showModal();
    });
  }

  // What a heading means shows where the pointer rests on its link.
  for (const link of document.querySelectorAll("a.define, a.word")) {
    const meaning = document.getElementById(link.getAttribute("href").slice(1))?.querySelector("dd");
    if (meaning) link.title = meaning.textContent.trim();
  }

  // All is printed.
  const closed = [...document.querySelectorAll("details:not([open])")];
  window.addEventListener("beforeprint", () => closed.forEach((part) => { part.dataset.closed = !part.open; part.open = true; }));
  window.addEventListener("afterprint", () => closed.forEach((part) => { part.open = part.dataset.closed !== "true"; }));
})();
