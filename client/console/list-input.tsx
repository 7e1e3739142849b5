import { TagsInput, type TagsInputProps } from '@mantine/core';

export type ListInputProps = Omit<TagsInputProps, 'splitChars' | 'isDuplicate'>;

/** Several words, such as scopes or CIDR blocks: each ends with Enter, a comma or a space. */
export function ListInput(props: ListInputProps) {
  return (
    <TagsInput
      {...props}
      splitChars={[',', ' ', '\n']}
      isDuplicate={(value, others) => others.includes(value)}
      clearable
      clearButtonProps={{ 'aria-label': `Clear ${String(props.label).toLowerCase()}` }}
    />
  );
}
