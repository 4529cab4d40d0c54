// Pictures follow the theme of the book, which need not be that of the system.
(() => {
  const dark = ["coal", "navy", "ayu"];
  const follow = () => {
    const isDark = dark.some((theme) => document.documentElement.classList.contains(theme));
    for (const source of document.querySelectorAll("picture > source")) {
      source.media = isDark ? "all" : "not all";
    }
  };
  new MutationObserver(follow).observe(document.documentElement, { attributeFilter: ["class"] });
  follow();
})();
