"""A service that calls an API with a token of its own. Needs Authlib and requests.

It is an application by its client id and secret, or a machine by its own: `mch_…` and `msk_…`.

    CLIENT_ID=… CLIENT_SECRET=… RESOURCE=https://api.example.com python3 service.py https://api.example.com/invoices
"""

import os
import sys

import requests
from authlib.integrations.requests_client import OAuth2Session

URL = os.environ.get("COUNTERSIGN_URL", "http://127.0.0.1:4400")


class ServiceSession(OAuth2Session):
    """A session of requests that gets itself a token, and another before that one expires.

    `scope` is what the token is to be good for, without it all that the application may. `resource` is whom it is for: of an
    application the URL of an API, of a machine the id of the machine that it calls.
    """

    def __init__(self, client_id, client_secret, scope=None, resource=None):
        metadata = requests.get(f"{URL}/.well-known/oauth-authorization-server", timeout=5).json()
        super().__init__(
            client_id,
            client_secret,
            scope=scope,
            token_endpoint=metadata["token_endpoint"],
            grant_type="client_credentials",
            default_timeout=5,
        )
        self.resource = resource
        self.fetch_token()

    def fetch_token(self, url=None, **parameters):
        # Whoever fetches the next token, it is for the same.
        if self.resource:
            parameters["resource"] = self.resource
        return super().fetch_token(url, **parameters)


def main(api):
    session = ServiceSession(
        os.environ["CLIENT_ID"],
        os.environ["CLIENT_SECRET"],
        scope=os.environ.get("SCOPE"),
        resource=os.environ.get("RESOURCE"),
    )
    response = session.get(api)
    print(response.status_code, response.text)


if __name__ == "__main__":
    main(sys.argv[1])
