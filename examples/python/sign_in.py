"""A program on somebody's machine that has them sign in by their browser: code with PKCE. Needs Authlib and requests.

    CLIENT_ID=… python3 sign_in.py

A confidential application has CLIENT_SECRET too. Its redirect URI is http://127.0.0.1/callback: of one on loopback the port is
free (RFC 8252). Tokens are printed nowhere.
"""

import json
import os
from http.server import BaseHTTPRequestHandler, HTTPServer
from urllib.parse import parse_qs, urlsplit

import requests
from authlib.common.security import generate_token
from authlib.integrations.requests_client import OAuth2Session, OAuthError
from authlib.jose import JsonWebKey, JsonWebToken
from authlib.oidc.core import CodeIDToken

URL = os.environ.get("COUNTERSIGN_URL", "http://127.0.0.1:4400")
SCOPE = os.environ.get("SCOPE", "openid profile email offline_access")


class Callback(HTTPServer):
    """Waits for the browser to come back."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), CallbackHandler)
        self.redirect_uri = f"http://127.0.0.1:{self.server_port}/callback"
        self.response = None

    def wait(self):
        while self.response is None:
            self.handle_request()
        return self.response


class CallbackHandler(BaseHTTPRequestHandler):
    def do_GET(self):
        if urlsplit(self.path).path != "/callback":
            return self.send_error(404)
        self.server.response = f"http://127.0.0.1:{self.server.server_port}{self.path}"
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.end_headers()
        self.wfile.write(b"You can close this window.")

    def log_message(self, *_):
        """The line of a request would have the code in it."""


def sign_in(metadata, session, callback):
    verifier, nonce = generate_token(48), generate_token(20)
    url, state = session.create_authorization_url(
        metadata["authorization_endpoint"], code_verifier=verifier, nonce=nonce
    )
    print(f"Open {url}", flush=True)
    response = callback.wait()
    answered = parse_qs(urlsplit(response).query)
    # Another server's answer is none to this request (RFC 9207).
    if answered.get("iss") != [metadata["issuer"]]:
        raise SystemExit("The answer comes from another server")
    if "error" in answered:
        raise SystemExit(f"Not allowed: {answered['error'][0]}")
    token = session.fetch_token(
        metadata["token_endpoint"], authorization_response=response, state=state, code_verifier=verifier
    )
    return claims_of(metadata, session, token, nonce) if "id_token" in token else None


def claims_of(metadata, session, token, nonce):
    """Who signed in, as the ID token says (OpenID Connect Core 1.0, section 3.1.3.7)."""
    keys = JsonWebKey.import_key_set(requests.get(metadata["jwks_uri"], timeout=5).json())
    claims = JsonWebToken(metadata["id_token_signing_alg_values_supported"]).decode(
        token["id_token"],
        keys,
        claims_cls=CodeIDToken,
        claims_options={
            "iss": {"essential": True, "value": metadata["issuer"]},
            "aud": {"essential": True, "value": session.client_id},
        },
        claims_params={"nonce": nonce, "client_id": session.client_id, "access_token": token["access_token"]},
    )
    claims.validate(leeway=5)
    return claims


def show(what, value):
    print(what, json.dumps(value), flush=True)


def main():
    metadata = requests.get(f"{URL}/.well-known/oauth-authorization-server", timeout=5).json()
    callback = Callback()
    session = OAuth2Session(
        os.environ["CLIENT_ID"],
        os.environ.get("CLIENT_SECRET"),
        scope=SCOPE,
        redirect_uri=callback.redirect_uri,
        code_challenge_method="S256",
        default_timeout=5,
    )
    claims = sign_in(metadata, session, callback)
    show("signed in", {"sub": claims["sub"], "scope": session.token["scope"]})
    show("userinfo", session.get(metadata["userinfo_endpoint"]).json())

    before = dict(session.token)
    session.refresh_token(metadata["token_endpoint"])
    show("refreshed", {"rotated": session.token["refresh_token"] != before["refresh_token"]})

    if session.client_secret:
        endpoint = metadata["introspection_endpoint"]
        told = session.introspect_token(endpoint, token=session.token["access_token"]).json()
        show("introspected", {name: told[name] for name in ("active", "sub", "scope")})

    # With the refresh token goes all that the user allowed.
    refresh_token = session.token["refresh_token"]
    revoked = session.revoke_token(metadata["revocation_endpoint"], token=refresh_token)
    show("revoked", {"status": revoked.status_code, "userinfo": session.get(metadata["userinfo_endpoint"]).status_code})
    try:
        session.refresh_token(metadata["token_endpoint"], refresh_token=refresh_token)
    except OAuthError as error:
        show("refused", error.error)


if __name__ == "__main__":
    main()
