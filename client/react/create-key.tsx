/** The form that creates an API key. */
import { useId, useState } from 'react';
import { dateTimeOf } from './dates.ts';
import { Dialog } from './dialog.tsx';
import { useFailureText, usePanelSource, useTexts } from './panel-context.tsx';
import type { CreatedPanelKey, PanelOptions } from './panel-source.ts';
import { LIFETIMES, type Lifetime } from './texts.ts';
import { useAction } from './use-action.ts';

const DAY_SECONDS = 86_400;

/** In seconds; null for forever. */
const lengthOf = (lifetime: Lifetime) => (lifetime === 'never' ? null : Number(lifetime) * DAY_SECONDS);

/** What fits under the longest lifetime, and forever where there is none. */
function lifetimesUnder(max: number | null): Lifetime[] {
  const finite = LIFETIMES.filter((days) => max === null || days * DAY_SECONDS <= max);
  return [...(max === null ? (['never'] as const) : []), ...finite.map((days): Lifetime => `${days}`)];
}

/** What is chosen before anybody chooses: what the server would give, as far as it is among them. */
function firstOf(lifetimes: readonly Lifetime[], byDefault: number | null): Lifetime | undefined {
  return lifetimes.find((lifetime) => lengthOf(lifetime) === byDefault) ?? lifetimes.at(-1);
}

export interface CreateKeyProps {
  options: PanelOptions;
  showDescription: boolean;
  locale: string | undefined;
  onCreated: (key: CreatedPanelKey) => void;
  onClose: () => void;
}

export function CreateKey({ options, showDescription, locale, onCreated, onClose }: CreateKeyProps) {
  const texts = useTexts();
  const source = usePanelSource();
  const failureText = useFailureText();
  const id = useId();
  const lifetimes = lifetimesUnder(options.ttlSecondsMax);
  const [name, setName] = useState('');
  const [description, setDescription] = useState('');
  const [lifetime, setLifetime] = useState(firstOf(lifetimes, options.ttlSecondsDefault));
  const [scopes, setScopes] = useState<readonly string[]>([]);

  const create = useAction(
    () =>
      source.create({
        name: name.trim(),
        scopes: [...scopes],
        ...(description.trim() !== '' && { description: description.trim() }),
        // Without a lifetime that fits, the server gives its own.
        ...(lifetime !== undefined && { ttlSeconds: lengthOf(lifetime) }),
      }),
    onCreated,
  );

  const seconds = lifetime === undefined ? options.ttlSecondsDefault : lengthOf(lifetime);
  return (
    <Dialog title={texts.createTitle} onClose={onClose} onSubmit={create.run}>
      <label className="cs-field" htmlFor={`${id}-name`}>
        {texts.name}
        <input
          id={`${id}-name`}
          className="cs-input"
          value={name}
          onChange={(event) => setName(event.target.value)}
          maxLength={255}
          autoComplete="off"
          required
        />
      </label>
      {showDescription && (
        <label className="cs-field" htmlFor={`${id}-description`}>
          {texts.description}
          <input
            id={`${id}-description`}
            className="cs-input"
            value={description}
            onChange={(event) => setDescription(event.target.value)}
            maxLength={255}
          />
        </label>
      )}
      {lifetimes.length > 0 && (
        <label className="cs-field" htmlFor={`${id}-expiration`}>
          {texts.expiration}
          <select
            id={`${id}-expiration`}
            className="cs-input"
            value={lifetime}
            onChange={(event) => setLifetime(event.target.value as Lifetime)}
            aria-describedby={`${id}-expiring`}
          >
            {lifetimes.map((each) => (
              <option key={each} value={each}>
                {texts.lifetimes[each]}
              </option>
            ))}
          </select>
        </label>
      )}
      <p className="cs-hint" id={`${id}-expiring`} aria-live="polite">
        {seconds === null
          ? texts.willNeverExpire
          : texts.expiringAt(dateTimeOf(Date.now() + seconds * 1000, locale))}
      </p>
      {options.scopes.length > 0 && (
        <fieldset className="cs-scopes">
          <legend>{texts.scopes}</legend>
          {options.scopes.map((scope) => (
            <label key={scope} className="cs-check">
              <input
                type="checkbox"
                checked={scopes.includes(scope)}
                onChange={({ target }) =>
                  setScopes((before) =>
                    target.checked ? [...before, scope] : before.filter((each) => each !== scope),
                  )
                }
              />
              <code>{scope}</code>
            </label>
          ))}
        </fieldset>
      )}
      {create.error !== null && (
        <p className="cs-failure" role="alert">
          {failureText(create.error)}
        </p>
      )}
      <div className="cs-buttons">
        <button type="button" className="cs-button" onClick={onClose}>
          {texts.cancel}
        </button>
        <button
          type="submit"
          className="cs-button cs-primary"
          disabled={name.trim() === '' || create.isRunning}
        >
          {texts.create}
        </button>
      </div>
    </Dialog>
  );
}
