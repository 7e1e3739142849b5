/** A dialog with a form in it: what is filled in goes with the dialog, and what the server refuses is said in it. */
import { Button, Group, Modal, Stack } from '@mantine/core';
import type { FormEvent, ReactNode } from 'react';
import { Failure } from './failure.tsx';

/** Its children are made anew each time that it opens. */
export function FormDialog({
  title,
  isOpen,
  onClose,
  children,
}: {
  title: string;
  isOpen: boolean;
  onClose: () => void;
  children: ReactNode;
}) {
  return (
    <Modal opened={isOpen} onClose={onClose} title={title} centered size="lg">
      {children}
    </Modal>
  );
}

export function DialogForm({
  action,
  label,
  color,
  isReady = true,
  onSubmit,
  onCancel,
  children,
}: {
  action: { isPending: boolean; error: unknown };
  /** What its button says. */
  label: string;
  color?: string;
  isReady?: boolean;
  onSubmit: () => void;
  onCancel: () => void;
  children: ReactNode;
}) {
  function submit(event: FormEvent) {
    event.preventDefault();
    if (isReady) onSubmit();
  }
  return (
    <form onSubmit={submit}>
      <Stack>
        {children}
        <Failure error={action.error} />
        <Group justify="flex-end">
          <Button variant="default" onClick={onCancel}>
            Cancel
          </Button>
          <Button type="submit" disabled={!isReady} loading={action.isPending} {...(color && { color })}>
            {label}
          </Button>
        </Group>
      </Stack>
    </form>
  );
}
