"""Texts that try to run something in a browser, or to fetch something: `p()` is what they call,
x.test whom they ask.
"""

from __future__ import annotations

from itertools import product

MARK = "window.p = () => { window.__pwned = (window.__pwned || 0) + 1; }"
ATTACKS = (
    "<script>p()</script>",
    "<img src=x onerror=p()>",
    "<svg onload=p()>",
    "<svg><animate onbegin=p()>",
    "<iframe src=javascript:parent.p()>",
    "<iframe srcdoc='<script>parent.p()</script>'>",
    "<body onload=p()>",
    "<details open ontoggle=p()>",
    "<video src=x onerror=p()>",
    "<input autofocus onfocus=p()>",
    "<style>@import '//x.test/a'</style>",
    "<img src=//x.test/b>",
    "<link rel=stylesheet href=//x.test/c>",
    "<object data=//x.test/d>",
    "<embed src=//x.test/e>",
    "<base href=//x.test/>",
    "<form action=javascript:p()><button>",
    "<a href=javascript:p()>a</a>",
    "[a](javascript:p())",
    "![a](//x.test/f.png)",
    "[![a](http://x.test/g)](//x.test)",
    r"$\href{javascript:p()}{a}$",
    r"$\includegraphics{//x.test/h}$",
    ":material/home: :red[a] :p():",
    "{{p()}} ${p()} #{p()}",
)
AROUND = ("{}", '">{}', "'>{}", "</textarea>{}", "</script>{}", "`{}", "\u202e{}", "--> {}\\")
HOSTILE = [around.replace("{}", attack, 1) for around, attack in product(AROUND, ATTACKS)]


def packed(limit: int) -> list[str]:
    """All of them, as many to a text as fit."""
    texts = [""]
    for one in HOSTILE:
        if texts[-1] and len(texts[-1]) + 1 + len(one) > limit:
            texts.append("")
        texts[-1] = f"{texts[-1]} {one}".strip()
    return texts
