import react from '@vitejs/plugin-react';
import { defineConfig } from 'vite';

export default defineConfig({
  root: import.meta.dirname,
  plugins: [react()],
  build: {
    outDir: '../../../dist/examples/host-app',
    emptyOutDir: true,
    target: 'es2022',
    reportCompressedSize: false,
  },
});
