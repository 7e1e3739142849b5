"""An API that judges access tokens: JWTs by the server's published keys, opaque ones by asking. Needs Authlib and requests.

    COUNTERSIGN_URL=… RESOURCE=http://127.0.0.1:4507 python3 resource_server.py

With COUNTERSIGN_SECRET_KEY, a key of the role `verify`, opaque tokens are accepted too. A JWT that was revoked is good here
until it expires: docs/status-list.md has what to do about that.
"""

import json
import os
import time
from threading import Lock
from urllib.parse import urlsplit
from wsgiref.simple_server import make_server

import requests
from authlib.jose import JsonWebKey, JsonWebToken
from authlib.jose.errors import JoseError

LEEWAY_SECONDS = 5
TIMEOUT_SECONDS = 5
REFETCH_SECONDS_MIN = 30
KEYS_SECONDS_MAX = 300


class InvalidToken(Exception):
    """Not a live access token that is for this API."""


class Keys:
    """The keys of the server, fetched again for one that is not among them, but not each time somebody makes one up."""

    def __init__(self, url):
        self.url = url
        self.lock = Lock()
        self.fetched_at = None
        self.by_kid = {}

    def find(self, kid):
        with self.lock:
            age = None if self.fetched_at is None else time.monotonic() - self.fetched_at
            if age is None or age > KEYS_SECONDS_MAX or (kid not in self.by_kid and age > REFETCH_SECONDS_MIN):
                self.fetch()
            return self.by_kid.get(kid)

    def fetch(self):
        response = requests.get(self.url, timeout=TIMEOUT_SECONDS)
        response.raise_for_status()
        self.by_kid = {key["kid"]: key for key in response.json()["keys"]}
        self.fetched_at = time.monotonic()


class AccessTokens:
    """Judges access tokens for one resource (RFC 9068, section 4)."""

    def __init__(self, url, resource, secret_key=None):
        metadata = requests.get(f"{url}/.well-known/oauth-authorization-server", timeout=TIMEOUT_SECONDS).json()
        self.issuer = metadata["issuer"]
        self.introspection_endpoint = metadata["introspection_endpoint"]
        self.resource = resource
        self.secret_key = secret_key
        self.keys = Keys(metadata["jwks_uri"])
        # The server's algorithms, and no others that a header might name.
        self.jwt = JsonWebToken(["RS256", "ES256", "EdDSA"])

    def claims_of(self, token):
        """What a token says; raises InvalidToken."""
        claims = self.introspect(token) if token.startswith("oat_") else self.decode(token)
        audience = claims.get("aud")
        if self.resource not in (audience if isinstance(audience, list) else [audience]):
            raise InvalidToken("for another resource")
        return claims

    def decode(self, token):
        try:
            claims = self.jwt.decode(
                token, self.load_key, claims_options={"iss": {"essential": True, "value": self.issuer}}
            )
            claims.options["exp"] = {"essential": True}
            claims.validate(leeway=LEEWAY_SECONDS)
        except (JoseError, ValueError) as error:
            raise InvalidToken(str(error)) from error
        # An ID token is signed with the same keys, and is no access token.
        if claims.header.get("typ", "").lower() not in ("at+jwt", "application/at+jwt"):
            raise InvalidToken("not an access token")
        return claims

    def load_key(self, header, _payload):
        key = self.keys.find(header.get("kid"))
        if key is None:
            raise ValueError("signed with an unknown key")
        return JsonWebKey.import_key(key)

    def introspect(self, token):
        if self.secret_key is None:
            raise InvalidToken("opaque")
        response = requests.post(
            self.introspection_endpoint,
            data={"token": token},
            headers={"Authorization": f"Bearer {self.secret_key}"},
            timeout=TIMEOUT_SECONDS,
        )
        response.raise_for_status()
        claims = response.json()
        if claims.get("active") is not True:
            raise InvalidToken("not active")
        return claims


def protect(app, tokens, scope):
    """Any WSGI application, such as one of Flask or Django; what the token says is `environ["countersign"]`."""
    metadata = json.dumps(
        {"resource": tokens.resource, "authorization_servers": [tokens.issuer], "scopes_supported": [scope]}
    ).encode()
    place = urlsplit(tokens.resource)
    path = f"/.well-known/oauth-protected-resource{place.path.rstrip('/')}"
    challenge = f'Bearer scope="{scope}", resource_metadata="{place.scheme}://{place.netloc}{path}"'

    def guarded(environ, start_response):
        def refuse(status, error=None):
            named = f'{challenge}, error="{error}"' if error else challenge
            start_response(status, [("WWW-Authenticate", named), ("Content-Length", "0")])
            return []

        if environ.get("PATH_INFO") == path:
            start_response("200 OK", [("Content-Type", "application/json")])
            return [metadata]
        scheme, _, token = environ.get("HTTP_AUTHORIZATION", "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            return refuse("401 Unauthorized")
        try:
            claims = tokens.claims_of(token.strip())
        except InvalidToken:
            return refuse("401 Unauthorized", "invalid_token")
        except requests.RequestException:
            return refuse("503 Service Unavailable")
        if scope not in claims.get("scope", "").split():
            return refuse("403 Forbidden", "insufficient_scope")
        environ["countersign"] = claims
        return app(environ, start_response)

    return guarded


def invoices(environ, start_response):
    claims = environ["countersign"]
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps({"subject": claims["sub"], "client": claims["client_id"]}).encode()]


def main():
    url = os.environ.get("COUNTERSIGN_URL", "http://127.0.0.1:4400")
    resource = os.environ.get("RESOURCE", "http://127.0.0.1:4507")
    tokens = AccessTokens(url, resource, os.environ.get("COUNTERSIGN_SECRET_KEY"))
    place = urlsplit(resource)
    make_server(place.hostname, place.port, protect(invoices, tokens, "invoices:read")).serve_forever()


if __name__ == "__main__":
    main()
