/** Changing something: a mutation, after which what was read of its noun is read again. */
import { type UseMutationResult, useMutation, useQueryClient } from '@tanstack/react-query';

/** `noun` is what the keys of its queries begin with. */
export function useChange<Input, Output>(
  noun: string,
  change: (input: Input) => Promise<Output>,
  onDone?: (output: Output, input: Input) => void,
): UseMutationResult<Output, Error, Input> {
  const queries = useQueryClient();
  return useMutation({
    mutationFn: change,
    async onSuccess(output, input) {
      onDone?.(output, input);
      await queries.invalidateQueries({ queryKey: [noun] });
    },
  });
}
