"""How the page looks, and the little script that sorts its table."""

STYLE = """
:root{color-scheme:light dark;--paper:#fff;--ink:#1b1f24;--soft:#5b6470;--faint:#e6e8eb;--wash:#f5f6f7;--accent:#0b62a8;
--warn:#a8470b;--k-codes:#0b62a8;--k-float:#8c95a1;--k-books:#e09a1a;--k-scales:#c4571b;--k-zero:#b76ea0;--k-bias:#63b0de;
--k-other:#3f8f78;--k-meta:#a9b4c2;--k-graph:#c3c8cf;--k-pad:#e6e8eb}
@media screen and (prefers-color-scheme:dark){:root{--paper:#14171a;--ink:#e6e9ec;--soft:#9aa4af;--faint:#2b3137;
--wash:#1b1f23;--accent:#5cb0ee;--warn:#f0a063;--k-codes:#3f97dc;--k-float:#7d8792;--k-books:#e5ab45;--k-scales:#d97941;
--k-zero:#c98bb6;--k-bias:#8fcdf0;--k-other:#5cb79d;--k-meta:#66727f;--k-graph:#4a525b;--k-pad:#30363c}}
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%;scroll-behavior:smooth}
body{margin:0;background:var(--paper);color:var(--ink);font:16px/1.55 -apple-system,BlinkMacSystemFont,"Segoe UI",
Roboto,"Helvetica Neue","Noto Sans",Arial,"Liberation Sans",sans-serif;
font-variant-numeric:tabular-nums;overflow-wrap:anywhere}
main,header{max-width:1008px;margin:0 auto;padding:0 24px}
header{padding-top:48px}
h1{font-size:30px;line-height:1.2;margin:4px 0 6px;letter-spacing:-.015em;font-weight:650}
h2{font-size:20px;line-height:1.3;margin:0 0 4px;letter-spacing:-.01em;font-weight:650}
h3{font-size:15px;margin:24px 0 6px;font-weight:650}
section{padding:36px 0 4px;scroll-margin-top:8px}
p{margin:0 0 12px}
.eyebrow,.lead,.note,figcaption,dt,caption{color:var(--soft)}
.eyebrow{font-size:14px;margin:0}
.lead{font-size:16px}
.note,figcaption{font-size:14px;line-height:1.45;max-width:88ch}
.note{margin:8px 0 12px}
figure{margin:12px 0 0}
figcaption{margin-top:8px}
a{color:var(--accent)}
nav{font-size:14px;margin:14px 0 0;display:flex;flex-wrap:wrap;gap:2px 16px}
nav a{text-decoration:none;padding:2px 0}
nav a:hover{text-decoration:underline}
.facts{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(260px,100%),1fr));gap:20px 32px;margin:28px 0 0;
padding:0}
.facts div{border-top:2px solid var(--ink);padding-top:10px}
.facts dt{font-size:14px}
.facts dd{margin:0}
.facts .big{font-size:23px;line-height:1.25;font-weight:650;letter-spacing:-.015em}
.facts .more{font-size:14px;color:var(--soft);line-height:1.4}
.warn{border-left:3px solid var(--warn);padding:2px 0 2px 12px;margin:18px 0 0;font-size:14px}
.warn ul{margin:4px 0;padding-left:18px}
.scroll{overflow-x:auto;margin:12px 0 0}
table{border-collapse:collapse;font-size:14px;line-height:1.35;overflow-wrap:normal}
th,td{padding:6px 9px;text-align:right;white-space:nowrap;border-bottom:1px solid var(--faint)}
thead th{vertical-align:bottom;font-weight:600;border-bottom:1px solid var(--soft);padding-bottom:5px}
thead small{display:block;font-weight:400;color:var(--soft);font-size:12px;min-height:16px}
th:first-child,.main-table th:first-child{text-align:left;position:sticky;left:0;background:var(--paper);padding-left:0}
.main-table table{font-size:13px;width:100%}
.main-table th,.main-table td{padding-left:6px;padding-right:6px}
tbody th{font-weight:550}
tr.reference th,tr.reference td{border-bottom-color:var(--soft)}
td.best{font-weight:700;color:var(--accent)}
td.text,th.text{text-align:left;white-space:normal;min-width:9em}
th button{font:inherit;color:inherit;background:none;border:0;padding:0;margin:0;cursor:pointer;text-align:inherit}
th button:hover,th button:focus-visible{color:var(--accent)}
th[aria-sort=ascending] button::after{content:" ↑"}
th[aria-sort=descending] button::after{content:" ↓"}
.all{display:none;font-size:14px;margin-top:10px}
details{margin-top:12px;font-size:14px}
abbr{text-decoration:none;cursor:help}
summary{cursor:pointer;color:var(--accent)}
svg{display:block;width:100%;height:auto;overflow:visible;font-size:12px}
text{fill:var(--ink);font-family:inherit}
.axis,.tick{fill:var(--soft)}
.end{text-anchor:end}
.mid{text-anchor:middle}
.strong{font-weight:650}
.label{paint-order:stroke;stroke:var(--paper);stroke-width:3px;stroke-linejoin:round}
.grid{stroke:var(--faint)}
.rule{stroke:var(--soft);stroke-width:1}
.front{fill:none;stroke:var(--accent);stroke-width:1.5;opacity:.55}
.leader{stroke:var(--soft);stroke-width:.75;opacity:.7}
.dot{stroke:var(--paper);stroke-width:1.5}
.dot.on{fill:var(--accent)}
.dot.off{fill:var(--paper);stroke:var(--soft)}
.dot.reference{fill:var(--ink)}
.bar{stroke-width:2;opacity:.28;stroke:var(--soft)}
.bar.on{stroke:var(--accent)}
.bar.reference{stroke:var(--ink)}
.cell{fill:var(--warn)}
.cell.exact{fill:none;stroke:var(--faint)}
.column{fill:var(--accent)}
.column.soft{fill:var(--k-graph)}
.area{fill:var(--k-graph)}
.book{fill:none;stroke:var(--accent);stroke-width:1.5}
.book.fine{stroke-width:.6;opacity:.75}
.narrow{display:none}
.scale{display:flex;align-items:center;gap:8px;font-size:13px;color:var(--soft);margin-top:8px;flex-wrap:wrap}
.ramp{display:inline-flex;height:12px;width:140px}
.ramp i{flex:1;background:var(--warn)}
.rows{display:grid;grid-template-columns:max-content minmax(0,1fr) max-content;gap:7px 14px;align-items:center;
font-size:14px}
.rows>span:nth-child(3n+1){max-width:34vw}
.rows>span:nth-child(3n){text-align:right}
.rows .soft{color:var(--soft)}
.track{position:relative;height:18px;display:flex}
.fill{background:var(--accent);opacity:.85}
.reference.fill{background:var(--soft)}
.spread{position:absolute;top:6px;height:6px;background:var(--ink);opacity:.75;min-width:2px}
.mark{position:absolute;top:-4px;bottom:-4px;width:0;border-left:1px dashed var(--soft)}
.seg{height:100%;box-shadow:inset -1px 0 0 var(--paper)}
.legend{display:flex;flex-wrap:wrap;gap:4px 16px;font-size:13px;color:var(--soft);margin-top:12px}
.legend i{display:inline-block;width:11px;height:11px;margin-right:6px;vertical-align:-1px}
.tiles{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(220px,100%),1fr));gap:20px 28px;margin-top:8px}
.tiles figure{margin:0}
.tiles svg{max-width:320px}
.tiles figcaption{margin:0 0 4px;font-size:13px;color:var(--soft)}
.tiles figcaption b{color:var(--ink);font-weight:600}
.cards{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(270px,100%),1fr));gap:18px 28px;margin-top:12px}
.card{display:flex;gap:12px;font-size:14px;line-height:1.4}
.card img{width:72px;height:72px;object-fit:cover;flex:none;background:var(--wash)}
.card p{margin:0}
.card .soft{color:var(--soft)}
.wrong{color:var(--warn)}
.pairs{display:grid;grid-template-columns:max-content minmax(0,1fr);gap:4px 18px;font-size:14px;margin:12px 0 0}
.pairs dd{margin:0}
.detail{display:none}
.detail:target{display:block}
.detail:target~.hint{display:none}
code{font:13px/1.5 ui-monospace,"SF Mono",Menlo,Consolas,"Liberation Mono",monospace}
footer{max-width:1008px;margin:40px auto 0;padding:14px 24px 40px;font-size:13px;color:var(--soft)}
@media screen and (max-width:700px){
main,header,footer{padding-left:16px;padding-right:16px}
header{padding-top:24px}
h1{font-size:24px}
section{padding-top:30px}
.wide{display:none}
.narrow{display:block}
.narrow svg{max-width:460px}
.all{display:block}
.main-table:not(:has(#all:checked)) .minor{display:none}
th,td{padding:6px 7px}
.rows{gap:7px 10px;font-size:13px}
.pairs{grid-template-columns:minmax(0,1fr);gap:0}
.pairs dd{margin-bottom:8px}
}
@media print{
@page{margin:14mm}
body{font-size:11pt;-webkit-print-color-adjust:exact;print-color-adjust:exact}
main,header,footer{max-width:none;padding-left:0;padding-right:0}
header{padding-top:0}
svg{font-size:14px}
.facts{grid-template-columns:repeat(3,1fr)}
nav,.all,details:not([open]),th button::after{display:none}
section{padding-top:22px}
h2,h3{break-after:avoid}
figure,.card,tr,.facts div{break-inside:avoid}
.scroll{overflow:visible}
th,td{padding:4px 5px;font-size:8.5pt}
.rare{display:none}
}
"""

SCRIPT = """
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0], first = [...body.rows];
  table.tHead.addEventListener("click", event => {
    const head = event.target.closest("th");
    if (!head || !event.target.closest("button")) return;
    const down = head.getAttribute("aria-sort") === "descending", up = head.getAttribute("aria-sort") === "ascending";
    for (const other of head.parentNode.cells) other.removeAttribute("aria-sort");
    const key = row => row.cells[head.cellIndex].dataset.v ?? row.cells[head.cellIndex].textContent;
    const order = (a, b) => {
      const x = key(a), y = key(b);
      if (x === "" || y === "") return (x === "") - (y === "");
      const sign = down ? 1 : -1;
      return sign * (isNaN(x) || isNaN(y) ? x.localeCompare(y) : x - y);
    };
    if (!up) head.setAttribute("aria-sort", down ? "ascending" : "descending");
    body.append(...(up ? first : [...first].sort(order)));
  });
}
"""
