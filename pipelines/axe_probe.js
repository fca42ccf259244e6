// In a page, for `python -m pipelines.axe_check`: what axe-core finds, and what the Tab key does not reach.
window.axeProbe = {
  /** What axe-core finds; with `colours`, by the rules that read colours alone. */
  async violations(colours) {
    const tags = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"];
    const runOnly = colours ? { type: "rule", values: ["color-contrast", "link-in-text-block"] } : { type: "tag", values: tags };
    const found = await axe.run(document, { runOnly, resultTypes: ["violations", "incomplete"] });
    const short = ({ id, impact, nodes }) => ({ id, impact, nodes: nodes.length, first: String(nodes[0].target), why: nodes[0].failureSummary });
    return { violations: found.violations.map(short), unsure: found.incomplete.map(short) };
  },

  /** Everything that a person may want to use and sees, in the page and in the elements' own trees. */
  usable(root = document) {
    const found = [];
    for (const element of root.querySelectorAll("*")) {
      if (element.shadowRoot) found.push(...this.usable(element.shadowRoot));
      if (!element.matches("a[href], button, input, select, textarea, summary, video[controls], [tabindex='0']")) continue;
      if (element.disabled || element.tabIndex < 0 || !element.checkVisibility({ visibilityProperty: true })) continue;
      if (element.matches("summary") && element.parentElement.firstElementChild !== element) continue;
      found.push(element);
    }
    return found;
  },

  /** Shows what is hidden until something happens, so that it is checked as well. Returns how much that is. */
  reveal(root = document) {
    let count = 0;
    for (const element of root.querySelectorAll("*")) {
      if (element.shadowRoot) count += this.reveal(element.shadowRoot);
      if (element.matches("details") && !element.open) count += Boolean(element.open = true);
      if (element.hidden && !element.matches("video, canvas, input[type=file]")) count += !(element.hidden = false);
    }
    return count;
  },

  begin() {
    this.reached = new Set();
    document.activeElement?.blur();
    return this.usable().length;
  },

  /** Notes what has the focus after a press of Tab. */
  note() {
    let element = document.activeElement;
    while (element?.shadowRoot?.activeElement) element = element.shadowRoot.activeElement;
    if (element && element !== document.body) this.reached.add(element);
    return this.reached.size;
  },

  missed() {
    const name = (element) => `${element.tagName.toLowerCase()}${element.id ? `#${element.id}` : ""} ${element.textContent.trim().slice(0, 30)}`;
    return this.usable().filter((element) => !this.reached.has(element)).map(name);
  },
};
