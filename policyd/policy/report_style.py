"""The look of the page of cases and coverage; colours say the same as the words beside them."""

from __future__ import annotations

from typing import Final

STYLE: Final = """
:root {
  color-scheme: light dark;
  --ground: #fbfaf7; --card: #ffffff; --ink: #22252b; --soft: #5d6470; --line: #e3e0d8;
  --good: #1a7a4c; --good-back: #dcf3e6; --part: #8a5a00; --part-back: #fdf0cf; --bad: #b3261e; --bad-back: #fde3e1;
}
@media (prefers-color-scheme: dark) {
  :root {
    --ground: #15171b; --card: #1d2026; --ink: #e7e5df; --soft: #a0a6b1; --line: #32363e;
    --good: #6fd6a0; --good-back: #153828; --part: #f0c462; --part-back: #3d3013; --bad: #ff9d94; --bad-back: #47201d;
  }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--ink); font: 16px/1.55 system-ui, sans-serif; }
main { max-width: 62rem; margin: 0 auto; padding: 2.5rem 1.25rem 4rem; }
h1 { margin: 0; font-size: 2rem; letter-spacing: -0.02em; }
header p { margin: 0.25rem 0 1.5rem; color: var(--soft); }
h2 { margin: 2.75rem 0 0.75rem; font-size: 1.25rem; }
h3 { margin: 0; font-size: 1rem; display: flex; gap: 0.6rem; align-items: baseline; flex-wrap: wrap; }
code, pre { font: 0.875rem/1.6 ui-monospace, "SF Mono", Menlo, Consolas, monospace; overflow-wrap: anywhere; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(13rem, 1fr)); gap: 0.9rem; }
.tile, article { background: var(--card); border: 1px solid var(--line); border-radius: 12px; padding: 1rem 1.2rem; }
.tile strong { display: block; font-size: 1.75rem; font-variant-numeric: tabular-nums; }
.tile span { color: var(--soft); font-size: 0.9rem; }
.tile.good strong, em.good { color: var(--good); }
.tile.part strong { color: var(--part); }
.tile.bad strong, em.bad { color: var(--bad); }
em { font-style: normal; }
.bar { height: 8px; margin: 1rem 0 0; border-radius: 4px; background: var(--line); overflow: hidden; }
.bar span { display: block; height: 100%; background: var(--good); }
.legend { display: flex; flex-wrap: wrap; gap: 0.4rem 1.4rem; margin: 0 0 1rem; padding: 0; list-style: none; }
.legend li, .place, small { color: var(--soft); font-size: 0.85rem; }
article { margin: 0 0 0.9rem; }
.place { margin: 0.2rem 0 0.6rem; }
pre { margin: 0; white-space: pre-wrap; }
mark { color: inherit; border-radius: 4px; padding: 0.1em 0.3em; border-bottom: 2px solid; }
mark.good { background: var(--good-back); border-color: var(--good); }
mark.part { background: var(--part-back); border-color: var(--part); border-bottom-style: dashed; }
mark.bad { background: var(--bad-back); border-color: var(--bad); border-bottom-style: dotted; }
.effect, .badge { font-size: 0.75rem; font-weight: 600; padding: 0.1rem 0.55rem; border-radius: 999px; }
.effect.permit, .badge.good { color: var(--good); background: var(--good-back); }
.effect.forbid, .badge.bad { color: var(--bad); background: var(--bad-back); }
.scroll { overflow-x: auto; }
table { width: 100%; border-collapse: collapse; font-size: 0.92rem; }
th { text-align: left; color: var(--soft); font-weight: 500; }
th, td { padding: 0.5rem 0.8rem 0.5rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
@media print { article { break-inside: avoid; } }
"""
