"use strict";
const filters = document.querySelector(".filters");
const samples = Array.from(document.querySelectorAll(".sample"));
function show() {
  const wanted = Object.fromEntries(Array.from(filters.querySelectorAll("select"), (s) => [s.name, s.value]));
  let count = 0;
  for (const sample of samples) {
    const wrong = sample.dataset.wrong.split(" ");
    sample.hidden =
      (wanted.language !== "" && sample.dataset.language !== wanted.language) ||
      (wanted.category !== "" && sample.dataset.category !== wanted.category) ||
      (wanted.wrong !== "" && !wrong.includes(wanted.wrong));
    count += sample.hidden ? 0 : 1;
  }
  filters.querySelector("output").textContent = `${count} of ${samples.length} shown`;
}
if (filters) {
  filters.hidden = false;
  filters.addEventListener("change", show);
  show();
}
