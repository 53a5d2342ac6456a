// Filters of the rows: what is ticked becomes a class of the page, and the search hides rows without the text.
for (const box of document.querySelectorAll("[data-toggles]")) {
  const apply = () => document.body.classList.toggle(box.dataset.toggles, box.checked);
  box.addEventListener("change", apply);
  apply();
}
const search = document.getElementById("search");
search?.addEventListener("input", () => {
  const wanted = search.value.toLowerCase();
  for (const row of document.querySelectorAll("article.row")) {
    row.hidden = !row.textContent.toLowerCase().includes(wanted);
  }
});
