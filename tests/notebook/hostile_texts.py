"""Texts that would do something if they became markup, a terminal's command, or a link; each could set `window.pnbHit`."""

import html
import itertools
from urllib.parse import quote

_ACT = "window.pnbHit=1"

_MARKUP = (
    "<script>{}</script>",
    "<img src=x onerror={}>",
    "<img src=x onerror='{}'//",
    "<svg onload={}>",
    "<svg><script>{}</script></svg>",
    "<svg/onload={}>",
    "<math><mi xlink:href='javascript:{}'>x</mi></math>",
    "<a href='javascript:{}'>click</a>",
    "<a href=' javascript:{}'>click</a>",
    "<a href='java\tscript:{}'>click</a>",
    "[click](javascript:{})",
    "<iframe srcdoc='<script>parent.{}</script>'></iframe>",
    "<iframe src='javascript:parent.{}'></iframe>",
    "<object data='javascript:{}'></object>",
    "<embed src='javascript:{}'>",
    "<body onload={}>",
    "<details open ontoggle={}>",
    "<video><source onerror={}></video>",
    "<input autofocus onfocus={}>",
    "<marquee onstart={}>",
    "<style>@import 'javascript:{}'</style>",
    "<style>*{{display:none!important}}</style><b onclick={}>",
    "<link rel=stylesheet href='javascript:{}'>",
    "<base href='javascript:{}//'>",
    "<meta http-equiv=refresh content='0;url=javascript:{}'>",
    "<form action='javascript:{}'><button>go</button></form>",
    "<template><script>{}</script></template>",
    "<!--><img src=x onerror={}>-->",
    "<noscript><p title='</noscript><img src=x onerror={}>'>",
    "{{{{constructor.constructor('{}')()}}}}",
)
_AROUND = (
    "{}",
    '">{}',
    "'>{}",
    "</td></tr></table>{}",
    "</title></style></script>{}",
    "]]>{}",
    "\x1b]8;;javascript:0\x07{}\x1b]8;;\x07",
    "\x1b]52;c;cm0gLXJm\x07\x1b[31m{}\r\u202e",
    "]]></svg>\x00{}\ud800",
)
_ENCODED = (lambda text: text, html.escape, lambda text: quote(text, safe=""))


def hostile_texts() -> list[str]:
    """Three hundred of them."""
    made = (
        encode(around.format(markup.format(_ACT)))
        for around, markup, encode in itertools.product(_AROUND, _MARKUP, _ENCODED)
        if encode is _ENCODED[0] or "\ud800" not in around
    )
    every = [*made]
    step = len(every) / 300
    return [every[int(place * step)] for place in range(300)]
