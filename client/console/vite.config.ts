/** Builds the console into `dist/console`, from where the server sends it: nothing is fetched from elsewhere at run time. */
import react from '@vitejs/plugin-react';
import { defineConfig } from 'vite';

export default defineConfig({
  root: import.meta.dirname,
  base: '/console/',
  plugins: [react()],
  build: {
    outDir: '../../dist/console',
    emptyOutDir: true,
    target: 'es2022',
    reportCompressedSize: false,
    // What counts is the compressed size of what the first page loads, which a test bounds.
    chunkSizeWarningLimit: 1_000,
  },
});
