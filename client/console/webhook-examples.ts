/** How a receiver checks what it is sent, per language. The secret is read from the environment, and never shown. */

interface Receiver {
  name: string;
  code: string;
}

const typescript = `import express from 'express';
import { verifyWebhook } from 'countersign/webhooks';

const app = express();
const secret = process.env.COUNTERSIGN_WEBHOOK_SECRET ?? '';

app.post('/webhooks', express.raw({ type: 'application/json' }), (request, response) => {
  const event = verifyWebhook({ body: request.body, headers: request.headers, secret });
  if (event.type === 'api_key.revoked') deny(event.data.objectId, event.data.denyUntil);
  response.sendStatus(204);
});
`;

const python = `import base64, hashlib, hmac, os, time

SECRET = base64.b64decode(os.environ["COUNTERSIGN_WEBHOOK_SECRET"].removeprefix("whsec_"))

def is_genuine(headers: dict[str, str], body: bytes) -> bool:
    """With the body as it arrived, before anything parses it."""
    sent, at = headers["webhook-id"], headers["webhook-timestamp"]
    if abs(time.time() - int(at)) > 300:
        return False
    signed = f"{sent}.{at}.".encode() + body
    wanted = base64.b64encode(hmac.new(SECRET, signed, hashlib.sha256).digest()).decode()
    given = headers["webhook-signature"].split(" ")
    return any(hmac.compare_digest("v1," + wanted, each) for each in given)
`;

const go = `package webhooks

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"math"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"
)

// IsGenuine takes the body as it arrived, before anything parses it.
func IsGenuine(header http.Header, body []byte) bool {
	secret, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(os.Getenv("COUNTERSIGN_WEBHOOK_SECRET"), "whsec_"))
	if err != nil {
		return false
	}
	at, err := strconv.ParseInt(header.Get("webhook-timestamp"), 10, 64)
	if err != nil || math.Abs(float64(time.Now().Unix()-at)) > 300 {
		return false
	}
	mac := hmac.New(sha256.New, secret)
	mac.Write([]byte(header.Get("webhook-id") + "." + header.Get("webhook-timestamp") + "."))
	mac.Write(body)
	wanted := "v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil))
	for _, given := range strings.Fields(header.Get("webhook-signature")) {
		if hmac.Equal([]byte(wanted), []byte(given)) {
			return true
		}
	}
	return false
}
`;

export const RECEIVERS: readonly [Receiver, ...Receiver[]] = [
  { name: 'TypeScript', code: typescript },
  { name: 'Python', code: python },
  { name: 'Go', code: go },
];
