/** The page on which a user is asked whether they let an OAuth application act for them, inside an application of somebody else's. */
import { type CSSProperties, type ReactNode, useEffect, useId, useMemo, useState } from 'react';
import { type ConsentRequest, createConsentSource } from './consent-source.ts';
import { TextsProvider, useFailureText } from './panel-context.tsx';
import { ENGLISH, type PanelTexts } from './texts.ts';
import { useAction } from './use-action.ts';

export interface OAuthConsentTexts extends Pick<PanelTexts, 'retry' | 'loading' | 'errors' | 'failed'> {
  title: (name: string) => string;
  /** Where no application asks: the user wants to see what they allowed. */
  titleWithoutApplication: string;
  /** Where there is nothing to be asked: the request is over, or cannot be read now. */
  titleOfFailure: string;
  proceed: string;
  signedInAs: (user: string) => string;
  /** Before what the application may do. */
  may: string;
  /** Where nothing in particular is asked for. */
  mayNothing: string;
  organization: string;
  /** In the place of an organization. */
  forMyself: string;
  /** Where the browser goes next: the host is what was checked of the application. */
  goesTo: (host: string) => string;
  /** Before the resources it asks to act at. */
  at: string;
  /** Where the application says it has its home page. */
  home: (url: string) => string;
  /** Of an application that says itself what it is called, in a document at this host. */
  namedBy: (host: string) => string;
  /** Of an application that nobody here has entered, or that leads to the user’s own device. */
  unverified: string;
  allow: string;
  deny: string;
}

export const ENGLISH_OAUTH_CONSENT: OAuthConsentTexts = {
  title: (name) => `Let “${name}” act for you?`,
  titleOfFailure: 'This cannot be asked now',
  titleWithoutApplication: 'Go on to the applications you have allowed?',
  proceed: 'Go on',
  signedInAs: (user) => `You are signed in as ${user}.`,
  may: 'It asks to:',
  mayNothing: 'It asks for nothing but to know that you allowed it.',
  organization: 'For',
  forMyself: 'Myself',
  goesTo: (host) => `Either way you go on to ${host}.`,
  at: 'At:',
  home: (url) => `Its home page is ${url}.`,
  namedBy: (host) => `What it is called is said by ${host}.`,
  unverified: 'Nothing proves that it is who it says. Go on only if you began this yourself.',
  allow: 'Allow',
  deny: 'Deny',
  retry: ENGLISH.retry,
  loading: ENGLISH.loading,
  errors: {
    ...ENGLISH.errors,
    not_found: 'This request is over: go back to the application, and begin again',
  },
  failed: ENGLISH.failed,
};

export interface OAuthConsentProps {
  /** Where the application has mounted `oauthConsentHandler`. */
  url: string;
  /** That the server's hand-off came with, as `interaction` in the address. */
  interactionId: string;
  /** `variables` are those of the stylesheet, as `{ '--cs-accent': '#0a7' }`. */
  appearance?: { className?: string; variables?: Record<`--cs-${string}`, string> } | undefined;
  /** Shown until the first answer is there. */
  fallback?: ReactNode;
  /** In the place of the English ones. */
  texts?: Partial<OAuthConsentTexts> | undefined;
  /** Told where the browser is to go once the user has decided. Default: goes there. */
  onDecided?: ((resumeUrl: string) => void) | undefined;
}

/** Who the user is, and what was asked, is the server's to say; this only shows it, and tells what the user decided. */
export function OAuthConsent({ texts, ...props }: OAuthConsentProps) {
  const english = ENGLISH_OAUTH_CONSENT;
  const all = { ...english, ...texts, errors: { ...english.errors, ...texts?.errors } };
  return (
    <TextsProvider value={{ ...ENGLISH, errors: all.errors, failed: all.failed }}>
      <Consent texts={all} {...props} />
    </TextsProvider>
  );
}

function Consent({
  url,
  interactionId,
  appearance,
  fallback,
  texts,
  onDecided = goTo,
}: Omit<OAuthConsentProps, 'texts'> & { texts: OAuthConsentTexts }) {
  const source = useMemo(() => createConsentSource(url), [url]);
  const { request, error, askAgain } = useConsentRequest(source, interactionId);
  const titleId = useId();
  return (
    <section
      className={`cs-panel cs-consent ${appearance?.className ?? ''}`}
      style={appearance?.variables as CSSProperties | undefined}
      aria-labelledby={request ? titleId : undefined}
      aria-busy={request === null && error === null}
    >
      {error !== null && (
        <>
          <h1 className="cs-title">{texts.titleOfFailure}</h1>
          <Failure error={error} retry={texts.retry} onRetry={askAgain} />
        </>
      )}
      {request === null && error === null && (fallback ?? <p className="cs-hint">{texts.loading}</p>)}
      {request && <Question key={request.id} {...{ source, request, texts, titleId, onDecided }} />}
    </section>
  );
}

