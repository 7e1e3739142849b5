/** A dialog: the browser's own, which keeps the focus within and the page behind it still. */
import { type FormEvent, type ReactNode, useEffect, useId, useLayoutEffect, useRef } from 'react';

export interface DialogProps {
  title: string;
  children: ReactNode;
  /** Asked for by Escape or by a click beside it; without it, only a button of its own closes it. */
  onClose?: (() => void) | undefined;
  onSubmit?: (() => void) | undefined;
}

/** Is open as long as it is there. */
export function Dialog({ title, children, onClose, onSubmit }: DialogProps) {
  const element = useRef<HTMLDialogElement>(null);
  const titleId = useId();

  // Before it is taken out of the page: only then does the browser give the focus back to what opened it.
  useLayoutEffect(() => {
    const dialog = element.current;
    if (dialog && !dialog.open) dialog.showModal();
    return () => dialog?.close();
  }, []);

  // Some browsers let a second Escape close a dialog whatever is said to the first.
  useEffect(() => {
    const dialog = element.current;
    if (!dialog || onClose) return;
    const stay = (event: KeyboardEvent) => {
      if (event.key === 'Escape') event.preventDefault();
    };
    dialog.addEventListener('keydown', stay);
    return () => dialog.removeEventListener('keydown', stay);
  }, [onClose]);

  function submit(event: FormEvent) {
    event.preventDefault();
    onSubmit?.();
  }

  return (
    // biome-ignore lint/a11y/useKeyWithClickEvents: Escape is its key, as `onCancel`
    <dialog
      ref={element}
      className="cs-dialog"
      aria-labelledby={titleId}
      onCancel={(event) => {
        event.preventDefault();
        onClose?.();
      }}
      onClick={(event) => {
        if (event.target === event.currentTarget) onClose?.();
      }}
    >
      <form className="cs-form" onSubmit={submit}>
        <h2 className="cs-dialog-title" id={titleId}>
          {title}
        </h2>
        {children}
      </form>
    </dialog>
  );
}
