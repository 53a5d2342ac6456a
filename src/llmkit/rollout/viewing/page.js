// Search, limits of the reward, order and colours of the rollouts.
const holder = document.getElementById("rollouts"), rollouts = [...holder.children];
const field = (id) => document.getElementById(id);
const number = (rollout, name) => rollout.dataset[name] === undefined ? null : Number(rollout.dataset[name]);
const filter = () => {
  const wanted = field("search").value.toLowerCase(), least = field("least").value, most = field("most").value;
  let shown = 0;
  for (const rollout of rollouts) {
    const reward = number(rollout, "reward");
    const fits = (least === "" || (reward !== null && reward >= Number(least)))
      && (most === "" || (reward !== null && reward <= Number(most)))
      && rollout.textContent.toLowerCase().includes(wanted);
    rollout.hidden = !fits;
    shown += fits;
  }
  field("count").textContent = `${shown} of ${rollouts.length}`;
};
const sort = () => {
  const order = field("order").value, name = order.replace("-", ""), sign = order.startsWith("-") ? -1 : 1;
  const key = (rollout) => number(rollout, name) ?? sign * Infinity;
  const sorted = order === "place" ? rollouts : [...rollouts].sort((a, b) => sign * (key(a) - key(b)) || 0);
  holder.append(...sorted);
};
for (const id of ["search", "least", "most"]) field(id).addEventListener("input", filter);
field("order").addEventListener("change", sort);
const coloured = field("coloured");
if (coloured !== null) {
  const colour = () => holder.classList.toggle("coloured", coloured.checked);
  coloured.addEventListener("change", colour);
  colour();
}
filter();
sort();
