/** What is done to one API key: copied once, renamed, rotated, revoked. */
import { type ReactNode, useId, useRef, useState } from 'react';
import { Dialog } from './dialog.tsx';
import { useFailureText, usePanelSource, useTexts } from './panel-context.tsx';
import type { PanelKey, RotatedPanelKey } from './panel-source.ts';
import { OVERLAPS, type Overlap } from './texts.ts';
import { type Action, useAction } from './use-action.ts';

interface KeyDialogProps<T> {
  apiKey: PanelKey;
  onDone: (value: T) => void;
  onClose: () => void;
}

interface ButtonsProps {
  action: Action;
  label: string;
  onClose: () => void;
  isReady?: boolean;
  isDangerous?: boolean;
}

function Buttons({ action, label, onClose, isReady = true, isDangerous = false }: ButtonsProps) {
  const texts = useTexts();
  const failureText = useFailureText();
  return (
    <>
      {action.error !== null && (
        <p className="cs-failure" role="alert">
          {failureText(action.error)}
        </p>
      )}
      <div className="cs-buttons">
        <button type="button" className="cs-button" onClick={onClose}>
          {texts.cancel}
        </button>
        <button
          type="submit"
          className={`cs-button ${isDangerous ? 'cs-danger' : 'cs-primary'}`}
          disabled={!isReady || action.isRunning}
        >
          {label}
        </button>
      </div>
    </>
  );
}

/** Nothing but its button closes it: what it shows is gone with it. */
export function CopyOnce({ name, secret, onClose }: { name: string; secret: string; onClose: () => void }) {
  const texts = useTexts();
  const element = useRef<HTMLElement>(null);
  const [mustCopyByHand, setMustCopyByHand] = useState(false);

  async function copy() {
    if (mustCopyByHand) return onClose();
    try {
      await navigator.clipboard.writeText(secret);
      onClose();
    } catch {
      // Such as a page without https: the value is selected, and one key copies it.
      if (element.current) getSelection()?.selectAllChildren(element.current);
      setMustCopyByHand(true);
    }
  }

  return (
    <Dialog title={texts.copyTitle(name)} onSubmit={() => void copy()}>
      <p className="cs-hint">{texts.copyHint}</p>
      <code className="cs-secret" ref={element} data-testid="cs-secret">
        {secret}
      </code>
      {mustCopyByHand && (
        <p className="cs-failure" role="alert">
          {texts.copyByHand}
        </p>
      )}
      <div className="cs-buttons">
        <button type="submit" className="cs-button cs-primary">
          {texts.copyAndClose}
        </button>
      </div>
    </Dialog>
  );
}

export function RenameKey({
  apiKey,
  showDescription,
  onDone,
  onClose,
}: KeyDialogProps<PanelKey> & { showDescription: boolean }) {
  const texts = useTexts();
  const source = usePanelSource();
  const id = useId();
  const [name, setName] = useState(apiKey.name);
  const [description, setDescription] = useState(apiKey.description ?? '');
  const rename = useAction(
    () =>
      source.update({
        id: apiKey.id,
        name: name.trim(),
        ...(showDescription && { description: description.trim() || null }),
      }),
    onDone,
  );
  return (
    <Dialog title={texts.renameTitle(apiKey.name)} onClose={onClose} onSubmit={rename.run}>
      <label className="cs-field" htmlFor={`${id}-name`}>
        {texts.name}
        <input
          id={`${id}-name`}
          className="cs-input"
          value={name}
          onChange={(event) => setName(event.target.value)}
          maxLength={255}
          autoComplete="off"
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
      <Buttons action={rename} label={texts.save} onClose={onClose} isReady={name.trim() !== ''} />
    </Dialog>
  );
}

const OVERLAP_SECONDS: Record<Exclude<Overlap, 'compromised'>, number> = {
  none: 0,
  hour: 3_600,
  day: 86_400,
  week: 604_800,
};

export function RotateKey({ apiKey, onDone, onClose }: KeyDialogProps<RotatedPanelKey>) {
  const texts = useTexts();
  const source = usePanelSource();
  const id = useId();
  const [overlap, setOverlap] = useState<Overlap>('day');
  const rotate = useAction(
    () =>
      source.rotate({
        id: apiKey.id,
        ...(overlap === 'compromised' ? { compromised: true } : { overlapSeconds: OVERLAP_SECONDS[overlap] }),
      }),
    onDone,
  );
  return (
    <Dialog title={texts.rotateTitle(apiKey.name)} onClose={onClose} onSubmit={rotate.run}>
      <p className="cs-hint">{texts.rotateHint}</p>
      <label className="cs-field" htmlFor={`${id}-overlap`}>
        {texts.overlapLabel}
        <select
          id={`${id}-overlap`}
          className="cs-input"
          value={overlap}
          onChange={(event) => setOverlap(event.target.value as Overlap)}
        >
          {OVERLAPS.map((each) => (
            <option key={each} value={each}>
              {texts.overlaps[each]}
            </option>
          ))}
        </select>
      </label>
      <Buttons action={rotate} label={texts.rotate} onClose={onClose} />
    </Dialog>
  );
}

export function RevokeKey({ apiKey, onDone, onClose }: KeyDialogProps<PanelKey>) {
  const texts = useTexts();
  const source = usePanelSource();
  const id = useId();
  const [typed, setTyped] = useState('');
  const revoke = useAction(() => source.revoke({ id: apiKey.id, reason: 'no_longer_used' }), onDone);
  const isTyped = typed.trim() === texts.revokeWord;
  return (
    <Dialog
      title={texts.revokeTitle(apiKey.name)}
      onClose={onClose}
      onSubmit={() => {
        if (isTyped) revoke.run();
      }}
    >
      <p className="cs-hint">{texts.revokeHint}</p>
      <label className="cs-field" htmlFor={`${id}-word`}>
        {texts.revokeLabel(texts.revokeWord)}
        <input
          id={`${id}-word`}
          className="cs-input"
          value={typed}
          onChange={(event) => setTyped(event.target.value)}
          autoComplete="off"
        />
      </label>
      <Buttons action={revoke} label={texts.revoke} onClose={onClose} isReady={isTyped} isDangerous />
    </Dialog>
  );
}

/** What is only looked at. */
export function Notice({
  title,
  children,
  onClose,
}: {
  title: string;
  children: ReactNode;
  onClose: () => void;
}) {
  const texts = useTexts();
  return (
    <Dialog title={title} onClose={onClose} onSubmit={onClose}>
      {children}
      <div className="cs-buttons">
        <button type="submit" className="cs-button">
          {texts.close}
        </button>
      </div>
    </Dialog>
  );
}
