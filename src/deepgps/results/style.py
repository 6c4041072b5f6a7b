"""The report's style: readable in light and dark, on paper and on a telephone."""

STYLE = """
:root{--ground:#fff;--ink:#1c1d21;--faint:#5f636d;--line:#d9dbe1;--panel:#f5f6f8;--bar:#9db4e8;--named:#2f5fd0;
--note:#fff4d6}
@media (prefers-color-scheme:dark){:root{--ground:#131417;--ink:#e9eaee;--faint:#a0a4af;--line:#33353c;
--panel:#1c1e23;--bar:#42598f;--named:#7fa2ff;--note:#3a3117}}
*{box-sizing:border-box}
body{margin:0;background:var(--ground);color:var(--ink);font:16px/1.5 system-ui,sans-serif}
main{max-width:64rem;margin:0 auto;padding:1.5rem 1rem 4rem}
h1{font-size:1.5rem;margin:0 0 .25rem}
h2{font-size:1.2rem;margin:2rem 0 .5rem}
h3{font-size:1.05rem;margin:0;overflow-wrap:anywhere}
h4{font-size:.85rem;margin:0 0 .4rem;color:var(--faint);font-weight:600}
p{margin:.4rem 0}
a{color:var(--named)}
.facts{color:var(--faint)}
.note{background:var(--note);padding:.5rem .75rem;border-radius:.4rem}
.wide{overflow-x:auto}
summary{cursor:pointer;padding:.5rem 0;font-weight:600}
table{border-collapse:collapse;font-size:.9rem;width:100%}
th,td{text-align:left;padding:.3rem .75rem .3rem 0;border-bottom:1px solid var(--line);vertical-align:top}
th{color:var(--faint);font-weight:600;white-space:nowrap}
td:first-child{min-width:7rem;overflow-wrap:anywhere}
td{font-variant-numeric:tabular-nums}
article{background:var(--panel);border:1px solid var(--line);border-radius:.6rem;padding:1rem;margin:0 0 1rem;
content-visibility:auto;contain-intrinsic-size:auto 46rem;break-inside:avoid}
article img{display:block;width:100%;height:auto;border-radius:.4rem;margin:.5rem 0 .75rem}
.columns{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(20rem,100%),1fr));gap:1rem 2rem}
.bar{display:grid;grid-template-columns:9.5rem 1fr 2.5rem;gap:.5rem;align-items:center;font-size:.85rem;
line-height:1.55;color:var(--faint)}
.bar i{height:.6rem;border-radius:.2rem;
background:linear-gradient(var(--bar),var(--bar)) 0/var(--p) 100% no-repeat,var(--line)}
.bar b{font-weight:400;text-align:right;font-variant-numeric:tabular-nums}
.named{color:var(--ink);font-weight:600}
.named i{background:linear-gradient(var(--named),var(--named)) 0/var(--p) 100% no-repeat,var(--line)}
.named b{font-weight:600}
.warnings{margin:.75rem 0 0;padding-left:1.2rem;color:var(--faint);font-size:.9rem}
@media print{details:not([open]){display:none}body{font-size:12px}}
"""
