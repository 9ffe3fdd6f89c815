const MAX_LENGTH = 2_000;

/**
 * Text from the registry or a file as it may be shown on a terminal: whatever could move the cursor, change colours,
 * reverse the line or look like another letter is written out.
 */
export function printable(text: string): string {
  const safe = text.replace(/[^ -~]/gu, (character) => {
    const code = character.codePointAt(0) ?? 0;
    return `\\u{${code.toString(16)}}`;
  });
  return safe.length > MAX_LENGTH ? `${safe.slice(0, MAX_LENGTH - 3)}...` : safe;
}

/** Any value as JSON that a terminal may be shown: the same for whoever reads it, in printable ASCII only. */
export function printableJson(value: unknown): string {
  return JSON.stringify(value).replace(
    /[^ -~]/g,
    (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, '0')}`,
  );
}
