/** The API keys of one page, and what may be done to each. */
import { type KeyboardEvent, useEffect, useRef, useState } from 'react';
import { agoOf, dateOf, spanOf } from './dates.ts';
import { usePanelSource, useTexts } from './panel-context.tsx';
import type { PanelKey, PanelOptions } from './panel-source.ts';
import type { PanelTexts } from './texts.ts';
import { useAction } from './use-action.ts';

export type KeyAction = 'usage' | 'rename' | 'rotate' | 'revoke';

export interface KeyTableProps {
  keys: readonly PanelKey[];
  options: PanelOptions;
  showDescription: boolean;
  locale: string | undefined;
  now: number;
  onAction: (action: KeyAction, key: PanelKey) => void;
  onChanged: () => void;
}

export function KeyTable({
  keys,
  options,
  showDescription,
  locale,
  now,
  onAction,
  onChanged,
}: KeyTableProps) {
  const texts = useTexts();
  return (
    <table className="cs-table">
      <thead>
        <tr>
          <th scope="col">{texts.name}</th>
          <th scope="col">{texts.value}</th>
          <th scope="col">{texts.scopes}</th>
          <th scope="col">{texts.lastUsed}</th>
          <th scope="col">
            <span className="cs-hidden">{texts.actions}</span>
          </th>
        </tr>
      </thead>
      <tbody>
        {keys.map((key) => (
          <tr key={key.id}>
            <th scope="row">
              <span className="cs-name">{key.name}</span>
              {showDescription && key.description && <span className="cs-hint">{key.description}</span>}
              <span className="cs-hint">
                {texts.created(dateOf(key.createdAt, locale))} • {endOf(key, texts, locale)}
              </span>
              {key.state === 'disabled' && <span className="cs-hint">{texts.disabled}</span>}
              {key.previousExpiresAt !== null && key.previousExpiresAt > now && (
                <OverlapOf
                  id={key.id}
                  rest={spanOf(key.previousExpiresAt - now, locale)}
                  mayEnd={options.actions.includes('rotate')}
                  onEnded={onChanged}
                />
              )}
            </th>
            <td data-label={texts.value}>
              <code>{key.start}…</code>
            </td>
            <td data-label={texts.scopes}>
              {key.scopes.length === 0 ? (
                <span className="cs-hint">{texts.noScopes}</span>
              ) : (
                key.scopes.map((scope) => (
                  <code key={scope} className="cs-scope">
                    {scope}
                  </code>
                ))
              )}
            </td>
            <td data-label={texts.lastUsed}>
              {key.lastUsedAt === null ? texts.neverUsed : agoOf(key.lastUsedAt, now, locale)}
            </td>
            <td>
              <Menu
                label={texts.actionsOf(key.name)}
                actions={actionsOn(key, options)}
                onAction={(action) => onAction(action, key)}
              />
            </td>
          </tr>
        ))}
      </tbody>
    </table>
  );
}

function endOf(key: PanelKey, texts: PanelTexts, locale: string | undefined): string {
  if (key.revokedAt !== null) return texts.revoked(dateOf(key.revokedAt, locale));
  if (key.expiresAt === null) return texts.neverExpires;
  const date = dateOf(key.expiresAt, locale);
  return key.state === 'expired' ? texts.expired(date) : texts.expires(date);
}

/** What has ended is only looked at; what the server would refuse is not offered. */
function actionsOn(key: PanelKey, { actions, scopes }: PanelOptions): KeyAction[] {
  const hasEnded = key.revokedAt !== null || key.state === 'expired';
  const isWithin = key.scopes.every((scope) => scopes.includes(scope));
  return [
    'usage' as const,
    ...(actions.includes('update') && !hasEnded ? (['rename'] as const) : []),
    ...(actions.includes('rotate') && !hasEnded && isWithin ? (['rotate'] as const) : []),
    ...(actions.includes('revoke') && key.revokedAt === null ? (['revoke'] as const) : []),
  ];
}

function OverlapOf({
  id,
  rest,
  mayEnd,
  onEnded,
}: {
  id: string;
  rest: string;
  mayEnd: boolean;
  onEnded: () => void;
}) {
  const texts = useTexts();
  const source = usePanelSource();
  const end = useAction(() => source.completeRotation({ id }), onEnded);
  return (
    <span className="cs-hint">
      {texts.overlap(rest)}{' '}
      {mayEnd && (
        <button type="button" className="cs-link" onClick={end.run} disabled={end.isRunning}>
          {texts.endOverlap}
        </button>
      )}
    </span>
  );
}

/** A menu of buttons (WAI-ARIA Authoring Practices, menu button). */
function Menu({
  label,
  actions,
  onAction,
}: {
  label: string;
  actions: readonly KeyAction[];
  onAction: (action: KeyAction) => void;
}) {
  const texts = useTexts();
  const [isOpen, setIsOpen] = useState(false);
  const root = useRef<HTMLDivElement>(null);
  const button = useRef<HTMLButtonElement>(null);

  useEffect(() => {
    if (!isOpen) return;
    root.current?.querySelector<HTMLElement>('[role=menuitem]')?.focus();
    const closeBeside = (event: Event) => {
      if (event.target instanceof Node && !root.current?.contains(event.target)) setIsOpen(false);
    };
    document.addEventListener('pointerdown', closeBeside);
    return () => document.removeEventListener('pointerdown', closeBeside);
  }, [isOpen]);

  function close() {
    setIsOpen(false);
    button.current?.focus();
  }

  function move(event: KeyboardEvent) {
    const items = [...(root.current?.querySelectorAll<HTMLElement>('[role=menuitem]') ?? [])];
    const at = items.indexOf(document.activeElement as HTMLElement);
    const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: items.length - 1 }[event.key];
    if (event.key === 'Escape' || event.key === 'Tab') close();
    if (event.key === 'Escape' || to !== undefined) event.preventDefault();
    if (to !== undefined) items[(to + items.length) % items.length]?.focus();
  }

  return (
    // biome-ignore lint/a11y/noStaticElementInteractions: its keys are those of the menu within
    <div className="cs-menu-root" ref={root} onKeyDown={isOpen ? move : undefined}>
      <button
        ref={button}
        type="button"
        className="cs-button cs-icon"
        aria-label={label}
        aria-haspopup="menu"
        aria-expanded={isOpen}
        onClick={() => setIsOpen((before) => !before)}
      >
        <span aria-hidden="true">⋯</span>
      </button>
      {isOpen && (
        <div className="cs-menu" role="menu" aria-label={label}>
          {actions.map((action) => (
            <button
              key={action}
              type="button"
              role="menuitem"
              tabIndex={-1}
              className={`cs-menu-item${action === 'revoke' ? ' cs-menu-danger' : ''}`}
              onClick={() => {
                close();
                onAction(action);
              }}
            >
              {texts[action]}
            </button>
          ))}
        </div>
      )}
    </div>
  );
}
