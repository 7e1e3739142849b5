/** Every text of the panel; whoever translates it replaces them. */
import type { ErrorCode } from '../../server/errors.ts';

export interface PanelTexts {
  title: string;
  active: string;
  ended: string;
  search: string;
  create: string;
  empty: string;
  emptyHint: string;
  emptyEnded: string;
  noMatch: string;
  name: string;
  value: string;
  scopes: string;
  noScopes: string;
  lastUsed: string;
  neverUsed: string;
  actions: string;
  actionsOf: (name: string) => string;
  created: (date: string) => string;
  expires: (date: string) => string;
  expired: (date: string) => string;
  revoked: (date: string) => string;
  neverExpires: string;
  disabled: string;
  overlap: (rest: string) => string;
  endOverlap: string;
  previous: string;
  next: string;
  page: (page: number, pages: number) => string;
  liveKeys: (count: number, max: number) => string;
  cancel: string;
  close: string;
  retry: string;
  loading: string;

  createTitle: string;
  description: string;
  expiration: string;
  lifetimes: Record<Lifetime, string>;
  expiringAt: (date: string) => string;
  willNeverExpire: string;

  copyTitle: (name: string) => string;
  copyHint: string;
  copyAndClose: string;
  /** Where the page may not write to the clipboard. */
  copyByHand: string;

  rename: string;
  renameTitle: (name: string) => string;
  save: string;

  rotate: string;
  rotateTitle: (name: string) => string;
  rotateHint: string;
  overlapLabel: string;
  overlaps: Record<Overlap, string>;

  revoke: string;
  revokeTitle: (name: string) => string;
  revokeHint: string;
  /** What is to be typed: the same as is shown, whatever the language. */
  revokeWord: string;
  revokeLabel: (word: string) => string;

  usage: string;
  usageTitle: (name: string) => string;
  usageSummary: (valid: string, refused: string) => string;
  usageNone: string;
  usageDay: (date: string, valid: string, refused: string) => string;

  errors: Partial<Record<ErrorCode, string>>;
  /** What has no text of its own. */
  failed: string;
}

export const LIFETIMES = [1, 7, 30, 60, 90, 180, 365] as const;
/** In days; `never` for forever, `default` for what the server gives. */
export type Lifetime = 'never' | `${(typeof LIFETIMES)[number]}`;

export const OVERLAPS = ['none', 'hour', 'day', 'week', 'compromised'] as const;
export type Overlap = (typeof OVERLAPS)[number];

export const ENGLISH: PanelTexts = {
  title: 'API keys',
  active: 'Active',
  ended: 'Revoked and expired',
  search: 'Search keys',
  create: 'Create key',
  empty: 'No API keys found',
  emptyHint: 'Create one, and give it to the program that is to act for you.',
  emptyEnded: 'No key was revoked or has expired',
  noMatch: 'No key is called so',
  name: 'Name',
  value: 'Key',
  scopes: 'Scopes',
  noScopes: 'None',
  lastUsed: 'Last used',
  neverUsed: '–',
  actions: 'Actions',
  actionsOf: (name) => `Actions of ${name}`,
  created: (date) => `Created ${date}`,
  expires: (date) => `Expires ${date}`,
  expired: (date) => `Expired ${date}`,
  revoked: (date) => `Revoked ${date}`,
  neverExpires: 'Never expires',
  disabled: 'Disabled',
  overlap: (rest) => `The value before is accepted for another ${rest}`,
  endOverlap: 'End it now',
  previous: 'Previous',
  next: 'Next',
  page: (page, pages) => `Page ${page} of ${pages}`,
  liveKeys: (count, max) => `${count} of ${max} keys`,
  cancel: 'Cancel',
  close: 'Close',
  retry: 'Try again',
  loading: 'Loading',

  createTitle: 'Create an API key',
  description: 'Description',
  expiration: 'Expiration',
  lifetimes: {
    never: 'Never',
    1: '1 day',
    7: '7 days',
    30: '30 days',
    60: '60 days',
    90: '90 days',
    180: '180 days',
    365: '1 year',
  },
  expiringAt: (date) => `Expiring ${date}`,
  willNeverExpire: 'This key will never expire',

  copyTitle: (name) => `Copy your “${name}” API key now`,
  copyHint: 'For security reasons, nobody can show it to you again later.',
  copyAndClose: 'Copy and close',
  copyByHand:
    'Your browser does not let this page copy: select the key, copy it, and press the button again.',

  rename: 'Rename',
  renameTitle: (name) => `Rename “${name}”`,
  save: 'Save',

  rotate: 'Rotate',
  rotateTitle: (name) => `Rotate “${name}”`,
  rotateHint: 'The key is given a new value. Name, scopes and limits stay as they are.',
  overlapLabel: 'The value of before',
  overlaps: {
    none: 'ends now',
    hour: 'is accepted for another hour',
    day: 'is accepted for another day',
    week: 'is accepted for another week',
    compromised: 'has leaked: end it, and every value before it',
  },

  revoke: 'Revoke',
  revokeTitle: (name) => `Revoke “${name}”`,
  revokeHint: 'Whatever uses it is refused from then on. This cannot be undone.',
  revokeWord: 'Revoke',
  revokeLabel: (word) => `Type “${word}” to confirm`,

  usage: 'Usage',
  usageTitle: (name) => `Usage of “${name}” in the last 30 days`,
  usageSummary: (valid, refused) => `${valid} accepted, ${refused} refused`,
  usageNone: 'It was not used in the last 30 days',
  usageDay: (date, valid, refused) => `${date}: ${valid} accepted, ${refused} refused`,

  errors: {
    name_taken: 'Another of your keys has this name already',
    limit_reached: 'You have as many keys as you may: revoke one to create another',
    scope_not_allowed: 'You may not give a key this scope',
    rate_limited: 'Too many changes at once: try again in a minute',
    unauthenticated: 'You are signed out: sign in again',
    forbidden: 'You may not do this',
    not_found: 'This key is gone',
    already_revoked: 'This key was revoked already',
    rotation_in_progress: 'It is being rotated already: end the value of before first',
    network: 'The server does not answer',
    unavailable: 'The server cannot answer at the moment',
  },
  failed: 'This did not work',
};
