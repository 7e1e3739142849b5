/** The panel in which end users see the applications that they let act for them, and take that back. */
import { type CSSProperties, type ReactNode, useId, useState } from 'react';
import { agoOf, dateOf } from './dates.ts';
import { Dialog } from './dialog.tsx';
import {
  PanelProvider,
  type PanelProviderProps,
  TextsProvider,
  useFailureText,
  usePanelSource,
} from './panel-context.tsx';
import type { ConnectedApplication } from './panel-source.ts';
import { ENGLISH, type PanelTexts } from './texts.ts';
import { useAction } from './use-action.ts';
import { useConnectedApplications } from './use-connected-applications.ts';

export interface ConnectedApplicationsTexts
  extends Pick<PanelTexts, 'cancel' | 'retry' | 'loading' | 'errors' | 'failed'> {
  title: string;
  empty: string;
  emptyHint: string;
  /** Before what the application may do. */
  may: string;
  allowed: (date: string) => string;
  lastUsed: (ago: string) => string;
  neverUsed: string;
  /** For which organization. */
  actsFor: (organization: string) => string;
  more: string;
  withdraw: string;
  withdrawFrom: (name: string) => string;
  withdrawTitle: (name: string) => string;
  withdrawHint: string;
}

export const ENGLISH_CONNECTED_APPLICATIONS: ConnectedApplicationsTexts = {
  title: 'Connected applications',
  empty: 'No application acts for you',
  emptyHint: 'One that you allow to is shown here.',
  may: 'It may:',
  allowed: (date) => `Allowed ${date}`,
  lastUsed: (ago) => `Last used ${ago}`,
  neverUsed: 'Never used',
  actsFor: (organization) => `For ${organization}`,
  more: 'Show more',
  withdraw: 'Withdraw',
  withdrawFrom: (name) => `Withdraw ${name}`,
  withdrawTitle: (name) => `Withdraw what “${name}” may do?`,
  withdrawHint: 'Its access ends at once. It has to ask you before it gets any again.',
  cancel: ENGLISH.cancel,
  retry: ENGLISH.retry,
  loading: ENGLISH.loading,
  errors: { ...ENGLISH.errors, not_found: 'This was withdrawn already' },
  failed: ENGLISH.failed,
};

export interface ConnectedApplicationsProps extends Partial<Omit<PanelProviderProps, 'children'>> {
  /** `variables` are those of the stylesheet, as `{ '--cs-accent': '#0a7' }`. */
  appearance?: { className?: string; variables?: Record<`--cs-${string}`, string> } | undefined;
  /** Shown until the first answer is there. */
  fallback?: ReactNode;
  /** In the place of the English ones. */
  texts?: Partial<ConnectedApplicationsTexts> | undefined;
  /** A BCP 47 language tag for dates. Default: the browser's. */
  locale?: string | undefined;
  /** Told after one was withdrawn. */
  onWithdrawn?: ((application: ConnectedApplication) => void) | undefined;
}

/** Needs `url`, or a `PanelProvider` above it. Whose applications they are is the server's to say. */
export function ConnectedApplications({ url, getToken, texts, ...props }: ConnectedApplicationsProps) {
  const english = ENGLISH_CONNECTED_APPLICATIONS;
  const all = { ...english, ...texts, errors: { ...english.errors, ...texts?.errors } };
  const panel = (
    <TextsProvider value={{ ...ENGLISH, errors: all.errors, failed: all.failed }}>
      <Panel texts={all} {...props} />
    </TextsProvider>
  );
  if (url === undefined) return panel;
  return (
    <PanelProvider url={url} getToken={getToken}>
      {panel}
    </PanelProvider>
  );
}

