import { Anchor, type CSSVariablesResolver, createTheme, Modal, Notification } from '@mantine/core';

export const theme = createTheme({
  primaryColor: 'indigo',
  primaryShade: { light: 7, dark: 8 },
  autoContrast: true,
  defaultRadius: 'md',
  cursorType: 'pointer',
  components: {
    // By colour alone not everybody tells a link from the text around it.
    Anchor: Anchor.extend({ defaultProps: { underline: 'always' } }),
    Notification: Notification.extend({ defaultProps: { closeButtonProps: { 'aria-label': 'Close' } } }),
    Modal: Modal.extend({
      defaultProps: {
        closeButtonProps: { 'aria-label': 'Close' },
        // A dialog's header is no banner of the page.
        attributes: { header: { role: 'none' } },
      },
    }),
  },
});

/** Shades that keep 4.5:1 against both backgrounds, which those of the library do not (WCAG 2.2, 1.4.3). */
export const readableShades: CSSVariablesResolver = ({ colors: { gray, red } }) => ({
  variables: {},
  light: {
    '--mantine-color-dimmed': gray[7],
    '--mantine-color-placeholder': gray[7],
    '--mantine-color-error': red[9],
    '--mantine-color-red-filled': red[9],
    '--mantine-color-red-filled-hover': red[9],
    '--mantine-color-red-outline': red[9],
    '--mantine-color-red-light-color': red[9],
  },
  dark: {
    '--mantine-color-dimmed': gray[5],
    '--mantine-color-placeholder': gray[5],
  },
});
