/** Asks before something that cannot be undone: the name is to be typed. */
import { Button, Group, Modal, Stack, Text, TextInput } from '@mantine/core';
import { type FormEvent, type ReactNode, useState } from 'react';
import { Failure } from './failure.tsx';

export interface ConfirmProps {
  isOpen: boolean;
  onClose: () => void;
  /** What is about to happen, as in "Revoke API key". */
  title: string;
  /** What it does to others. */
  children: ReactNode;
  /** What is to be typed. */
  name: string;
  action: { mutate: () => void; isPending: boolean; error: unknown };
}

export function Confirm({ isOpen, onClose, title, children, name, action }: ConfirmProps) {
  const [typed, setTyped] = useState('');
  function close() {
    setTyped('');
    onClose();
  }
  function submit(event: FormEvent) {
    event.preventDefault();
    if (typed === name) action.mutate();
  }
  return (
    <Modal opened={isOpen} onClose={close} title={title} centered>
      <form onSubmit={submit}>
        <Stack>
          <Text size="sm">{children}</Text>
          <TextInput
            label={`Type “${name}” to confirm`}
            value={typed}
            onChange={(event) => setTyped(event.currentTarget.value)}
            autoComplete="off"
            data-autofocus
          />
          <Failure error={action.error} />
          <Group justify="flex-end">
            <Button variant="default" onClick={close}>
              Cancel
            </Button>
            <Button type="submit" color="red" disabled={typed !== name} loading={action.isPending}>
              {title}
            </Button>
          </Group>
        </Stack>
      </form>
    </Modal>
  );
}
