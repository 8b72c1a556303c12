"""The look of the report that is sent on: light or dark as the reader's system is, and black on white on paper."""

STYLE = """
:root { color-scheme: light dark; --ink: #0f172a; --soft: #475569; --line: #cbd5e1; --page: #fff; --sunken: #f1f4f9;
  --good: #047857; --bad: #b91c1c }
@media (prefers-color-scheme: dark) { :root { --ink: #e8ecf4; --soft: #aab6c8; --line: #34435e; --page: #0b1120;
  --sunken: #121a2c; --good: #34d399; --bad: #f87171 } }
body { margin: 0; background: var(--page); color: var(--ink); font: 15px/1.5 system-ui, sans-serif }
main { max-width: 70rem; margin: 0 auto; padding: 2rem 1.5rem }
h1 { font-size: 1.6rem } h2 { font-size: 1.2rem; margin: 2rem 0 .5rem } h3 { font-size: 1rem; margin: 1.25rem 0 .5rem }
h4 { font-size: .8rem; margin: 0; color: var(--soft) }
h1, h2, td, dd { overflow-wrap: anywhere }
h1 span { font-size: 1rem }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .25rem 1.25rem; margin: 0 }
dt, small { color: var(--soft) } dd { margin: 0 }
.wide { overflow-x: auto }
table { border-collapse: collapse; width: 100% }
th { text-align: left; color: var(--soft); font-weight: 600 }
th, td { padding: .35rem .75rem .35rem 0; border-bottom: 1px solid var(--line); vertical-align: top }
code { font: .8rem ui-monospace, monospace; overflow-wrap: anywhere }
.good { color: var(--good); font-weight: 700 } .bad { color: var(--bad); font-weight: 700 }
.text, .token { font: .85rem/1.5 ui-monospace, monospace; white-space: pre-wrap; overflow-wrap: anywhere }
.token { background: var(--sunken); border: 1px solid var(--line); padding: 0 .25rem }
article { border: 1px solid var(--line); padding: .75rem; margin: .75rem 0; break-inside: avoid }
article p { margin: .25rem 0 }
.beside { display: grid; grid-template-columns: repeat(auto-fit, minmax(14rem, 1fr)); gap: .75rem }
.beside > div { background: var(--sunken); padding: .5rem .75rem }
@media print {
  :root { --ink: #000; --soft: #333; --page: #fff; --sunken: #fff; --good: #000; --bad: #000; --line: #999 }
  main { max-width: none; padding: 0 } tr { break-inside: avoid }
}
"""
