"""The page on which one signs in: plain HTML, without NiceGUI."""

from __future__ import annotations

from html import escape

from weft.dashboard.assets import text_of

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Sign in - Weft</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<style nonce="{nonce}">{style}</style></head>
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
    body = _FORM.format(problem=told, action=escape(action)).replace("", "")
    return _page(nonce, body)


def code_page(*, action: str, nonce: str, code: str, at_once: bool) -> str:
    """The form that hands a code over, by itself if `at_once`.

    A code is in a URL, which programs may fetch to look ahead: only a form's POST uses it up.
    """
    body = _CODE.format(action=escape(action), code=escape(code))
    return _page(nonce, body, _SUBMIT.format(nonce=nonce) if at_once else "")


def _page(nonce: str, body: str, script: str = "") -> str:
    return _PAGE.format(nonce=nonce, style=text_of("login.css"), body=body, script=script)
