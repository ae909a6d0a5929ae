// Runs before the first paint, so that nobody who chose dark is shown light first.
(() => {
  try {
    const theme = JSON.parse(localStorage.getItem("onebox.theme"));
    if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
  } catch {
    // as the system has it
  }
})();
