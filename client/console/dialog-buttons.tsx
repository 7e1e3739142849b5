/** Buttons that open a dialog: with a form in it, with a value that is shown once after it, or with a name to type. */
import { Button, type ButtonProps } from '@mantine/core';
import { useDisclosure } from '@mantine/hooks';
import { type ReactNode, useState } from 'react';
import { useChange } from './change.ts';
import { Confirm } from './confirm.tsx';
import { Failure } from './failure.tsx';
import { FormDialog } from './form-dialog.tsx';
import { ShownOnce } from './shown-once.tsx';

interface Shown extends Pick<ButtonProps, 'size' | 'variant'> {
  label: string;
  /** Where several buttons say the same: of what this one is. */
  of?: string | undefined;
}

const named = ({ label, of }: Shown) => (of === undefined ? {} : { 'aria-label': `${label} ${of}` });

/** `children` are told how to close the dialog that they are in. */
export function DialogButton({
  title,
  children,
  ...shown
}: Shown & { title: string; children: (close: () => void) => ReactNode }) {
  const [isOpen, { open, close }] = useDisclosure();
  const { size, variant } = shown;
  return (
    <>
      <Button {...(size && { size })} {...(variant && { variant })} {...named(shown)} onClick={open}>
        {shown.label}
      </Button>
      <FormDialog title={title} isOpen={isOpen} onClose={close}>
        {children(close)}
      </FormDialog>
    </>
  );
}

/** The same for what makes a value: `children` are told besides what to do with it. */
export function SecretButton({
  shownAs,
  children,
  ...dialog
}: Shown & {
  title: string;
  /** Over the value. */
  shownAs: string;
  children: (done: (secret: string | null) => void, close: () => void) => ReactNode;
}) {
  const [secret, setSecret] = useState<string | null>(null);
  return (
    <>
      <DialogButton {...dialog}>
        {(close) =>
          children((made) => {
            close();
            setSecret(made);
          }, close)
        }
      </DialogButton>
      <ShownOnce title={shownAs} value={secret} onClose={() => setSecret(null)} />
    </>
  );
}

/** Does what cannot be undone once the name was typed. */
export function ConfirmButton({
  noun,
  title,
  name,
  act,
  onDone,
  children,
  ...shown
}: Shown & {
  /** What the keys of its queries begin with. */
  noun: string;
  title: string;
  name: string;
  act: () => Promise<unknown>;
  onDone?: (() => void) | undefined;
  children: ReactNode;
}) {
  const [isOpen, { open, close }] = useDisclosure();
  const acting = useChange(noun, act, () => {
    close();
    onDone?.();
  });
  return (
    <>
      <Button size={shown.size ?? 'xs'} color="red" variant="outline" {...named(shown)} onClick={open}>
        {shown.label}
      </Button>
      <Confirm
        isOpen={isOpen}
        onClose={close}
        title={title}
        name={name}
        action={{ ...acting, mutate: () => acting.mutate(undefined) }}
      >
        {children}
      </Confirm>
    </>
  );
}

/** Disables what is enabled, and the other way round. */
export function EnableButton({
  noun,
  id,
  enabled,
  calls: { enable, disable },
}: {
  noun: string;
  id: string;
  enabled: boolean;
  calls: Record<'enable' | 'disable', { mutate: (input: { id: string }) => Promise<unknown> }>;
}) {
  const setting = useChange(noun, () => (enabled ? disable : enable).mutate({ id }));
  return (
    <>
      <Button
        size="xs"
        variant="default"
        onClick={() => setting.mutate(undefined)}
        loading={setting.isPending}
      >
        {enabled ? 'Disable' : 'Enable'}
      </Button>
      <Failure error={setting.error} />
    </>
  );
}
