// What the theme of the site leaves out for people who use a keyboard or a screen reader; axe-core checks it.
document.addEventListener("DOMContentLoaded", () => {
  for (const title of document.querySelectorAll(".caption[role='heading']:not([aria-level])")) title.ariaLevel = "2";
  document.querySelector(".sidebar-drawer")?.setAttribute("aria-label", "Pages");
  document.querySelector(".toc-drawer")?.setAttribute("aria-label", "On this page");
  // What scrolls sideways has to be reached by the keyboard.
  for (const part of document.querySelectorAll(".highlight pre, .table-wrapper")) part.tabIndex = 0;
  for (const cell of document.querySelectorAll("th")) {
    if (!cell.textContent.trim() && !cell.querySelector("img")) cell.innerHTML = "<span class='visually-hidden'>Row</span>";
  }
});
