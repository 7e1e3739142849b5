/** The panel in which end users manage their own API keys, inside an application of somebody else's. */
import { type CSSProperties, type ReactNode, useEffect, useId, useState } from 'react';
import { CreateKey } from './create-key.tsx';
import { CopyOnce, RenameKey, RevokeKey, RotateKey } from './key-dialogs.tsx';
import { type KeyAction, KeyTable } from './key-table.tsx';
import { KeyUsage } from './key-usage.tsx';
import { PanelProvider, TextsProvider, useFailureText, useTexts } from './panel-context.tsx';
import type { PanelKey, PanelOptions, PanelSourceOptions } from './panel-source.ts';
import { ENGLISH, type PanelTexts } from './texts.ts';
import { type ApiKeys, useApiKeys } from './use-api-keys.ts';
import { usePanelOptions } from './use-panel-options.ts';

export interface ApiKeysPanelProps extends Partial<PanelSourceOptions> {
  /** Keys on a page. Default: 10. */
  perPage?: number | undefined;
  /** Shows descriptions, and asks for one. Default: false. */
  showDescription?: boolean | undefined;
  /** `variables` are those of the stylesheet, as `{ '--cs-accent': '#0a7' }`. */
  appearance?: { className?: string; variables?: Record<`--cs-${string}`, string> } | undefined;
  /** Shown until the first answer is there. */
  fallback?: ReactNode;
  /** In the place of the English ones. */
  texts?: Partial<PanelTexts> | undefined;
  /** A BCP 47 language tag for dates and numbers. Default: the browser's. */
  locale?: string | undefined;
}

/** Needs `url`, or a `PanelProvider` above it. What it may do is the server's to say, whatever its props are. */
export function ApiKeysPanel({ url, getToken, texts, ...props }: ApiKeysPanelProps) {
  const panel = (
    <TextsProvider value={{ ...ENGLISH, ...texts, errors: { ...ENGLISH.errors, ...texts?.errors } }}>
      <Panel {...props} />
    </TextsProvider>
  );
  if (url === undefined) return panel;
  return (
    <PanelProvider url={url} getToken={getToken}>
      {panel}
    </PanelProvider>
  );
}

const SEARCH_PAUSE_MS = 500;
const TICK_MS = 30_000;

type Open =
  | { dialog: 'create' }
  | { dialog: KeyAction; key: PanelKey }
  | { dialog: 'copy'; name: string; secret: string };

function Panel({
  perPage = 10,
  showDescription = false,
  appearance,
  fallback,
  locale,
}: Omit<ApiKeysPanelProps, 'url' | 'getToken' | 'texts'>) {
  const texts = useTexts();
  const { options, error, revalidate } = usePanelOptions();
  const [ended, setEnded] = useState(false);
  const [typed, setTyped] = useState('');
  const query = useSettled(typed.trim(), SEARCH_PAUSE_MS);
  const keys = useApiKeys({ query, ended, pageSize: perPage, enabled: options !== null });
  const [open, setOpen] = useState<Open | null>(null);
  const now = useNow();
  const titleId = useId();

  function changed() {
    void keys.revalidate();
    revalidate();
  }
  function done() {
    setOpen(null);
    changed();
  }

  return (
    <section
      className={`cs-panel ${appearance?.className ?? ''}`}
      style={appearance?.variables as CSSProperties | undefined}
      aria-labelledby={titleId}
      aria-busy={keys.isFetching}
    >
      <header className="cs-header">
        <h1 className="cs-title" id={titleId}>
          {texts.title}
        </h1>
        {options && options.liveKeysMax !== null && (
          <span className="cs-hint">{texts.liveKeys(options.liveKeys, options.liveKeysMax)}</span>
        )}
        {options?.actions.includes('create') && (
          <button
            type="button"
            className="cs-button cs-primary"
            onClick={() => setOpen({ dialog: 'create' })}
          >
            {texts.create}
          </button>
        )}
      </header>
      <Failure error={error ?? keys.error} onRetry={options ? () => void keys.revalidate() : revalidate} />
      {options === null && error === null && (fallback ?? <p className="cs-hint">{texts.loading}</p>)}
      {options && (
        <>
          <div className="cs-toolbar">
            <Choice ended={ended} onChange={setEnded} />
            <input
              className="cs-input cs-search"
              type="search"
              aria-label={texts.search}
              placeholder={texts.search}
              value={typed}
              onChange={(event) => setTyped(event.target.value)}
              maxLength={255}
            />
          </div>
          <Content
            keys={keys}
            isSearched={query !== ''}
            ended={ended}
            mayCreate={options.actions.includes('create')}
            fallback={fallback}
          />
          {keys.data.length > 0 && (
            <KeyTable
              keys={keys.data}
              {...{ options, showDescription, locale, now }}
              onAction={(dialog, key) => setOpen({ dialog, key })}
              onChanged={changed}
            />
          )}
          <Pager keys={keys} />
          <Dialogs
            {...{ open, options, showDescription, locale }}
            onOpen={setOpen}
            onClose={() => setOpen(null)}
            onDone={done}
            onChanged={changed}
          />
        </>
      )}
    </section>
  );
}

