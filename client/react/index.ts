/**
 * `countersign/react`: a panel in which end users manage their own API keys, and what it is made of; the applications that
 * they let act for them; and the page on which they are asked whether they let one.
 */
export type { ErrorCode } from '../../server/errors.ts';
export { CountersignError } from '../../server/errors.ts';
export { ApiKeysPanel, type ApiKeysPanelProps } from './api-keys-panel.tsx';
export {
  ConnectedApplications,
  type ConnectedApplicationsProps,
  type ConnectedApplicationsTexts,
  ENGLISH_CONNECTED_APPLICATIONS,
} from './connected-applications.tsx';
export {
  ENGLISH_OAUTH_CONSENT,
  OAuthConsent,
  type OAuthConsentProps,
  type OAuthConsentTexts,
} from './oauth-consent.tsx';
export { PanelProvider, type PanelProviderProps, usePanelSource } from './panel-context.tsx';
export type {
  ConnectedApplication,
  ConnectedApplicationPage,
  CreatedPanelKey,
  PanelKey,
  PanelKeyPage,
  PanelKeyUsage,
  PanelOptions,
  PanelSource,
  PanelSourceOptions,
  RotatedPanelKey,
  WithdrawnApplication,
} from './panel-source.ts';
export { ENGLISH, type PanelTexts } from './texts.ts';
export { type ApiKeys, type UseApiKeysOptions, useApiKeys } from './use-api-keys.ts';
export { type ConnectedApplicationsState, useConnectedApplications } from './use-connected-applications.ts';
export { type PanelOptionsState, usePanelOptions } from './use-panel-options.ts';