type Source = ReturnType<typeof createConsentSource>;

function useConsentRequest(source: Source, id: string) {
  const [state, setState] = useState<{ request: ConsentRequest | null; error: unknown }>({
    request: null,
    error: null,
  });
  const [asked, setAsked] = useState(0);

  // biome-ignore lint/correctness/useExhaustiveDependencies: what is asked again is the same
  useEffect(() => {
    const asking = new AbortController();
    setState({ request: null, error: null });
    source.get(id, asking.signal).then(
      (request) => setState({ request, error: null }),
      (error: unknown) => {
        if (!asking.signal.aborted) setState({ request: null, error });
      },
    );
    return () => asking.abort();
  }, [source, id, asked]);

  return { ...state, askAgain: () => setAsked((before) => before + 1) };
}

function Failure({ error, retry, onRetry }: { error: unknown; retry: string; onRetry: () => void }) {
  const failureText = useFailureText();
  return (
    <p className="cs-failure" role="alert">
      {failureText(error)}{' '}
      <button type="button" className="cs-link" onClick={onRetry}>
        {retry}
      </button>
    </p>
  );
}

function Question({
  source,
  request,
  texts,
  titleId,
  onDecided,
}: {
  source: Source;
  request: ConsentRequest;
  texts: OAuthConsentTexts;
  titleId: string;
  onDecided: (resumeUrl: string) => void;
}) {
  const failureText = useFailureText();
  const [organizationId, setOrganizationId] = useState('');
  const { id, application, redirectHost, scopes, resources, user } = request;
  const allow = useAction(
    () =>
      source.allow({
        id,
        scopes: application && scopes.map(({ name }) => name),
        organizationId: organizationId === '' ? null : organizationId,
      }),
    onDecided,
  );
  const deny = useAction(() => source.deny(id), onDecided);
  const error = allow.error ?? deny.error;
  const isDeciding = allow.isRunning || deny.isRunning;
  return (
    <>
      {application?.logoUrl && <img className="cs-logo" src={application.logoUrl} alt="" />}
      <h1 className="cs-title" id={titleId}>
        {application ? texts.title(application.name) : texts.titleWithoutApplication}
      </h1>
      <p className="cs-plain">{texts.signedInAs(user.name)}</p>
      {application?.documentHost && <p className="cs-plain">{texts.namedBy(application.documentHost)}</p>}
      {application && !application.isVerified && <p className="cs-warning">{texts.unverified}</p>}
      {application && (
        <div>
          <p className="cs-may">{scopes.length === 0 ? texts.mayNothing : texts.may}</p>
          <ul className="cs-may-list">
            {scopes.map(({ name, description }) => (
              <li key={name}>{description}</li>
            ))}
          </ul>
          {resources.length > 0 && (
            <p className="cs-may">
              {texts.at} {resources.join(', ')}
            </p>
          )}
        </div>
      )}
      {application && user.organizations.length > 0 && (
        <label className="cs-field">
          {texts.organization}
          <select
            className="cs-input"
            value={organizationId}
            onChange={(event) => setOrganizationId(event.target.value)}
          >
            <option value="">{texts.forMyself}</option>
            {user.organizations.map((organization) => (
              <option key={organization.id} value={organization.id}>
                {organization.name}
              </option>
            ))}
          </select>
        </label>
      )}
      {redirectHost !== null && <p className="cs-plain">{texts.goesTo(redirectHost)}</p>}
      {application?.clientUri && <p className="cs-plain">{texts.home(application.clientUri)}</p>}
      {error !== null && (
        <p className="cs-failure" role="alert">
          {failureText(error)}
        </p>
      )}
      <div className="cs-buttons">
        <button type="button" className="cs-button" onClick={deny.run} disabled={isDeciding}>
          {texts.deny}
        </button>
        <button type="button" className="cs-button cs-primary" onClick={allow.run} disabled={isDeciding}>
          {application ? texts.allow : texts.proceed}
        </button>
      </div>
    </>
  );
}

/** Nothing but a page is gone to, whatever an answer holds. */
function goTo(resumeUrl: string) {
  if (/^https?:\/\//.test(resumeUrl)) location.assign(resumeUrl);
}
