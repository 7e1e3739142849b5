/**
 * The application's page: its own login, two panels of API keys, a user's own and those of the organization, and the
 * applications that a user let act for them. With an interaction in the address, it asks for that consent instead.
 */
import { type FormEvent, StrictMode, useEffect, useState } from 'react';
import { createRoot } from 'react-dom/client';
import { ApiKeysPanel, ConnectedApplications, OAuthConsent } from '../../../client/react/index.ts';
import '../../../client/react/panel.css';
import './host.css';

interface User {
  name: string;
  role: 'admin' | 'member';
}

async function ask(path: string, init?: RequestInit): Promise<User | null> {
  const response = await fetch(path, init);
  return response.ok ? ((await response.json()) as User) : null;
}

/** Of a user whom the server has handed off. */
const INTERACTION_ID = new URLSearchParams(location.search).get('interaction');

function Application() {
  const [user, setUser] = useState<User | null>(null);
  useEffect(() => {
    ask('/me').then(setUser, () => setUser(null));
  }, []);
  if (!user) return <Login onSignedIn={setUser} />;
  if (INTERACTION_ID !== null) {
    return (
      <main>
        <OAuthConsent url="/oauth-consent" interactionId={INTERACTION_ID} />
      </main>
    );
  }
  return (
    <main>
      <p>
        Signed in to Acme Invoices as {user.name}, {user.role} of Acme
      </p>
      <ApiKeysPanel url="/api-keys/user" showDescription />
      <ApiKeysPanel url="/api-keys/organization" texts={{ title: 'API keys of Acme' }} perPage={5} />
      <ConnectedApplications url="/api-keys/user" />
    </main>
  );
}

function Login({ onSignedIn }: { onSignedIn: (user: User) => void }) {
  const [hasFailed, setHasFailed] = useState(false);
  async function signIn(event: FormEvent<HTMLFormElement>) {
    event.preventDefault();
    const body = JSON.stringify(Object.fromEntries(new FormData(event.currentTarget)));
    const user = await ask('/login', {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body,
    });
    if (user) onSignedIn(user);
    else setHasFailed(true);
  }
  return (
    <main>
      <h1>Acme Invoices</h1>
      <form onSubmit={signIn}>
        <label>
          Name <input name="name" autoComplete="username" />
        </label>{' '}
        <label>
          Password <input name="password" type="password" autoComplete="current-password" />
        </label>{' '}
        <button type="submit">Sign in</button>
        {hasFailed && <p role="alert">Nobody has this name and password</p>}
      </form>
    </main>
  );
}

const root = document.getElementById('root');
if (root) {
  createRoot(root).render(
    <StrictMode>
      <Application />
    </StrictMode>,
  );
}
