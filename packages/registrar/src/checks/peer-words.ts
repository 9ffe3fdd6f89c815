const MAX_LENGTH = 200;

/**
 * What the other end has said, fit for one line of a log or a terminal: without control characters and line breaks, not
 * long, and without the secret that it may have repeated.
 */
export function peerWords(said: Buffer | string, secret?: string): string {
  let text = typeof said === 'string' ? said : said.toString('utf8');
  if (secret !== undefined) text = text.replaceAll(secret, '***');
  const plain = text.replace(/[\p{C}\p{Z}\ufffd]+/gu, ' ').trim();
  return plain.length > MAX_LENGTH ? `${plain.slice(0, MAX_LENGTH)}…` : plain;
}
