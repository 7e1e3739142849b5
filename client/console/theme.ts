import { type CSSVariablesResolver, createTheme } from '@mantine/core';

/** Shades that keep 4.5:1 against both backgrounds (WCAG 2.2, 1.4.3). */
export const theme = createTheme({
  primaryColor: 'indigo',
  primaryShade: { light: 7, dark: 8 },
  autoContrast: true,
  defaultRadius: 'md',
  cursorType: 'pointer',
});

/** Where Mantine's own shades fall short of that. */
export const cssVariables: CSSVariablesResolver = ({ colors: { gray, red } }) => ({
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