function Panel({
  texts,
  appearance,
  fallback,
  locale,
  onWithdrawn,
}: Omit<ConnectedApplicationsProps, 'url' | 'getToken' | 'texts'> & { texts: ConnectedApplicationsTexts }) {
  const applications = useConnectedApplications();
  const [leaving, setLeaving] = useState<ConnectedApplication | null>(null);
  const titleId = useId();
  const { data, error, isFetching } = applications;

  function withdrawn(application: ConnectedApplication) {
    setLeaving(null);
    applications.revalidate();
    onWithdrawn?.(application);
  }

  return (
    <section
      className={`cs-panel ${appearance?.className ?? ''}`}
      style={appearance?.variables as CSSProperties | undefined}
      aria-labelledby={titleId}
      aria-busy={isFetching}
    >
      <header className="cs-header">
        <h1 className="cs-title" id={titleId}>
          {texts.title}
        </h1>
      </header>
      <Failure error={error} retry={texts.retry} onRetry={applications.revalidate} />
      {data === null && error === null && (fallback ?? <p className="cs-hint">{texts.loading}</p>)}
      {data?.length === 0 && (
        <div className="cs-empty">
          <p>{texts.empty}</p>
          <p className="cs-hint">{texts.emptyHint}</p>
        </div>
      )}
      {data !== null && data.length > 0 && (
        <ul className="cs-applications">
          {data.map((application) => (
            <Application
              key={application.applicationId}
              {...{ application, texts, locale }}
              onWithdraw={applications.mayRevoke ? () => setLeaving(application) : undefined}
            />
          ))}
        </ul>
      )}
      {applications.hasMore && (
        <div className="cs-pager">
          <button type="button" className="cs-button" onClick={applications.fetchMore} disabled={isFetching}>
            {texts.more}
          </button>
        </div>
      )}
      {leaving && (
        <Withdrawal
          application={leaving}
          texts={texts}
          onDone={() => withdrawn(leaving)}
          onClose={() => setLeaving(null)}
        />
      )}
    </section>
  );
}

function Failure({ error, retry, onRetry }: { error: unknown; retry: string; onRetry: () => void }) {
  const failureText = useFailureText();
  if (error === null) return null;
  return (
    <p className="cs-failure" role="alert">
      {failureText(error)}{' '}
      <button type="button" className="cs-link" onClick={onRetry}>
        {retry}
      </button>
    </p>
  );
}

function Application({
  application,
  texts,
  locale,
  onWithdraw,
}: {
  application: ConnectedApplication;
  texts: ConnectedApplicationsTexts;
  locale: string | undefined;
  onWithdraw: (() => void) | undefined;
}) {
  const { name, redirectHosts, organizationIds, scopes, firstAllowedAt, lastUsedAt } = application;
  return (
    <li className="cs-application">
      <div>
        <h2 className="cs-application-name">{name}</h2>
        {/* Its name is what it says of itself; where it leads is what was checked. */}
        <p className="cs-hint">{redirectHosts.join(', ')}</p>
        {organizationIds.map((organization) => (
          <p key={organization} className="cs-hint">
            {texts.actsFor(organization)}
          </p>
        ))}
        {scopes.length > 0 && (
          <>
            <p className="cs-may">{texts.may}</p>
            <ul className="cs-may-list">
              {scopes.map((scope) => (
                <li key={scope.name}>{scope.description}</li>
              ))}
            </ul>
          </>
        )}
        <p className="cs-hint">
          {texts.allowed(dateOf(firstAllowedAt, locale))} •{' '}
          {lastUsedAt === null ? texts.neverUsed : texts.lastUsed(agoOf(lastUsedAt, Date.now(), locale))}
        </p>
      </div>
      {onWithdraw && (
        <button
          type="button"
          className="cs-button"
          aria-label={texts.withdrawFrom(name)}
          onClick={onWithdraw}
        >
          {texts.withdraw}
        </button>
      )}
    </li>
  );
}

function Withdrawal({
  application: { applicationId, name },
  texts,
  onDone,
  onClose,
}: {
  application: ConnectedApplication;
  texts: ConnectedApplicationsTexts;
  onDone: () => void;
  onClose: () => void;
}) {
  const source = usePanelSource();
  const failureText = useFailureText();
  const withdraw = useAction(() => source.revokeApplication({ applicationId }), onDone);
  return (
    <Dialog title={texts.withdrawTitle(name)} onClose={onClose} onSubmit={withdraw.run}>
      <p className="cs-hint">{texts.withdrawHint}</p>
      {withdraw.error !== null && (
        <p className="cs-failure" role="alert">
          {failureText(withdraw.error)}
        </p>
      )}
      <div className="cs-buttons">
        <button type="button" className="cs-button" onClick={onClose}>
          {texts.cancel}
        </button>
        <button type="submit" className="cs-button cs-danger" disabled={withdraw.isRunning}>
          {texts.withdraw}
        </button>
      </div>
    </Dialog>
  );
}
