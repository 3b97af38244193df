const names = JSON.parse(document.getElementById("names").textContent);
const cases = [...document.querySelectorAll(".compare")];
function show() {
  const sides = {};
  for (const side of ["left", "right"]) {
    sides[side] = document.querySelector(`input[name=${side}]:checked`).value;
  }
  document.body.dataset.right = sides.right;
  for (const box of cases) {
    for (const image of box.querySelectorAll("img")) {
      image.classList.toggle("left", image.dataset.kind === sides.left);
      image.classList.toggle("right", image.dataset.kind === sides.right);
    }
    box.querySelector(".tag.l").textContent = names[sides.left];
    box.querySelector(".tag.r").textContent = names[sides.right];
    const range = box.querySelector("input");
    range.setAttribute("aria-label",
      `${box.dataset.title}: divider between ${names[sides.left]} on the left and ${names[sides.right]} on the right`);
  }
}
for (const box of cases) {
  const range = box.querySelector("input");
  const move = () => {
    box.style.setProperty("--at", `${range.value}%`);
    range.setAttribute("aria-valuetext", `${Math.round(range.value)} % shows the left picture`);
  };
  range.addEventListener("input", move);
  move();
}
document.querySelectorAll(".controls input").forEach(input => input.addEventListener("change", show));
show();
