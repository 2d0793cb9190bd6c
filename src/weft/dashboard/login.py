"""The page on which one signs in: plain HTML, without NiceGUI."""

from __future__ import annotations

from html import escape

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Sign in - Weft</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><meta name="color-scheme" content="light dark">
<style nonce="{nonce}">
:root{{--fg:#17212b;--muted:#55616e;--line:#b6c0ca;--page:#f4f6f8;--surface:#fff;--accent:#1f5fbf;--bad:#c0271d}}
@media(prefers-color-scheme:dark){{:root{{--fg:#e4e9ee;--muted:#9ba8b5;--line:#4a5663;--page:#0f1419;--surface:#171d24;
--accent:#79aefc;--bad:#ff7d72}}}}
body{{margin:0;min-height:100vh;display:grid;place-items:center;background:var(--page);color:var(--fg);
font:15px/1.5 system-ui,sans-serif}}
main{{width:min(380px,100vw - 32px);box-sizing:border-box;background:var(--surface);border:1px solid var(--line);
border-radius:10px;padding:24px}}
h1{{font-size:20px;margin:0 0 4px}}p{{color:var(--muted);margin:0 0 16px;overflow-wrap:anywhere}}
label{{display:block;font-weight:600;margin-bottom:4px}}
input{{width:100%;box-sizing:border-box;padding:9px 10px;font:inherit;color:inherit;background:var(--page);
border:1px solid var(--line);border-radius:6px}}
button{{margin-top:14px;width:100%;padding:10px;font:inherit;font-weight:600;border:0;border-radius:6px;
background:var(--accent);color:var(--surface);cursor:pointer}}
:focus-visible{{outline:3px solid #f5a623;outline-offset:2px}}
[role=alert]{{color:var(--bad);margin:0 0 14px}}code{{font-family:ui-monospace,monospace}}
</style></head>
<body><main><h1>Weft</h1>{body}</main>{script}</body></html>
"""

_FORM = """<p>The dashboard of this mesh.</p>{problem}
<form method="post" action="{action}">
<label for="token">Token</label>
<input id="token" name="token" type="password" autocomplete="off" spellcheck="false" required autofocus>
<button>Sign in</button></form>
<p>Or run <code>weft dashboard</code>, which signs you in.</p>"""

_CODE = """<p>Signing in with the code of <code>weft dashboard</code>.</p>
<form method="post" action="{action}" id="form"><input type="hidden" name="code" value="{code}">
<button>Sign in</button></form>"""

_SUBMIT = '<script nonce="{nonce}">document.getElementById("form").submit()</script>'


def login_page(*, action: str, nonce: str, problem: str = "") -> str:
    """The form that asks for a token; `problem` says why the last one was not taken."""
    told = f'<p role="alert">{escape(problem)}</p>' if problem else ""
    body = _FORM.format(problem=told, action=escape(action)).replace('', "")
    return _PAGE.format(nonce=nonce, body=body, script="")


def code_page(*, action: str, nonce: str, code: str, at_once: bool) -> str:
    """The form that hands a code over, by itself if `at_once`.

    A code is in a URL, which programs may fetch to look ahead: only a form's POST uses it up.
    """
    body = _CODE.format(action=escape(action), code=escape(code))
    return _PAGE.format(nonce=nonce, body=body, script=_SUBMIT.format(nonce=nonce) if at_once else "")