function Failure({ error, onRetry }: { error: unknown; onRetry: () => void }) {
  const texts = useTexts();
  const failureText = useFailureText();
  if (error === null || error === undefined) return null;
  return (
    <p className="cs-failure" role="alert">
      {failureText(error)}{' '}
      <button type="button" className="cs-link" onClick={onRetry}>
        {texts.retry}
      </button>
    </p>
  );
}

/** Which keys are shown, as two buttons of which one is pressed. */
function Choice({ ended, onChange }: { ended: boolean; onChange: (ended: boolean) => void }) {
  const texts = useTexts();
  return (
    <div className="cs-choice">
      {[false, true].map((each) => (
        <button
          key={String(each)}
          type="button"
          className="cs-button"
          aria-pressed={ended === each}
          onClick={() => onChange(each)}
        >
          {each ? texts.ended : texts.active}
        </button>
      ))}
    </div>
  );
}

function Content({
  keys,
  isSearched,
  ended,
  mayCreate,
  fallback,
}: {
  keys: ApiKeys;
  isSearched: boolean;
  ended: boolean;
  mayCreate: boolean;
  fallback: ReactNode;
}) {
  const texts = useTexts();
  if (keys.isLoading) return <>{fallback ?? <p className="cs-hint">{texts.loading}</p>}</>;
  if (keys.data.length > 0 || keys.isError) return null;
  const nothing = isSearched ? texts.noMatch : ended ? texts.emptyEnded : texts.empty;
  return (
    <div className="cs-empty">
      <p>{nothing}</p>
      {!isSearched && !ended && mayCreate && <p className="cs-hint">{texts.emptyHint}</p>}
    </div>
  );
}

function Pager({ keys }: { keys: ApiKeys }) {
  const texts = useTexts();
  if (keys.pageCount <= 1) return null;
  return (
    <nav className="cs-pager" aria-label={texts.page(keys.page, keys.pageCount)}>
      <button
        type="button"
        className="cs-button"
        onClick={keys.fetchPrevious}
        disabled={!keys.hasPreviousPage}
      >
        {texts.previous}
      </button>
      <span>{texts.page(keys.page, keys.pageCount)}</span>
      <button type="button" className="cs-button" onClick={keys.fetchNext} disabled={!keys.hasNextPage}>
        {texts.next}
      </button>
    </nav>
  );
}

function Dialogs({
  open,
  options,
  showDescription,
  locale,
  onOpen,
  onClose,
  onDone,
  onChanged,
}: {
  open: Open | null;
  options: PanelOptions;
  showDescription: boolean;
  locale: string | undefined;
  onOpen: (open: Open) => void;
  onClose: () => void;
  onDone: () => void;
  onChanged: () => void;
}) {
  /** The list is asked for again behind the dialog that shows the value. */
  function show({ name, secret }: { name: string; secret?: string }) {
    if (secret === undefined) return onDone();
    onOpen({ dialog: 'copy', name, secret });
    onChanged();
  }
  switch (open?.dialog) {
    case undefined:
      return null;
    case 'create':
      return <CreateKey {...{ options, showDescription, locale, onClose }} onCreated={show} />;
    case 'copy':
      return <CopyOnce name={open.name} secret={open.secret} onClose={onClose} />;
    case 'usage':
      return <KeyUsage apiKey={open.key} {...{ locale, onClose }} />;
    case 'rename':
      return <RenameKey apiKey={open.key} {...{ showDescription, onClose, onDone }} />;
    case 'rotate':
      return <RotateKey apiKey={open.key} onClose={onClose} onDone={show} />;
    case 'revoke':
      return <RevokeKey apiKey={open.key} {...{ onClose, onDone }} />;
  }
}

/** A value that did not change for a while. */
function useSettled<T>(value: T, pauseMs: number): T {
  const [settled, setSettled] = useState(value);
  useEffect(() => {
    const pause = setTimeout(() => setSettled(value), pauseMs);
    return () => clearTimeout(pause);
  }, [value, pauseMs]);
  return settled;
}

/** The time of day, as often as what is told of it changes. */
function useNow(): number {
  const [now, setNow] = useState(Date.now);
  useEffect(() => {
    const tick = setInterval(() => setNow(Date.now()), TICK_MS);
    return () => clearInterval(tick);
  }, []);
  return now;
}
