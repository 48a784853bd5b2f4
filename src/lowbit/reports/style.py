"""How the page looks: on a screen, a phone and paper, light and dark."""

STYLE = """
:root{color-scheme:light dark;--paper:#fff;--ink:#1b1f24;--soft:#5b6470;--faint:#e6e8eb;--wash:#f5f6f7;--accent:#0b62a8;
--warn:#a8470b;--k-codes:#0b62a8;--k-float:#8c95a1;--k-books:#e09a1a;--k-scales:#c4571b;--k-zero:#b76ea0;
--k-bias:#63b0de;
--k-other:#3f8f78;--k-meta:#a9b4c2;--k-graph:#c3c8cf;--k-pad:#e6e8eb;--b2:#b8480f;--b4:#e09a1a;--b6:#4f9f86;
--b8:#0b62a8;
--b16:#8fbfe6;--on-dark:#fff;--on-light:#1b1f24}
@media screen and (prefers-color-scheme:dark){:root{--paper:#14171a;--ink:#e6e9ec;--soft:#9aa4af;--faint:#2b3137;
--wash:#1b1f23;--accent:#5cb0ee;--warn:#f0a063;--k-codes:#3f97dc;--k-float:#7d8792;--k-books:#e5ab45;--k-scales:#d97941;
--k-zero:#c98bb6;--k-bias:#8fcdf0;--k-other:#5cb79d;--k-meta:#66727f;--k-graph:#4a525b;--k-pad:#30363c;--b2:#d8692e;
--b4:#e5ab45;--b6:#5cb79d;--b8:#3f8fd0;--b16:#a9d2f2;--on-dark:#14171a;--on-light:#14171a}}
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
.notes{margin:14px 0 12px;padding-left:18px;font-size:14px;line-height:1.45;color:var(--soft);columns:2 380px;
column-gap:40px}
.notes li{break-inside:avoid;margin-bottom:5px}
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
.scroll:focus-visible,svg:focus-visible,.track:focus-visible,abbr:focus-visible{outline:2px solid var(--accent);
outline-offset:3px}
table{border-collapse:separate;border-spacing:0;font-size:14px;line-height:1.35;overflow-wrap:normal}
th,td{padding:6px 9px;text-align:right;white-space:nowrap;border-bottom:1px solid var(--faint)}
thead th{vertical-align:bottom;font-weight:600;border-bottom:1px solid var(--soft);padding-bottom:5px}
th small{display:block;font-weight:400;color:var(--soft);font-size:12px;min-height:16px}
th:first-child,.bands td{text-align:left;position:sticky;left:0;z-index:1;background:var(--paper);padding-left:0}
.more th:first-child,.more .bands td{box-shadow:1px 0 0 var(--faint)}
.main-table table{font-size:13px;min-width:100%}
.main-table th,.main-table td{padding-left:6px;padding-right:6px}
.main-table th:first-child,.main-table .bands td{padding-left:0}
.main-table .first{padding-left:16px}
.bands th,.bands td{border-bottom:0;font-size:12px;font-weight:400;color:var(--soft);padding-bottom:0}
.bands th{text-align:center}
.bands th::after{content:"";display:block;border-bottom:1px solid var(--faint);margin:3px 0 0 10px}
tbody th{font-weight:550}
tbody tr:hover th,tbody tr:hover td{background:var(--wash)}
tr.reference th,tr.reference td{border-bottom-color:var(--soft)}
td.best{font-weight:700;color:var(--accent)}
td.text,th.text{text-align:left;white-space:normal;min-width:9em}
th button{font:inherit;color:inherit;background:none;border:0;padding:0;margin:0;cursor:pointer;text-align:inherit}
th button:hover,th button:focus-visible{color:var(--accent)}
th button:not(:has(small))::after,th button small::after{content:" ↕" / "";color:var(--soft);font-weight:400;
opacity:.75}
th[aria-sort=ascending] button::after,th[aria-sort=ascending] small::after{content:" ↑" / "";color:var(--accent);
opacity:1}
th[aria-sort=descending] button::after,th[aria-sort=descending] small::after{content:" ↓" / "";color:var(--accent);
opacity:1}
th[aria-sort] button:has(small)::after{content:none}
.choice{border:0;padding:0;margin:10px 0 0;display:flex;flex-wrap:wrap;gap:2px 16px;font-size:14px}
.choice legend{float:left;padding:0;margin-right:16px;color:var(--soft)}
.choice label{padding:3px 0;cursor:pointer}
.choice input{accent-color:var(--accent);margin:0 3px 0 0;vertical-align:-1px}
.choice .all{display:none}
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
.column.float{fill:var(--k-float)}
.column.soft{fill:var(--k-graph)}
.area{fill:var(--k-graph)}
.book{fill:none;stroke:var(--accent);stroke-width:1.5}
.book.fine{stroke-width:.6;opacity:.75}
.touch{fill:transparent}
.shown.touch{fill:var(--ink);fill-opacity:.08}
.shown:not(.touch,g){stroke:var(--ink);stroke-width:2}
.few{opacity:.4}
.over-confident{fill:var(--k-books)}
.under-confident{fill:var(--k-other)}
.mark-line{stroke:var(--soft);stroke-dasharray:4 3}
.hit.right{fill:var(--accent)}
.hit.wrong{fill:var(--warn)}
.count.over{fill:var(--paper)}
.strip{overflow:hidden;width:auto}
.edge{fill:none;stroke:var(--soft);stroke-width:1.2;opacity:.7}
.node circle,.join.swatch{fill:var(--soft);background:var(--soft)}
.node.shown rect,.node.shown circle{stroke:var(--ink);stroke-width:2}
.b2{--fill:var(--b2);--on:var(--on-dark)}
.b4{--fill:var(--b4);--on:var(--on-light)}
.b6{--fill:var(--b6);--on:var(--on-light)}
.b8{--fill:var(--b8);--on:var(--on-dark)}
.b16{--fill:var(--b16);--on:var(--on-light)}
.b32{--fill:var(--k-graph);--on:var(--ink)}
.node rect{fill:var(--fill)}
.node .bits{fill:var(--on);font-size:10.5px}
.tiny{font-size:5px;fill:var(--soft);display:none}
.near .tiny{display:inline}
.near .bits{font-size:9px}
.legend .swatch{background:var(--fill)}
.legend .join{border-radius:50%;background:var(--soft)}
.graph .scroll{max-height:70vh;overflow:auto}
.graph{position:relative}
.zoom{display:flex;gap:6px;margin-top:8px}
.zoom button{font:inherit;font-size:14px;min-width:32px;height:30px;color:var(--ink);background:var(--wash);
border:1px solid
var(--faint);border-radius:4px;cursor:pointer}
.zoom button:hover{border-color:var(--soft)}
.tip{position:fixed;z-index:9;max-width:min(360px,calc(100vw - 16px));padding:5px 9px;border-radius:4px;
background:var(--ink);
color:var(--paper);font-size:13px;line-height:1.4;pointer-events:none}
.tip:empty{visibility:hidden}
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
.tiles{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(214px,100%),1fr));gap:24px 28px;margin-top:8px}
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
.choice .all{display:block}
.main-table:not(:has(#all:checked)) .minor{display:none}
th,td{padding:6px 7px}
.bands{display:none}
.main-table .first{padding-left:6px}
th:first-child{max-width:42vw;overflow:hidden;text-overflow:ellipsis}
.choice{gap:0 14px}
.choice label{padding:6px 0}
.notes{columns:1}
.two{grid-template-columns:repeat(2,minmax(0,1fr));gap:20px 14px}
.rows{gap:7px 10px;font-size:13px}
.pairs{grid-template-columns:minmax(0,1fr);gap:0}
.pairs dd{margin-bottom:8px}
}
@media print{
@page{margin:14mm}
body{font-size:10.5pt;-webkit-print-color-adjust:exact;print-color-adjust:exact}
main,header,footer{max-width:none;padding-left:0;padding-right:0}
header{padding-top:0}
footer{margin-top:20px;padding-bottom:0}
.facts{grid-template-columns:repeat(3,1fr)}
.facts .big{font-size:15pt}
.wide svg{font-size:13.5px}
nav,.choice,.zoom,.tip,details:not([open]){display:none}
th button small::after,th button:not(:has(small))::after{content:none}
section{padding-top:20px}
h2,h3{break-after:avoid}
figure svg,.card,tr,.facts div,.tiles figure,.rows,.warn,.pairs dd,.notes li,.strip{break-inside:avoid}
section>.note{break-after:avoid}
thead{display:table-header-group}
th button{display:contents}
.more th:first-child,.more .bands td{box-shadow:none}
.scroll,.graph .scroll{overflow:visible;max-height:none}
th:first-child,.bands td{position:static}
th,td{padding:3px 4px;font-size:8pt}
.main-table th,.main-table td{padding:3px;font-size:7.5pt}
.main-table th small{font-size:7pt}
.tiles{grid-template-columns:repeat(4,1fr);gap:14px 18px}
.cards{grid-template-columns:repeat(2,1fr)}
.notes{font-size:9pt}
.note,figcaption{font-size:9pt;max-width:none}
}
"""
